"""A snapshot as arrays: what a query is compared with, made once when a snapshot is loaded.

Row i is the snapshot's ``trends[i]``. A query costs a few products of matrices and no loop over trends.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from indexes.concepts import Concepts, Links, link
from indexes.embedder import Embedder, Vectors
from indexes.gloss import gloss
from indexes.lexical import Lexical
from indexes.relevance import Scores, Signals, squeezed
from indexes.snapshot import Snapshot
from trendrag.types import Trend, TrendFilters

MOST_CLAUSES = 4
SCENE_DISCOUNT = 0.1
"""A scene is worded as queries are, so that its cosine is higher than a summary's for as good a fit. With so much taken
off, the relevance that was fitted without scenes abstains as often as before (chosen on evals/cases/retrieval/tune)."""
_CLAUSE = re.compile(r"[,.;:!?\n]|\b(?:but|while|and then)\b", re.IGNORECASE)


class Table:
    """``concepts`` bridges the word gap; None where their vectors have not been made."""

    def __init__(self, snapshot: Snapshot, concepts: Concepts | None) -> None:
        trends = snapshot.trends
        self.snapshot = snapshot
        self.concepts = concepts
        self._vectors, owners = _vectors(snapshot.index)
        order = np.argsort(owners, kind="stable")
        self._vectors, self._owners = self._vectors[order], owners[order]
        self._bounds = np.searchsorted(self._owners, np.arange(len(trends) + 1))
        # A row's scenes come last. They bring photos to it, but say nothing of what it is.
        self._own_ends = self._bounds[1:] - np.array([len(trend.scenes) for trend in trends], dtype=np.int64)
        # The phrase alone (a row's first vector of its own several) says less than with its summary, and misleads more.
        several = self._own_ends - self._bounds[:-1] > 1
        compared = np.ones(len(self._owners), dtype=np.bool_)
        compared[self._bounds[:-1][several]] = False
        self._compared, self._compared_owners = self._vectors[compared], self._owners[compared]
        own = np.arange(len(self._owners)) < self._own_ends[self._owners]
        self._discounts = np.where(own, 0, SCENE_DISCOUNT).astype(np.float32)[compared]
        self._links: Links | None = None
        if concepts is not None:
            self._links = link(concepts, self._vectors[own], self._owners[own], len(trends))
        self._lexical = Lexical([" ".join((trend.phrase, *trend.aliases, trend.summary)) for trend in trends])
        self.scores: Scores = np.array([trend.score for trend in trends], dtype=np.float32)
        self.last_seen = np.array([trend.last_seen.timestamp() for trend in trends], dtype=np.float64)

    def vectors_of(self, rows: Sequence[int]) -> dict[int, Vectors]:
        """What each says of itself, scenes left out."""
        return {row: self._vectors[self._bounds[row] : self._own_ends[row]] for row in rows}

    def signals(self, query: str, embedder: Embedder, *, glossed: bool = True, split: bool = True) -> Signals:
        """What speaks for each trend. The query is embedded with its English gloss and its clauses, if it has any.

        ``glossed`` and ``split`` leave these out where they are False, for measuring what they bring.
        """
        english = gloss(query) if glossed else None
        whole = [query, *([english] if english else [])]
        parts = [part for text in whole for part in clauses(text)] if split and self.concepts else []
        vectors = embedder.embed([*whole, *parts])
        cosine = np.full(len(self.snapshot.trends), -1, dtype=np.float32)
        if len(self._compared):
            best = (self._compared @ vectors[: len(whole)].T).max(axis=1) - self._discounts
            np.maximum.at(cosine, self._compared_owners, best)
        bm25 = np.maximum.reduce([self._lexical.scores(text) for text in whole])
        bridge = None
        if self.concepts is not None and self._links is not None:
            bridge = self._links.bridge(self.concepts.near_scenes(vectors))
        return Signals(cosine, squeezed(bm25), bridge)

    def passing(self, filters: TrendFilters, oldest: datetime | None) -> npt.NDArray[np.bool_]:
        """(trends,): which ones the filters let through and were seen at ``oldest`` or later."""
        mask = self.fresh(oldest)
        if filters != TrendFilters():
            mask &= np.fromiter((passes(trend, filters) for trend in self.snapshot.trends), np.bool_, len(mask))
        return mask

    def fresh(self, oldest: datetime | None) -> npt.NDArray[np.bool_]:
        return self.last_seen >= (-np.inf if oldest is None else oldest.timestamp())


def clauses(text: str) -> list[str]:
    """The clauses of at least three words, at most ``MOST_CLAUSES``; none where the text is a single one.

    "post-lunch me, belly up on the rug" shows two things, and a trend fits either.
    """
    found = [part.strip() for part in _CLAUSE.split(text)]
    return [part for part in found if len(part.split()) >= 3][:MOST_CLAUSES] if len(found) > 1 else []


def passes(trend: Trend, filters: TrendFilters) -> bool:
    """Whether the filters let the trend through; what is of no region or of unknown language passes them all."""
    return (
        (filters.region is None or trend.region in (None, filters.region))
        and (filters.language is None or trend.language in ("und", filters.language))
        and (not filters.categories or bool(set(filters.categories) & set(trend.categories)))
    )


def _vectors(index: Any) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """The vectors of an ``IndexIDMap2`` over a flat index, float32 (n, dim), and their rows, (n,).

    faiss's own types don't tell what such an index holds.
    """
    if index.ntotal == 0:
        return np.zeros((0, index.d), dtype=np.float32), np.zeros(0, dtype=np.int64)
    flat: Any = faiss.downcast_index(index.index)
    vectors = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    return np.array(vectors, dtype=np.float32), faiss.vector_to_array(index.id_map).astype(np.int64)
