"""Okapi BM25 over the words of trends: finds what shares a rare word with the query, a name above all.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the idf of Lucene, which is
never negative.

Which words stand in which texts (``Postings``) is counted once, when a segment is written. What a word weighs depends
on all texts that are searched, and is worked out for the words of a query alone.
"""

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexes.hashing import hash64

K1, B = 1.2, 0.75
_WORD = re.compile(r"[^\W_]+")
_COMMON_WORDS = """
    a about after all an and are as at be but by for from has have he her his i in into is it its just me my no
    not of off on one or our out over she so some that the their them then there they this to too two up was we
    were what when where who will with without you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """The words of some texts. Word i, by its ``hash64`` (int64, ascending), stands in the texts
    ``rows[ends[i - 1]:ends[i]]`` (int32) as often as ``counts`` says there (int32); ``lengths`` (texts,) are in words.
    """

    words: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]

    def of(self, word: int) -> slice:
        """Where ``rows`` and ``counts`` tell of a word."""
        at = int(np.searchsorted(self.words, word))
        if at == len(self.words) or self.words[at] != word:
            return slice(0, 0)
        return slice(int(self.ends[at - 1]) if at else 0, int(self.ends[at]))


def words(text: str) -> list[str]:
    """The words of ``text`` without case, accents, the commonest English ones, and a plural's s."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    found = (word for word in _WORD.findall(plain) if word not in _COMMON)
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]


def postings(texts: Iterable[str]) -> Postings:
    """The words of ``texts``, which are read once and not kept."""
    numbers: dict[str, int] = {}
    found, rows, counts, lengths = array("i"), array("i"), array("i"), array("i")
    for row, text in enumerate(texts):
        said = Counter(words(text))
        lengths.append(said.total())
        for word, count in said.items():
            found.append(numbers.setdefault(word, len(numbers)))
            rows.append(row)
            counts.append(count)
    hashes = np.fromiter(map(hash64, numbers), dtype=np.int64, count=len(numbers))[np.array(found, dtype=np.int64)]
    order = np.argsort(hashes, kind="stable")
    known, sizes = np.unique(hashes, return_counts=True)
    return Postings(
        known,
        np.cumsum(sizes, dtype=np.int64),
        np.array(rows, dtype=np.int32)[order],
        np.array(counts, dtype=np.int32)[order],
        np.array(lengths, dtype=np.int32),
    )


class Lexical:
    """An index of the texts of several ``Postings``. The array beside each says which row of the index its text i is,
    -1 where it is none; all rows from 0 on are somebody's."""

    def __init__(self, parts: Sequence[tuple[Postings, npt.NDArray[np.int64]]]) -> None:
        self._parts = parts
        self._size = sum(int((rows >= 0).sum()) for _, rows in parts)
        lengths = np.zeros(self._size, dtype=np.float64)
        for part, rows in parts:
            lengths[rows[rows >= 0]] = part.lengths[rows >= 0]
        mean = max(float(lengths.mean()), 1.0) if self._size else 1.0
        self._damping = K1 * (1 - B + B * lengths / mean)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """float32 (rows,): each row's BM25 score, 0 where no word is shared."""
        scores = np.zeros(self._size, dtype=np.float32)
        for word in sorted(set(words(query))):
            rows, counts = self._of(hash64(word))
            idf = math.log(1 + (self._size - len(rows) + 0.5) / (len(rows) + 0.5))
            scores[rows] += (idf * counts * (K1 + 1) / (counts + self._damping[rows])).astype(np.float32)
        return scores

    def _of(self, word: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The rows that a word stands in, and how often."""
        found = []
        for part, rows in self._parts:
            where = part.of(word)
            own = rows[part.rows[where]]
            found.append((own[own >= 0], part.counts[where][own >= 0].astype(np.float64)))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
        return np.concatenate([rows for rows, _ in found]), np.concatenate([counts for _, counts in found])
