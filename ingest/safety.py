"""Which topics may reach a caption. A first gate, which errs on the side of leaving out. Pure.

A topic is judged by all its names together with all its headlines: "Riverside Bridge" is a place until one reads what
happened there. A name that comes without any text to judge it by is left out as well. Vocabulary is in
``safety_terms.toml``; what it can't know (a new euphemism, a language it lacks) passes.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from ingest.merge import Topic
from ingest.phrases import capitalised_after_first
from trendrag.text import normal_form

_MIN_JOINED = 6
"""Letters that a term needs before it counts inside a hashtag whose words are joined."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is a category of the vocabulary or "unclassifiable"; ``term`` what it was found by."""

    allowed: bool
    reason: str | None = None
    term: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """Terms in normal form, by category; a ``*`` at the end stands for any ending."""

    terms: Mapping[str, frozenset[str]]
    harmless: frozenset[str]
    works: frozenset[str]
    everyday: Mapping[str, frozenset[str]]
    """Per language the terms that are everyday words in it."""
    hashtag_starts: Mapping[str, str]
    """Beginnings of joined hashtags, with their category."""

    @classmethod
    def built_in(cls) -> "Vocabulary":
        return cls.parse((files("ingest") / "safety_terms.toml").read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> "Vocabulary":
        data: dict[str, Any] = tomllib.loads(text)
        terms = {name: frozenset(map(_term, part["terms"])) for name, part in data["sensitive"].items()}
        harmless = frozenset(map(normal_form, data["harmless"]["phrases"]))
        works = frozenset(map(normal_form, data["works"]["qualifiers"]))
        everyday = {name: frozenset(words) for name, words in data["everyday"].items()}
        return cls(terms, harmless, works, everyday, data["hashtag_starts"])

    @cached_property
    def _category(self) -> dict[str, str]:
        return {term: name for name, terms in self.terms.items() for term in sorted(terms)}

    @cached_property
    def _sensitive(self) -> re.Pattern[str]:
        longest = sorted(self._category, key=lambda term: (-len(term), term))
        parts = [re.escape(t[:-1]) + r"\w*" if t.endswith("*") else re.escape(t) for t in longest]
        return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)")

    @cached_property
    def _harmless(self) -> re.Pattern[str]:
        longest = sorted(self.harmless, key=lambda phrase: (-len(phrase), phrase))
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")

    @cached_property
    def _joined(self) -> list[tuple[str, str]]:
        pairs = ((t.rstrip("*").replace(" ", ""), t) for t in self._category)
        return sorted((joined, t) for joined, t in pairs if len(joined) >= _MIN_JOINED)

    def find(self, text: str, language: str = "und") -> tuple[str, str] | None:
        """(category, term) of the first sensitive term in ``text``, None where there is none."""
        # Without the apostrophes a possessive is the word itself.
        form = self._harmless.sub(" ", normal_form(text).replace("'s", "").replace("'", " "))
        everyday = self.everyday.get(language.partition("-")[0], frozenset())
        found = (each[0] for each in self._sensitive.finditer(form) if each[0] not in everyday)
        return next(map(self._of, found), None)

    def find_joined(self, hashtag: str) -> tuple[str, str] | None:
        """As ``find``, in a hashtag whose words can't be told apart: "#planecrashnews"."""
        tag = normal_form(hashtag).replace(" ", "")
        for phrase in self.harmless:
            tag = tag.replace(phrase.replace(" ", ""), " ")
        for start, category in self.hashtag_starts.items():
            if tag.startswith(start):
                return category, start
        return next(((self._category[term], term) for joined, term in self._joined if joined in tag), None)

    def _of(self, words: str) -> tuple[str, str]:
        if words in self._category:
            return self._category[words], words
        return next((self._category[t], t) for t in self._category if t.endswith("*") and words.startswith(t[:-1]))


def judge(topic: Topic, vocabulary: Vocabulary) -> Verdict:
    """May ``topic`` be offered to the writer of a caption?"""
    names = [topic.phrase, *topic.aliases]
    headlines = [each.title for each in topic.evidence]
    for text in [*names, *headlines, *topic.context, topic.summary]:
        if found := vocabulary.find(text, topic.language):
            return Verdict(False, *found)
    for name in names:
        if name.startswith("#") and (found := vocabulary.find_joined(name)):
            return Verdict(False, *found)
    return Verdict(True) if _can_be_judged(topic, vocabulary) else Verdict(False, "unclassifiable")


def _can_be_judged(topic: Topic, vocabulary: Vocabulary) -> bool:
    """False for a bare name of which nothing is known but that many looked it up: mostly people, mostly for a reason.

    People search for anything, so that a search without news says nothing. An encyclopaedia's title speaks for itself
    where its second word is lower-case ("Latte art") or it names a work ("Dune (2021 film)"). A hashtag and a headline
    are talk, which is judged by its words.
    """
    if any(member.kind in ("hashtag", "headline") for member in topic.members):
        return True
    if _has_text(topic.form, (each.title for member in topic.members for each in member.evidence)):
        return True
    if any(member.kind == "phrase" for member in topic.members):
        return False
    words = set(normal_form(" ".join(topic.qualifiers)).split())
    if any(set(work.split()) <= words for work in vocabulary.works):
        return True
    return " " in topic.phrase and capitalised_after_first(topic.phrase) == 0


def _has_text(form: str, titles: Iterable[str]) -> bool:
    return any(len(title.split()) >= 3 and normal_form(title).replace(" ", "") != form for title in titles)


def _term(term: str) -> str:
    star = term.endswith("*")
    return normal_form(term.rstrip("*")) + ("*" if star else "")
