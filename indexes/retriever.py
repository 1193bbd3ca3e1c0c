"""Finds the trends that fit a query in the current snapshot, and follows the snapshot as refreshes replace it."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from indexes.concepts import Concepts, open_concepts
from indexes.embedder import Embedder
from indexes.listing import Listing
from indexes.manifest import current_id
from indexes.recent import Recent, RememberingEmbedder
from indexes.relevance import Scores, distinct, relevance, wanted
from indexes.snapshot import Snapshot, open_newest, open_snapshot
from indexes.table import Table
from trendrag.errors import NoSnapshot, SnapshotError
from trendrag.types import Retrieval, RetrievedTrend, SnapshotInfo, Trend, TrendFilters

logger = logging.getLogger(__name__)

MAX_ANSWERS = 1_024
"""Answers that are remembered; some 10 kB each."""
ANSWER_SECONDS = 10.0
"""How long an answer is given again: in so long freshness moves a score by less than 1e-5."""
LOOKED_AT = 6
"""Times k: how many of the best are looked through for those that say the same."""
POLL_SECONDS = 1.0
"""How often CURRENT is looked at; a look is one small read."""


class _Searched:
    """A snapshot that is searched, and what was answered from it: they go together."""

    def __init__(self, snapshot: Snapshot, concepts: Concepts | None) -> None:
        self.table = Table(snapshot, concepts)
        self.answers: Recent[tuple[str, TrendFilters], tuple[datetime, Retrieval]] = Recent(MAX_ANSWERS)


class TrendRetriever:
    """``trendrag.ports.Retriever`` over a directory of snapshots.

    A new snapshot is loaded beside the one in use and takes its place in one assignment: no request waits for it or
    sees half of it. A snapshot that does not verify leaves the one in use where it is.

    With ``pinned``, the directory of one snapshot, it answers from that one alone, always, as it would have at the
    moment when it was made: so an answer can be had again.
    """

    def __init__(
        self,
        snapshots_dir: Path,
        embedder: Embedder,
        *,
        k: int,
        threshold: float,
        max_age: timedelta,
        concepts: Concepts | None = None,
        concepts_dir: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pinned: Path | None = None,
    ) -> None:
        self._snapshots_dir = snapshots_dir
        self._pinned = pinned
        self._embedder = RememberingEmbedder(embedder)
        self._k = k
        self._threshold = threshold
        self._max_age = max_age
        self._now = now
        self._snapshot: Snapshot | None = None
        self._concepts = concepts  # where none are given, those in ``concepts_dir``, once there are any
        self._concepts_dir = concepts_dir
        self._searched: _Searched | None = None  # the snapshot in use
        self._other: _Searched | None = None  # the last one of a caller's own
        self._listing: Listing | None = None  # of the snapshot in use, or the one before
        self._missing = "not loaded"
        self._seen: str | None = None  # what CURRENT named when we last loaded
        self._next_poll = 0.0
        self._loading: asyncio.Task[None] | None = None
        # One thread a search: on short lists faiss's own threads cost more than they bring.
        faiss.omp_set_num_threads(1)

    @property
    def snapshot(self) -> SnapshotInfo | None:
        """The snapshot in use, None before the first was found."""
        return self._snapshot.info if self._snapshot else None

    def load(self) -> None:
        """Loads what is current now. Keeps the snapshot in use where nothing better can be loaded."""
        self._seen = current_id(self._snapshots_dir)
        try:
            snapshot = (
                open_snapshot(self._pinned, self._embedder)
                if self._pinned
                else open_newest(self._snapshots_dir, self._embedder)
            )
            if self._concepts is None and self._concepts_dir is not None:
                self._concepts = open_concepts(self._embedder, self._concepts_dir)
            self._searched = _Searched(snapshot, self._concepts)
            self._snapshot = snapshot
        except SnapshotError as error:
            self._missing = str(error)
            if self._snapshot:
                logger.warning("keeping snapshot %s: %s", self._snapshot.info.id, error)
        else:
            if self._snapshot.info.warning:
                logger.warning("%s", self._snapshot.info.warning)

    async def follow(self) -> None:
        """Looks whether CURRENT has changed, at most once a second, and loads what it names.

        Waits for the load only where there is no snapshot to answer from meanwhile.
        """
        if time.monotonic() >= self._next_poll and self._loading is None:
            self._next_poll = time.monotonic() + POLL_SECONDS
            if self._snapshot is None or (not self._pinned and current_id(self._snapshots_dir) != self._seen):
                self._loading = asyncio.create_task(self._load())
        if self._snapshot is None and self._loading is not None:
            # Shielded: the first request's leaving must not end a load that others wait for.
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        try:
            await asyncio.to_thread(self.load)
        finally:
            self._loading = None

    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        """The trends that fit ``query`` with a probability of at least the threshold, best ``score`` first: at most
        ``filters.k``, or the retriever's own k where that is None.

        score = probability × a little for the trend's own score and freshness (``relevance.wanted``). Of trends that
        say the same only the first is in the answer.
        """
        await self.follow()
        searched = self._searched
        if searched is None:
            return Retrieval(reason=self._missing)
        # Of one that is held here no other can take the place while the search waits for a thread.
        return await asyncio.to_thread(self._answer, searched, query, filters)

    async def listing(self) -> Listing:
        """All trends in use, for looking through.

        Raises:
            NoSnapshot: there are none; the message says why.
        """
        await self.follow()
        snapshot, listing = self._snapshot, self._listing
        if snapshot is None:
            raise NoSnapshot(self._missing)
        if listing is None or listing.info is not snapshot.info:
            folder = self._snapshots_dir / snapshot.info.id
            listing = self._listing = await asyncio.to_thread(Listing.of, snapshot, folder)
        return listing

    def search(self, snapshot: Snapshot, query: str, filters: TrendFilters) -> Retrieval:
        """As ``retrieve``, in a snapshot of the caller's."""
        if self._searched and self._searched.table.snapshot is snapshot:
            return self._answer(self._searched, query, filters)
        other = self._other
        if other is None or other.table.snapshot is not snapshot:
            other = self._other = _Searched(snapshot, self._concepts)
        return self._answer(other, query, filters)

    def _answer(self, searched: _Searched, query: str, filters: TrendFilters) -> Retrieval:
        """The same question soon after has the same answer."""
        table, info = searched.table, searched.table.snapshot.info
        if not query.strip():
            return Retrieval(snapshot=info, reason="There is nothing to search with: no description and no note.")
        now = info.created_at if self._pinned else self._now()
        # A sample is old by its nature and says so everywhere; live trends must be of now to be offered as such.
        oldest = now - self._max_age if info.origin == "live" else None
        asked = searched.answers.get((query, filters))
        if asked is not None:
            at, answer = asked
            fresh = oldest is None or all(hit.trend.last_seen >= oldest for hit in answer.trends)
            if fresh and timedelta() <= now - at <= timedelta(seconds=ANSWER_SECONDS):
                return answer
        answer = self._search(table, query, filters, oldest)
        searched.answers.put((query, filters), (now, answer))
        return answer

    def _search(self, table: Table, query: str, filters: TrendFilters, oldest: datetime | None) -> Retrieval:
        snapshot, info = table.snapshot, table.snapshot.info
        passing = table.passing(filters, oldest)
        if not passing.any():
            return Retrieval(snapshot=info, reason=self._why_nothing(table, oldest))
        signals = table.signals(query, self._embedder)
        chances = relevance(signals)
        left = np.ones_like(chances)
        if oldest is not None:
            left = ((table.last_seen - oldest.timestamp()) / self._max_age.total_seconds()).astype(np.float32)
        scores = chances * wanted(table.scores, left)
        fitting = np.flatnonzero(passing & (chances >= self._threshold))
        if not len(fitting):
            return Retrieval(snapshot=info, reason="No trend fits this photo.")
        k = filters.k or self._k
        near = _best(fitting, scores, snapshot.trends, LOOKED_AT * k)
        rows = distinct(near, snapshot.trends, table.vectors_of(near), k)
        found = tuple(
            RetrievedTrend(
                trend=_shown(snapshot.trends[row]),
                similarity=float(signals.cosine[row]),
                score=round(float(scores[row]), 6),
            )
            for row in rows
        )
        return Retrieval(trends=found, snapshot=info)

    def _why_nothing(self, table: Table, oldest: datetime | None) -> str:
        if not table.snapshot.trends:
            return "The snapshot holds no trends."
        if not table.fresh(oldest).any():
            hours = self._max_age.total_seconds() / 3600
            return f"All trends are older than {hours:g} hours. Collect new ones: trendrag refresh"
        return "No trend passes the filters."

    async def aclose(self) -> None:
        """Waits for a load under way, so that no thread outlives the retriever."""
        if self._loading is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._loading


def _shown(trend: Trend) -> Trend:
    return trend.model_copy(update={"scenes": ()}) if trend.scenes else trend


def _best(rows: npt.NDArray[np.intp], scores: Scores, trends: Sequence[Trend], most: int) -> list[int]:
    """The ``most`` of ``rows`` with the highest scores, best first.

    Ids settle ties, so that equal snapshots give equal answers whatever the order of their trends.
    """
    if len(rows) > most:
        least = np.partition(scores[rows], -most)[-most]
        rows = rows[scores[rows] >= least]
    best = [(-score, row) for score, row in zip(scores[rows].tolist(), rows.tolist(), strict=True)]
    ties = Counter(score for score, _ in best)
    best.sort(key=lambda each: (each[0], trends[each[1]].id if ties[each[0]] > 1 else ""))
    return [row for _, row in best[:most]]
