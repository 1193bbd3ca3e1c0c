"""Finds the trends that fit a query in the current snapshot, and follows the snapshot as refreshes replace it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss

from indexes.embedder import Embedder
from indexes.snapshot import Snapshot, current_id, open_newest
from trendrag.errors import SnapshotError
from trendrag.types import Retrieval, RetrievedTrend, SnapshotInfo, Trend, TrendFilters

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often CURRENT is looked at; a look is one small read."""


class TrendRetriever:
    """``trendrag.ports.Retriever`` over a directory of snapshots.

    A new snapshot is loaded beside the one in use and takes its place in one assignment: no request waits for it or
    sees half of it. A snapshot that does not verify leaves the one in use where it is.
    """

    def __init__(
        self,
        snapshots_dir: Path,
        embedder: Embedder,
        *,
        k: int,
        threshold: float,
        max_age: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._snapshots_dir = snapshots_dir
        self._embedder = embedder
        self._k = k
        self._threshold = threshold
        self._max_age = max_age
        self._now = now
        self._snapshot: Snapshot | None = None
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
            self._snapshot = open_newest(self._snapshots_dir, self._embedder)
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
            if self._snapshot is None or current_id(self._snapshots_dir) != self._seen:
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
        """The at most k trends whose cosine with ``query`` reaches the threshold, best ``score`` first.

        score = cosine × (0.8 + 0.2 × trend score): what fits comes first, of equal fits the hotter trend.
        """
        await self.follow()
        snapshot = self._snapshot
        if snapshot is None:
            return Retrieval(reason=self._missing)
        return await asyncio.to_thread(self.search, snapshot, query, filters)

    def search(self, snapshot: Snapshot, query: str, filters: TrendFilters) -> Retrieval:
        info = snapshot.info
        if not query.strip():
            return Retrieval(snapshot=info, reason="There is nothing to search with: no description and no note.")
        # A sample is old by its nature and says so everywhere; live trends must be of now to be offered as such.
        oldest = self._now() - self._max_age if info.origin == "live" else None
        passing = {
            row for row, trend in enumerate(snapshot.trends) if passes(trend, filters) and _is_fresh(trend, oldest)
        }
        if not passing:
            return Retrieval(snapshot=info, reason=self._why_nothing(snapshot, oldest))
        vector = self._embedder.embed([query])[0]
        # More than k, since the ranking differs from the cosine's by up to a fifth; all of them where filters take away
        # trends, for the best that pass may lie anywhere in the list.
        k = 8 * self._k if len(passing) == len(snapshot.trends) else snapshot.index.ntotal
        found = [
            RetrievedTrend(trend=trend, similarity=cosine, score=cosine * (0.8 + 0.2 * trend.score))
            for row, cosine in snapshot.search(vector, k)
            if row in passing and cosine >= self._threshold
            for trend in (snapshot.trends[row],)
        ]
        found.sort(key=lambda hit: (-hit.score, hit.trend.id))
        reason = None if found else "No trend fits this photo."
        return Retrieval(trends=tuple(found[: self._k]), snapshot=info, reason=reason)

    def _why_nothing(self, snapshot: Snapshot, oldest: datetime | None) -> str:
        if not snapshot.trends:
            return "The snapshot holds no trends."
        if not any(_is_fresh(trend, oldest) for trend in snapshot.trends):
            hours = self._max_age.total_seconds() / 3600
            return f"All trends are older than {hours:g} hours. Collect new ones: trendrag refresh"
        return "No trend passes the filters."

    async def aclose(self) -> None:
        """Waits for a load under way, so that no thread outlives the retriever."""
        if self._loading is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._loading


def _is_fresh(trend: Trend, oldest: datetime | None) -> bool:
    return oldest is None or trend.last_seen >= oldest


def passes(trend: Trend, filters: TrendFilters) -> bool:
    """Whether the filters let the trend through; what is of no region or of unknown language passes them all."""
    return (
        (filters.region is None or trend.region in (None, filters.region))
        and (filters.language is None or trend.language in ("und", filters.language))
        and (not filters.categories or bool(set(filters.categories) & set(trend.categories)))
    )
