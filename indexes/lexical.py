"""Okapi BM25 over the words of trends: finds what shares a rare word with the query, a name above all.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the idf of Lucene, which is
never negative.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

K1, B = 1.2, 0.75
_WORD = re.compile(r"[^\W_]+")
_COMMON_WORDS = """
    a about after all an and are as at be but by for from has have he her his i in into is it its just me my no
    not of off on one or our out over she so some that the their them then there they this to too two up was we
    were what when where who will with without you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def words(text: str) -> list[str]:
    """The words of ``text`` without case, accents, the commonest English ones, and a plural's s."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    found = (word for word in _WORD.findall(plain) if word not in _COMMON)
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]


class Lexical:
    """An inverted index of the texts that it was made of; row i is ``texts[i]``."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        lengths = [sum(each.values()) for each in counts]
        mean = max(sum(lengths) / len(lengths), 1.0) if lengths else 1.0
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row, (each, length) in enumerate(zip(counts, lengths, strict=True)):
            for word, count in each.items():
                postings[word].append((row, count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))))
        self._size = len(texts)
        self._postings: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}
        for word, found in postings.items():
            idf = math.log(1 + (self._size - len(found) + 0.5) / (len(found) + 0.5))
            rows, weights = zip(*found, strict=True)
            self._postings[word] = (np.array(rows), np.array(weights, dtype=np.float32) * np.float32(idf))

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """float32 (rows,): each row's BM25 score, 0 where no word is shared."""
        scores = np.zeros(self._size, dtype=np.float32)
        for word in set(words(query)):
            if word in self._postings:
                rows, weights = self._postings[word]
                scores[rows] += weights
        return scores
