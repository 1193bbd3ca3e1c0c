"""Which topics may reach a caption. Pure: what must be embedded is asked for (``Gate.texts``) and passed in.

A topic is judged by all its names together with all its headlines: "Riverside Bridge" is a place until one reads what
happened there. In this order decide: the user's lists; the vocabulary (``safety_rules``); a classifier
(``safety_model``) which also overrules the vocabulary where it is sure. A topic that says too little to be judged, or
says it in a script that nothing here can read, is left out as "unclassifiable". Of other scripts only Japanese
sentences are read, by the vocabulary alone. docs/safety.md has the figures.
"""

import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from indexes.embedder import Embedder, Vectors, open_minilm
from ingest.merge import Topic
from ingest.phrases import capitalised_after_first
from ingest.safety_model import Instance, Weights
from ingest.safety_rules import Found, Vocabulary, words_of
from ingest.user_lists import NO_LISTS, UserLists
from trendrag.errors import WeightsError
from trendrag.text import normal_form

MAX_JUDGED = 8
"""Headlines that the classifier reads, the best evidence first. The vocabulary reads all."""

_ALWAYS = ("instructions", "profanity")
"""Categories whose strong terms no classifier overrules."""

UNCLASSIFIABLE = "unclassifiable"

_KANA = re.compile(r"[\u3040-\u30ff]")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff々]")
_MIN_KANA = 3
_MIN_JAPANESE = 12
"""Letters; a word has about two, so that this is as much as six words."""

