"""The trends of a snapshot from the strongest down, filtered and paged by its arrays: only those shown are decoded.

A page is continued after a place (score and key), not after a count, so that it goes on in the next snapshot too.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from indexes.hashing import hash64
from indexes.lexical import words
from indexes.segments import STAGES, key_of
from indexes.snapshot import Snapshot, Trends
from indexes.withheld import read_withheld
from trendrag.errors import CorruptSnapshot
from trendrag.types import SnapshotInfo, Stage, Trend, TrendFilters, Utc

log = logging.getLogger(__name__)

Place = tuple[float, int]
"""A trend's score and key: where it stands. Higher scores come first, of equal ones the lower key."""


@dataclass(frozen=True, slots=True)
class Page:
    """``next`` is the last one's place where more follow. Of ``passing`` trends, over all pages, these are some."""

    trends: tuple[Trend, ...]
    next: Place | None
    passing: int


class SourceSeen(BaseModel):
    """A source that the snapshot's evidence names: of how many trends, and when its newest piece was published."""

    model_config = ConfigDict(frozen=True)

    source: str
    trends: int
    newest: Utc | None


class Listing:
    """Made once for a snapshot (some 20 ms for 100,000 trends); threads may share it.

    ``withheld`` is how many topics the safety gate kept back at that refresh; None where that was not written down.
    """

    def __init__(self, snapshot: Snapshot, withheld: int | None) -> None:
        self.withheld = withheld
        self._snapshot = snapshot
        rows = snapshot.rows
        # (trends,): row numbers from the strongest down, and these rows' places.
        self._order = np.lexsort((rows["key"], -rows["score"]))
        self._scores = rows["score"][self._order]
        self._keys = rows["key"][self._order]
        self._by_key = np.argsort(rows["key"])
        self._sources: tuple[SourceSeen, ...] | None = None
        self._lock = Lock()

    @classmethod
    def of(cls, snapshot: Snapshot, directory: Path) -> "Listing":
        """``directory`` is where the snapshot was read from."""
        try:
            withheld = read_withheld(directory)
        except CorruptSnapshot as error:
            log.warning("how much was withheld is not known: %s", error)
            withheld = None
        return cls(snapshot, None if withheld is None else len(withheld))

    @property
    def info(self) -> SnapshotInfo:
        return self._snapshot.info

    def page(
        self,
        limit: int,
        after: Place | None = None,
        filters: TrendFilters | None = None,
        stage: Stage | None = None,
        text: str = "",
    ) -> Page:
        """At most ``limit`` trends that the filters let through, those after ``after``.

        ``text``: each of its words, but for the commonest, is in the trend's phrase, aliases or summary. Where it has
        no word, nothing passes.

        Raises:
            CorruptSnapshot: a trend's line is none; only a program's fault writes such a file.
        """
        passing = self._passing(filters or TrendFilters(), stage, text)[self._order]
        start = 0 if after is None else self._first_after(after)
        places = start + np.flatnonzero(passing[start:])
        shown = places[:limit]
        more = len(places) > limit
        return Page(
            tuple(_shown(self._snapshot.trends[row]) for row in self._order[shown].tolist()),
            (float(self._scores[shown[-1]]), int(self._keys[shown[-1]])) if more else None,
            int(np.count_nonzero(passing)),
        )

    def find(self, trend_id: str) -> Trend | None:
        """The trend of that id, None where the snapshot has none."""
        keys, key = self._snapshot.rows["key"], key_of(trend_id)
        at = int(np.searchsorted(keys, key, sorter=self._by_key))
        while at < len(keys) and keys[self._by_key[at]] == key:
            trend = self._snapshot.trends[int(self._by_key[at])]
            if trend.id == trend_id:
                return _shown(trend)
            at += 1
        return None

    def sources(self) -> tuple[SourceSeen, ...]:
        """Those with the most trends first. Reads what all trends say, once: about a second for 100,000.

        Raises:
            CorruptSnapshot: as ``page``.
        """
        with self._lock:
            if self._sources is None:
                self._sources = _sources(self._snapshot)
            return self._sources

    def _first_after(self, place: Place) -> int:
        score, key = place
        # Ascending in the negated scores; among the equal ones by key.
        low, high = np.searchsorted(-self._scores, -score, "left"), np.searchsorted(-self._scores, -score, "right")
        return int(low + np.searchsorted(self._keys[low:high], key, "right"))

    def _passing(self, filters: TrendFilters, stage: Stage | None, text: str) -> npt.NDArray[np.bool_]:
        """(trends,), by the rows of the snapshot."""
        passing = np.ones(len(self._snapshot.rows), dtype=np.bool_)
        if stage is not None:
            passing &= self._snapshot.rows["stage"] == STAGES.index(stage)
        parts = self._snapshot.parts
        if parts and filters != TrendFilters():
            passing &= np.concatenate([part.facts.passing(filters)[part.live] for part in parts])
        if parts and text:
            asked = words(text)
            passing &= bool(asked)
            for word in set(asked):
                passing &= np.concatenate([part.facts.saying(hash64(word))[part.live] for part in parts])
        return passing


def _sources(snapshot: Snapshot) -> tuple[SourceSeen, ...]:
    trends = snapshot.trends
    every = trends.said() if isinstance(trends, Trends) else (each.model_dump(mode="json") for each in trends)
    counts: Counter[str] = Counter()
    newest: dict[str, str] = {}
    for said in every:
        evidence = said["evidence"]
        counts.update({each["source"] for each in evidence})
        for each in evidence:
            if at := each["published_at"]:
                # All are written in one way, which sorts as time does but for the Z after whole and parts of seconds.
                newest[each["source"]] = max(newest.get(each["source"], ""), at.removesuffix("Z"))
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return tuple(
        SourceSeen(source=name, trends=count, newest=_time(newest[name]) if name in newest else None)
        for name, count in most
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _shown(trend: Trend) -> Trend:
    return trend.model_copy(update={"scenes": ()}) if trend.scenes else trend
