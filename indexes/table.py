"""A snapshot as arrays: what a query is compared with, made once when a snapshot is loaded.

Row i is the snapshot's ``trends[i]``. A query costs a few passes over arrays and no loop over trends.
"""

import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from indexes.concepts import Concepts, Links, link
from indexes.embedder import Embedder, Vectors
from indexes.gloss import gloss
from indexes.lexical import Lexical
from indexes.products import inner_products
from indexes.relevance import Scores, Signals, squeezed
from indexes.snapshot import Part, Snapshot
from trendrag.errors import CorruptSnapshot
from trendrag.types import Trend, TrendFilters

MOST_CLAUSES = 4
SCENE_DISCOUNT = 0.1
"""A scene is worded as queries are, so that its cosine is higher than a summary's for as good a fit. With so much taken
off, the relevance that was fitted without scenes abstains as often as before (chosen on evals/cases/retrieval/tune)."""
_CLAUSE = re.compile(r"[,.;:!?\n]|\b(?:but|while|and then)\b", re.IGNORECASE)


class Table:
    """``concepts`` bridges the word gap; None where their vectors have not been made."""

    def __init__(self, snapshot: Snapshot, concepts: Concepts | None) -> None:
        self.snapshot = snapshot
        self.concepts = concepts
        self._links: Links | None = None
        if concepts is not None:
            self._links = _links(snapshot, concepts)
            self._common = self._links.common(concepts.background())
        self._lexical = Lexical([(part.facts.postings, places) for part, places in _placed(snapshot)])
        self.scores: Scores = snapshot.rows["score"].astype(np.float32)
        self.last_seen: npt.NDArray[np.float64] = snapshot.rows["last_seen"] / 1e6
        # A trend's own vectors and its scenes' in their order, each with what is taken off, and where a row's begin.
        self._kinds = [
            (some, np.flatnonzero(np.diff(some.owners, prepend=-1)), discount)
            for some, discount in ((snapshot.compared, 0.0), (snapshot.scenes, SCENE_DISCOUNT))
            if len(some.owners)
        ]

    def vectors_of(self, rows: Sequence[int]) -> dict[int, Vectors]:
        """What each says of itself, scenes left out."""
        both = [some.of_each(rows) for some in (self.snapshot.aside, self.snapshot.compared)]
        return {row: np.concatenate([one, other]) for row, one, other in zip(rows, *both, strict=True)}

    def signals(self, query: str, embedder: Embedder, *, glossed: bool = True, split: bool = True) -> Signals:
        """What speaks for each trend. The query is embedded with its English gloss and its clauses, if it has any.

        ``glossed`` and ``split`` leave these out where they are False, for measuring what they bring.
        """
        english = gloss(query) if glossed else None
        whole = [query, *([english] if english else [])]
        parts = [part for text in whole for part in clauses(text)] if split and self.concepts else []
        vectors = embedder.embed([*whole, *parts])
        cosine = np.full(len(self.snapshot.trends), -1, dtype=np.float32)
        for some, firsts, discount in self._kinds:
            best = inner_products(vectors[: len(whole)], some.vectors).max(axis=0)
            rows = some.owners[firsts]
            cosine[rows] = np.maximum(cosine[rows], np.maximum.reduceat(best, firsts) - np.float32(discount))
        bm25 = np.maximum.reduce([self._lexical.scores(text) for text in whole])
        bridge = None
        if self.concepts is not None and self._links is not None:
            bridge = self._links.bridge(self.concepts.near_scenes(vectors)) - self._common
        return Signals(cosine, squeezed(bm25), bridge)

    def passing(self, filters: TrendFilters, oldest: datetime | None) -> npt.NDArray[np.bool_]:
        """(trends,): which ones the filters let through and were seen at ``oldest`` or later."""
        mask = self.fresh(oldest)
        if filters != TrendFilters() and self.snapshot.parts:
            mask &= np.concatenate([part.facts.passing(filters)[part.live] for part in self.snapshot.parts])
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


def _placed(snapshot: Snapshot) -> list[tuple[Part, npt.NDArray[np.int64]]]:
    """Each part with the row of each of its segment's rows, -1 for the dead."""
    found, start = [], 0
    for part in snapshot.parts:
        found.append((part, np.where(part.live, np.cumsum(part.live) - 1 + start, -1).astype(np.int64)))
        start += int(part.live.sum())
    return found


def _links(snapshot: Snapshot, concepts: Concepts) -> Links:
    """Those that are kept with the snapshot; where these concepts' are not, made now.

    Raises:
        CorruptSnapshot: those that are kept can't be these concepts'.
    """
    found, start = [], 0
    for part in snapshot.parts:
        count = int(part.live.sum())
        kept = part.links.get(concepts.digest)
        if kept is not None:
            if not kept.fit(concepts):
                name = part.segment.links(concepts.digest)
                raise CorruptSnapshot(f"Snapshot {snapshot.info.id}: {name} is not of the concepts that it names")
            found.append(kept.of(part.live))
        else:
            one, other = (each.of(start, start + count) for each in (snapshot.aside, snapshot.compared))
            owners = np.concatenate([one.owners, other.owners]) - start
            found.append(link(concepts, np.concatenate([one.vectors, other.vectors]), owners, count))
        start += count
    return Links.together(found)