By = Literal["blocklist", "allowlist", "vocabulary", "classifier", "too little text"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is a category of the vocabulary, "blocked" or "unclassifiable"; ``by`` what decided, None where
    nothing spoke against the topic. ``term`` is what was found, ``score`` the classifier's log-odds of being unsafe."""

    allowed: bool
    reason: str | None = None
    by: By | None = None
    term: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Subject:
    """What is judged: a topic, or a labelled case that stands for one.

    ``self_explaining`` is true for what can be judged by its own words even without a headline.
    """

    names: tuple[str, ...]
    headlines: tuple[str, ...]
    language: str
    self_explaining: bool

    @classmethod
    def of(cls, topic: Topic, vocabulary: Vocabulary) -> "Subject":
        names = (topic.phrase, *topic.aliases)
        own = {normal_form(name).replace(" ", "") for name in names}
        said: dict[str, str] = {}
        for title in (*(each.title for each in topic.evidence), *topic.context):
            form = normal_form(title).replace(" ", "")
            if form and form not in own:
                said.setdefault(form, title)
        return cls(names, tuple(said.values()), topic.language, _explains_itself(topic, vocabulary))


@dataclass(frozen=True)
class Gate:
    """Without ``weights`` only the vocabulary decides, and where ``strict`` its hints then withhold a topic as well."""

    vocabulary: Vocabulary
    weights: Weights | None
    lists: UserLists = NO_LISTS
    strict: bool = True

    @classmethod
    def built_in(cls, embedder: Embedder | None, lists: UserLists | None = None) -> "Gate":
        """With the classifier where ``embedder`` is the one that it was trained with."""
        weights = Weights.built_in() if embedder else None
        fits = weights and embedder and (weights.embedder_sha256, weights.dim) == (embedder.sha256, embedder.dim)
        return cls(Vocabulary.built_in(), weights if fits else None, lists or NO_LISTS)

    @cached_property
    def version(self) -> str:
        """The same where every verdict would be the same: a hash of the vocabulary, the weights and the lists."""
        parts = [self.vocabulary.digest, self.weights.digest if self.weights else "", self.lists.digest]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def note(self) -> str | None:
        """What the user should know of the gate itself."""
        if self.weights:
            return None
        return "The safety classifier belongs to another embedding model, so only the stricter vocabulary decides."

    def texts(self, topic: Topic) -> tuple[str, ...]:
        """What must be embedded to judge ``topic``; empty where nothing must."""
        return self.texts_of(Subject.of(topic, self.vocabulary))

    def judge(self, topic: Topic, vectors: Vectors) -> Verdict:
        """May ``topic`` be offered to the writer of a caption? ``vectors`` are those of ``texts``, float32 (n, dim)."""
        return self.judge_subject(Subject.of(topic, self.vocabulary), vectors)

    def texts_of(self, subject: Subject) -> tuple[str, ...]:
        if self.weights is None or self._by_lists(subject):
            return ()
        return tuple(text for each in self.instances(subject) for text in each.texts)

    def judge_subject(self, subject: Subject, vectors: Vectors) -> Verdict:
        if verdict := self._by_lists(subject):
            return verdict
        strong, hint = self._by_vocabulary(subject)
        readable = _readable([*subject.names, *subject.headlines])
        final = self._unread(subject)
        if strong and (self.weights is None or strong.category in _ALWAYS or not readable):
            final = strong
        if final:
            return Verdict(False, final.category, "vocabulary", final.term)
        if not readable:
            if not _japanese_sentence(subject.headlines):
                return Verdict(False, UNCLASSIFIABLE, "too little text")
            # The classifier doesn't read it, so that any term is enough.
            return Verdict(False, hint.category, "vocabulary", hint.term) if hint else Verdict(True)
        if self.weights is None:
            if hint and self.strict:
                return Verdict(False, hint.category, "vocabulary", hint.term)
            return self._if_it_says_enough(subject)
        score = self._score(subject, vectors)
        threshold = self.weights.threshold if subject.headlines else self.weights.bare
        if score >= threshold or (strong and score >= self.weights.sure):
            by: By = "vocabulary" if strong else "classifier"
            told = strong or hint
            return Verdict(False, told.category if told else "sensitive", by, told.term if told else None, score)
        return self._if_it_says_enough(subject, score)

    def instances(self, subject: Subject) -> list[Instance]:
        """The phrase with each headline that the classifier reads."""
        phrase = subject.names[0]
        headlines: Sequence[str | None] = subject.headlines[:MAX_JUDGED] or (None,)
        return [Instance.of(phrase, headline, subject.language, self.vocabulary) for headline in headlines]

    def _score(self, subject: Subject, vectors: Vectors) -> float:
        assert self.weights is not None  # noqa: S101  (callers look)
        scores: list[float] = []
        start = 0
        for instance in self.instances(subject):
            end = start + len(instance.texts)
            scores.append(self.weights.score(instance, vectors[start:end], self.vocabulary))
            start = end
        return max(scores)

    def _by_lists(self, subject: Subject) -> Verdict | None:
        if entry := self.lists.blocks(subject.names, subject.headlines):
            return Verdict(False, "blocked", "blocklist", entry)
        if entry := self.lists.allows(subject.names):
            return Verdict(True, None, "allowlist", entry)
        return None

    def _by_vocabulary(self, subject: Subject) -> tuple[Found | None, Found | None]:
        """(the first strong term, the first term of any kind)."""
        texts = [*subject.headlines, *subject.names]
        found = [each for text in texts for each in self.vocabulary.read(text, subject.language).found]
        return next((each for each in found if each.strong), None), next(iter(found), None)

    def _unread(self, subject: Subject) -> Found | None:
        """A strong term in what the classifier doesn't read, so that it has no say: a hashtag's joined words, and
        headlines past the first few."""
        tags = [self.vocabulary.read_hashtag(name) for name in subject.names if name.startswith("#")]
        late = [self.vocabulary.read(each, subject.language).strong for each in subject.headlines[MAX_JUDGED:]]
        return next((each for each in (*tags, *late) if each), None)

    def _if_it_says_enough(self, subject: Subject, score: float | None = None) -> Verdict:
        """Nothing speaks against it; but a bare name of which nothing is known is left out.

        People look up names for a reason, and it is often a bad one. Two or more words of which none was ever met as
        a plain word are taken for a name.
        """
        if subject.self_explaining or any(len(each.split()) >= 3 for each in subject.headlines):
            return Verdict(True, score=score)
        words = [word for word in words_of(subject.names[0]) if word.isalpha()]
        known = self.weights is not None and any(map(self.weights.knows, words))
        if known or (self.weights is not None and len(words) < 2):
            return Verdict(True, score=score)
        return Verdict(False, UNCLASSIFIABLE, "too little text", score=score)


def built_in_gate(embedder: Embedder, models_dir: Path, lists: UserLists | None = None) -> tuple[Gate, Embedder]:
    """The gate with the embedder that its classifier reads with: ``embedder``, or the default one where trends are
    compared by another. Where the default's weights are missing only the vocabulary decides."""
    gate = Gate.built_in(embedder, lists)
    if gate.weights is None:
        with contextlib.suppress(WeightsError):
            own = open_minilm(models_dir)
            return Gate.built_in(own, lists), own
    return gate, embedder


def judge_all(topics: Sequence[Topic], gate: Gate, embedder: Embedder | None) -> list[Verdict]:
    """The verdict on each of ``topics``. Each text is embedded once, all in one call."""
    subjects = [Subject.of(topic, gate.vocabulary) for topic in topics]
    return judge_subjects(subjects, gate, embedder)


def judge_subjects(subjects: Sequence[Subject], gate: Gate, embedder: Embedder | None) -> list[Verdict]:
    texts = [gate.texts_of(subject) for subject in subjects]
    rows = {text: row for row, text in enumerate(dict.fromkeys(text for each in texts for text in each))}
    if rows and embedder is None:
        raise ValueError("a gate with a classifier needs the embedder")
    vectors = embedder.embed(list(rows)) if rows and embedder else np.empty((0, 0), dtype=np.float32)
    return [
        gate.judge_subject(subject, vectors[[rows[text] for text in each]])
        for subject, each in zip(subjects, texts, strict=True)
    ]


def _explains_itself(topic: Topic, vocabulary: Vocabulary) -> bool:
    """An encyclopaedia's title does where its second word is lower-case ("Latte art") or it names a work ("Dune (2021
    film)"); a hashtag and a headline are talk. A search term does not, nor does an encyclopaedia's bare name."""
    kinds = {member.kind for member in topic.members}
    if kinds & {"hashtag", "headline"}:
        return True
    if kinds <= {"phrase"}:
        return False
    words = set(normal_form(" ".join(topic.qualifiers)).split())
    if any(set(work.split()) <= words for work in vocabulary.works):
        return True
    return " " in topic.phrase and capitalised_after_first(topic.phrase) == 0


def _japanese_sentence(headlines: Sequence[str]) -> bool:
    """Whether all that is said is Japanese, and enough to judge by: a sentence, of which the vocabulary knows the words
    that would speak against it. Without kana it may be Chinese, of which it knows few."""
    letters = ["".join(char for char in each if char.isalpha()) for each in headlines]
    return bool(letters) and all(
        len(_KANA.findall(each)) >= _MIN_KANA and len(_JAPANESE.findall(each)) >= max(_MIN_JAPANESE, 0.8 * len(each))
        for each in letters
    )


def _readable(texts: Iterable[str]) -> bool:
    """True where most letters are Latin: neither the vocabulary nor the embedder knows enough of other scripts."""
    letters = [char for text in texts for char in text if char.isalpha()]
    latin = sum(char.isascii() or unicodedata.name(char, "").startswith("LATIN") for char in letters)
    return 2 * latin >= len(letters)
