"""What scores need to know of each source as a whole: when it was read, and what volumes are ordinary in it. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ingest.score import day_of, hour_of, unit_of, volume_step


@dataclass(frozen=True, slots=True, eq=False)
class SourceFacts:
    """``hours``: since 1970, ascending, in which it said anything. ``volumes`` counts volumes by (day, step)."""

    hours: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    volumes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @classmethod
    def read(cls, hours: bytes, volumes: bytes) -> "SourceFacts":
        counted = np.frombuffer(volumes, dtype="<i8").reshape(-1, 3).tolist()
        return cls(np.frombuffer(hours, dtype="<i8"), Counter({(day, step): count for day, step, count in counted}))

    def as_bytes(self) -> tuple[bytes, bytes]:
        rows = sorted((*at, count) for at, count in self.volumes.items())
        return self.hours.astype("<i8").tobytes(), np.array(rows, dtype="<i8").tobytes()

    def unit(self) -> float | None:
        steps: Counter[int] = Counter()
        for (_, step), count in self.volumes.items():
            steps[step] += count
        return unit_of(steps) if steps else None

    def with_points(
        self, points: Iterable[tuple[datetime, int | None]], first_hour: int, first_day: int
    ) -> "SourceFacts":
        """With more points (time, volume), and without hours and days before the given ones."""
        hours, volumes = set(self.hours.tolist()), Counter(self.volumes)
        for at, volume in points:
            hours.add(hour_of(at))
            if volume:
                volumes[day_of(at), volume_step(volume)] += 1
        kept = Counter({at: count for at, count in volumes.items() if at[0] >= first_day})
        return SourceFacts(np.array(sorted(hour for hour in hours if hour >= first_hour), dtype=np.int64), kept)
