"""The vocabulary of the safety gate: what a text says, in words of ``safety_terms.toml``. Pure; it decides nothing."""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Any

from trendrag.text import normal_form

_MIN_JOINED = 6
"""Letters that a term needs before it counts at the beginning of a hashtag whose words are joined."""

_MIN_INSIDE = 8
"""The same, anywhere in it: there are rapists in therapists."""

_SEPARATORS = str.maketrans({"'": " ", "/": " ", "+": " ", "&": " ", "#": " "})


@dataclass(frozen=True, slots=True)
class Found:
    """A term of the vocabulary that was found in a text. ``strong`` terms hardly ever have a harmless meaning."""

    category: str
    term: str
    strong: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What the vocabulary sees in one text. ``harmless`` counts idioms that were taken out before looking,
    ``context`` words of harmless surroundings (sport, food, …)."""

    found: tuple[Found, ...] = ()
    harmless: int = 0
    context: Mapping[str, int] = field(default_factory=dict)

    @property
    def strong(self) -> Found | None:
        return next((each for each in self.found if each.strong), None)


class _Lexicon:
    """Finds terms in a list of words, with a few look-ups for each word."""

    def __init__(self, terms: Mapping[str, Found]) -> None:
        self._exact: dict[str, Found] = {}
        self._starts: dict[str, Found] = {}
        self._ends: dict[str, Found] = {}
        self._longer: dict[str, list[tuple[tuple[str, ...], bool, Found]]] = {}
        inside: dict[str, Found] = {}
        for term, found in terms.items():
            words = normal_form(term.replace("*", " ")).translate(_SEPARATORS).split()
            if not words:
                continue
            head, tail = term.startswith("*"), term.rstrip().endswith("*")
            if head and tail:
                inside[" ".join(words)] = found
            elif head and len(words) == 1:
                self._ends.setdefault(words[0], found)
            elif len(words) > 1:
                self._longer.setdefault(words[0], []).append((tuple(words), tail, found))
            elif tail:
                self._starts.setdefault(words[0], found)
            else:
                self._exact.setdefault(words[0], found)
        for rows in self._longer.values():
            rows.sort(key=lambda row: -len(row[0]))
        self._inside = inside
        self._anywhere = re.compile("|".join(map(re.escape, sorted(inside, key=len, reverse=True)))) if inside else None

    def matches(self, words: list[str]) -> Iterator[tuple[int, int, Found]]:
        """(first word, number of words, term), the longest at each place, none overlapping."""
        at = 0
        while at < len(words):
            length, found = self._at(words, at)
            if found is not None:
                yield at, length, found
            at += max(1, length)

    def within(self, text: str) -> Iterator[Found]:
        """Terms that count anywhere, for scripts that put no spaces."""
        if self._anywhere is not None:
            for each in self._anywhere.finditer(text):
                yield self._inside[each[0]]

    def _at(self, words: list[str], at: int) -> tuple[int, Found | None]:
        word = words[at]
        for parts, open_end, found in self._longer.get(word, ()):
            said = words[at : at + len(parts)]
            if len(said) < len(parts) or said[:-1] != list(parts[:-1]):
                continue
            if said[-1] == parts[-1] or (open_end and said[-1].startswith(parts[-1])):
                return len(parts), found
        if word in self._exact:
            return 1, self._exact[word]
        starts = (self._starts.get(word[:length]) for length in range(len(word), 2, -1))
        ends = (self._ends.get(word[-length:]) for length in range(len(word), 3, -1))
        part = next((found for found in (*starts, *ends) if found), None)
        return (1, part) if part else (0, None)


@dataclass(frozen=True)
class Vocabulary:
    """Terms by category; a ``*`` at an end stands for any letters there."""

    strong: Mapping[str, tuple[str, ...]]
    hints: Mapping[str, tuple[str, ...]]
    only: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Per language the terms that are everyday words of another one."""
    everyday: Mapping[str, frozenset[str]]
    """Per language the terms that are everyday words in it."""
    harmless: tuple[str, ...]
    pairs: tuple[frozenset[str], frozenset[str]]
    context: Mapping[str, tuple[str, ...]]
    works: frozenset[str]
    hashtag_starts: Mapping[str, str]
    """Beginnings of joined hashtags, with their category."""
    digest: str = ""
    """SHA-256 of all that it says, comments apart."""

    @classmethod
    @cache  # its word lists take a quarter of a second to make
    def built_in(cls) -> "Vocabulary":
        return cls.parse((files("ingest") / "safety_terms.toml").read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> "Vocabulary":
        data: dict[str, Any] = tomllib.loads(text)
        sensitive = data["sensitive"]
        return cls(
            strong={name: tuple(part["strong"]) for name, part in sensitive.items()},
            hints={name: tuple(part["hints"]) for name, part in sensitive.items()},
            only={lang: {name: tuple(t) for name, t in part.items()} for lang, part in data["only"].items()},
            everyday={lang: frozenset(words) for lang, words in data["everyday"].items()},
            harmless=tuple(data["harmless"]["phrases"]),
            pairs=(frozenset(data["harmless"]["first"]), frozenset(data["harmless"]["then"])),
            context={name: tuple(words) for name, words in data["context"].items()},
            works=frozenset(map(normal_form, data["works"]["qualifiers"])),
            hashtag_starts=data["hashtag_starts"],
            digest=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(self.strong)

    @cached_property
    def _sensitive(self) -> dict[str, _Lexicon]:
        """By language, "" for any other."""
        terms: dict[str, Found] = {}
        for strong, by_category in ((True, self.strong), (False, self.hints)):
            for name, words in by_category.items():
                for term in words:
                    terms.setdefault(term, Found(name, term, strong))
        lexicons = {"": _Lexicon(terms)}
        for language, part in self.only.items():
            own = {term: Found(name, term, True) for name, words in part.items() for term in words}
            lexicons[language] = _Lexicon(terms | own)
        return lexicons

    @cached_property
    def _harmless(self) -> _Lexicon:
        return _Lexicon({phrase: Found("harmless", phrase, False) for phrase in self.harmless})

    @cached_property
    def _pairs(self) -> tuple[list[list[str]], frozenset[str]]:
        return sorted(first.split() for first in self.pairs[0]), self.pairs[1]

    @cached_property
    def _context(self) -> list[tuple[str, _Lexicon]]:
        return [(name, _Lexicon({w: Found(name, w, False) for w in words})) for name, words in self.context.items()]

    @cached_property
    def _joined(self) -> list[tuple[str, Found]]:
        terms = ((t, name) for name, words in self.strong.items() for t in words)
        pairs = ((normal_form(t.strip("*")).replace(" ", ""), Found(name, t, True)) for t, name in terms)
        return sorted(((j, found) for j, found in pairs if len(j) >= _MIN_JOINED), key=lambda pair: pair[0])

    def read(self, text: str, language: str = "und") -> Reading:
        """Everything that the vocabulary knows in ``text``."""
        return self._remembered(text, language)

    @cached_property
    def _remembered(self) -> Callable[[str, str], Reading]:
        # One text is read for its own sake, for the classifier's features and for several topics.
        return lru_cache(maxsize=8192)(self._read)

    def _read(self, text: str, language: str) -> Reading:
        words, harmless = self._without_idioms(words_of(text))
        language = language.partition("-")[0]
        lexicon = self._sensitive.get(language, self._sensitive[""])
        everyday = self.everyday.get(language, frozenset())
        found = [each for _, _, each in lexicon.matches(words) if each.term not in everyday]
        found += lexicon.within(" ".join(words))
        context = Counter({name: sum(1 for _ in part.matches(words)) for name, part in self._context})
        return Reading(tuple(found), harmless, +context)

    def read_hashtag(self, hashtag: str) -> Found | None:
        """A strong term in a hashtag whose words can't be told apart: "#planecrashnews". None where they can."""
        tag = normal_form(hashtag)
        if " " in tag:
            return None
        for phrase in self._joined_harmless:
            tag = tag.replace(phrase, " ")
        for start, category in self.hashtag_starts.items():
            if tag.startswith(start):
                return Found(category, start, True)
        inside = (each for each in self._joined if each[0] in tag)
        return next((found for term, found in inside if tag.startswith(term) or len(term) >= _MIN_INSIDE), None)

    @cached_property
    def _joined_harmless(self) -> list[str]:
        joined = {normal_form(phrase.strip("*")).replace(" ", "") for phrase in self.harmless}
        return sorted(joined, key=lambda phrase: (-len(phrase), phrase))

    def _without_idioms(self, words: list[str]) -> tuple[list[str], int]:
        gone: set[int] = set()
        count = 0
        for at, length, _ in self._harmless.matches(words):
            gone.update(range(at, at + length))
            count += 1
        firsts, then = self._pairs
        for first in firsts:
            for at in range(len(words) - len(first)):
                # One word may stand between: "killer party outfit".
                near = words[at + len(first) : at + len(first) + 2]
                if words[at : at + len(first)] == first and at not in gone and any(word in then for word in near):
                    gone.update(range(at, at + len(first)))
                    count += 1
        # A bar keeps what stood on both sides from becoming neighbours.
        return ["|" if at in gone else word for at, word in enumerate(words)], count


def words_of(text: str) -> list[str]:
    """Words in normal form; a possessive is the word itself, and an apostrophe parts words."""
    return normal_form(text).replace("'s ", " ").removesuffix("'s").translate(_SEPARATORS).split()


def strongest(readings: Iterable[Reading]) -> Found | None:
    """The first strong term of several texts."""
    return next((found for reading in readings if (found := reading.strong)), None)
