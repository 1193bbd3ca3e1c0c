"""The learned part of the safety gate: a logistic model over sentence vectors, words, letters and the vocabulary.

Pure: vectors are passed in. Each headline is scored together with the phrase; a topic is as risky as its riskiest
headline. The weights are a text file beside this one, made by ``evals.safety_training``; they belong to one embedder.

The vectors enter through random Fourier features (Rahimi and Recht, "Random Features for Large-Scale Kernel Machines",
2007), so that a linear model draws the curved boundaries of a Gaussian kernel.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.embedder import Vectors
from ingest.safety_rules import Reading, Vocabulary, words_of

Floats = npt.NDArray[np.float64]

BUCKETS = 2**15
"""Of hashed words and of hashed letter groups, each."""

FOURIER = 1024
"""Random features for each kind of vector."""

WORD_BITS = 2**21
"""Of the set of known words: at 25,000 words one in a hundred unknown ones seems known."""

_SEED = 20261121
_GAMMAS = {"joint": 1.0, "phrase": 1.0, "headline": 1.0, "curved rules": 0.3}
"""Of the Gaussian kernel of each dense feature."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A phrase with one headline, or None where there is none; with what the vocabulary read in them."""

    phrase: str
    headline: str | None
    language: str
    phrase_reading: Reading
    headline_reading: Reading

    @classmethod
    def of(cls, phrase: str, headline: str | None, language: str, vocabulary: Vocabulary) -> "Instance":
        reading = vocabulary.read(headline, language) if headline else Reading()
        return cls(phrase, headline, language, vocabulary.read(phrase, language), reading)

    @property
    def texts(self) -> tuple[str, ...]:
        """What must be embedded: the phrase, and where there is a headline both together and that alone."""
        if self.headline is None:
            return (self.phrase,)
        return (self.phrase, f"{self.phrase}. {self.headline}", self.headline)


def rule_features(instance: Instance, vocabulary: Vocabulary) -> Floats:
    """float64 (``rule_size``,), each in [0, 1]: which categories were found, how much of what surroundings."""
    out: list[float] = []
    for reading in (instance.phrase_reading, instance.headline_reading):
        for strong in (True, False):
            found = [each.category for each in reading.found if each.strong is strong]
            out += [float(name in found) for name in vocabulary.categories]
            out += [min(1.0, len(found)), min(1.0, len(found) / 3)]
        out += [min(2, reading.context.get(name, 0)) / 2 for name in vocabulary.context]
        out.append(min(1.0, reading.harmless))
    out.append(float(instance.headline is None))
    return np.array(out)


def rule_size(vocabulary: Vocabulary) -> int:
    return 2 * (2 * (len(vocabulary.categories) + 2) + len(vocabulary.context) + 1) + 1


def hashed_features(instance: Instance) -> tuple[dict[int, float], dict[int, float]]:
    """(words and pairs of words, groups of 3–5 letters) as bucket → value; each of Euclidean length 1 or empty."""
    words: list[str] = []
    for name, text in (("p", instance.phrase), ("h", instance.headline)):
        if text:
            said = words_of(text)
            words += [f"{name}:{word}" for word in said]
            words += [f"{name}:{one} {two}" for one, two in zip(["<", *said], [*said, ">"], strict=True)]
    letters = [
        f"<{word}>"[start : start + length]
        for text in (instance.phrase, instance.headline or "")
        for word in words_of(text)
        for length in (3, 4, 5)
        for start in range(len(word) + 3 - length)
    ]
    return _buckets(words), _buckets(letters)


def _buckets(tokens: Iterable[str]) -> dict[int, float]:
    values: dict[int, float] = {}
    for token in sorted(set(tokens)):
        code = zlib.crc32(token.encode())
        bucket, sign = code % BUCKETS, 1.0 if code >> 31 else -1.0
        values[bucket] = values.get(bucket, 0.0) + sign
    length = float(np.sqrt(sum(value * value for value in values.values())))
    return {bucket: value / length for bucket, value in values.items()} if length else {}


def fourier(kind: str, vectors: npt.NDArray[np.floating[Any]]) -> Floats:
    """float64 (n, FOURIER) for vectors (n, dim): their inner products approach exp(-gamma |a - b|²)."""
    frequencies, phases = _projection(kind, vectors.shape[1])
    projected: Floats = np.sqrt(2 / FOURIER) * np.cos(vectors.astype(np.float64) @ frequencies + phases)
    return projected


@lru_cache(maxsize=8)
def _projection(kind: str, dim: int) -> tuple[Floats, Floats]:
    # RandomState's streams are frozen: the same numbers under every version of numpy.
    rng = np.random.RandomState(_SEED + list(_GAMMAS).index(kind))
    frequencies = rng.standard_normal((dim, FOURIER)) * np.sqrt(2 * _GAMMAS[kind])
    return frequencies, rng.uniform(0, 2 * np.pi, FOURIER)


@dataclass(frozen=True)
class Weights:
    """A trained model. Log-odds decide: a topic is withheld at or above ``threshold``, one without any headline at or
    above ``bare``; below ``sure`` even a strong term doesn't withhold it."""

    embedder_name: str
    embedder_sha256: str
    dim: int
    blocks: Mapping[str, Floats]
    """Weights by kind of feature: those of ``_GAMMAS``, "words", "letters", "rules"; and "bias" (1,)."""
    known_words: bytes
    threshold: float
    bare: float
    sure: float
    training: Mapping[str, Any]
    """What it was trained on and how it did there."""
    digest: str = ""

    @classmethod
    def built_in(cls) -> "Weights":
        return cls.parse((files("ingest") / "safety_weights.json").read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> "Weights":
        data: dict[str, Any] = json.loads(text)
        blocks = {
            name: np.frombuffer(base64.b64decode(block["int8"]), dtype=np.int8).astype(np.float64) * block["scale"]
            for name, block in data["blocks"].items()
        }
        made_for = data["embedder"]
        return cls(
            embedder_name=made_for["name"],
            embedder_sha256=made_for["sha256"],
            dim=made_for["dim"],
            blocks=blocks,
            known_words=zlib.decompress(base64.b64decode(data["known_words"])),
            threshold=data["threshold"],
            bare=data["bare"],
            sure=data["sure"],
            training=data["training"],
            digest=hashlib.sha256(text.encode()).hexdigest(),
        )

    def knows(self, word: str) -> bool:
        code = _word_code(word)
        return bool(self.known_words[code // 8] >> (code % 8) & 1)

    @cached_property
    def _hashed(self) -> tuple[Floats, Floats]:
        return self.blocks["words"], self.blocks["letters"]

    def score(self, instance: Instance, vectors: Vectors, vocabulary: Vocabulary) -> float:
        """Log-odds that ``instance`` is unsafe. ``vectors`` are those of ``instance.texts``, (n, dim)."""
        rules = rule_features(instance, vocabulary)
        total = float(self.blocks["bias"][0]) + float(rules @ self.blocks["rules"])
        total += float(fourier("curved rules", rules[np.newaxis, :])[0] @ self.blocks["curved rules"])
        for values, weights in zip(hashed_features(instance), self._hashed, strict=True):
            total += sum(value * float(weights[bucket]) for bucket, value in values.items())
        for kind, vector in zip(kinds(instance), vectors, strict=True):
            total += float(fourier(kind, vector[np.newaxis, :])[0] @ self.blocks[kind])
        return total


def kinds(instance: Instance) -> Sequence[str]:
    """Which kind of vector each of ``instance.texts`` gives."""
    return ("phrase",) if instance.headline is None else ("phrase", "joint", "headline")


def word_set(words: Iterable[str]) -> bytes:
    """The set behind ``Weights.knows``, WORD_BITS bits."""
    bits = bytearray(WORD_BITS // 8)
    for word in words:
        code = _word_code(word)
        bits[code // 8] |= 1 << (code % 8)
    return bytes(bits)


def _word_code(word: str) -> int:
    digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
    return int.from_bytes(digest) % WORD_BITS
