"""How strongly a topic bursts, and whether it rises, peaks or fades. Pure: the time and all numbers are arguments.

The base is Mastodon's trends: the chi-square burst (observed − expected)² / expected of a thing against its own past,
its peak decaying with a half-life. Added here: sources count in different units, so that volumes are first put on one
scale; and agreement between publishers that don't belong together multiplies the burst.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from trendrag.types import Stage

WINDOW = timedelta(hours=24)
"""What is observed at a time is what was seen in the window before it."""

BASELINE_DAYS = 7
"""The baseline is the mean over so many days before the window. Days on which a topic was not seen count as 0."""

FLOOR = 0.25
"""The least that is expected, as a strength. It stands in for the baseline of a first sighting, which has no past: with
an expectation of 0 every new thing would burst infinitely. A median item of one source, seen first now, then bursts
(1 − 0.25)² / 0.25 = 2.25."""

HALF_SCORE = 4.0
"""The product of burst and families that gives a score of one half."""

RISING_PER_HOUR = 0.05
FADED = 0.7
_HOUR = timedelta(hours=1)
STALE = timedelta(hours=3)
"""Not seen for so long, a topic's course is its decay rather than its last change."""


@dataclass(frozen=True, slots=True)
class Point:
    """How strong an item of a source was at one time. ``volume`` and ``usual`` are in the source's unit."""

    source: str
    family: str
    key: str
    form: str
    at: datetime
    volume: int | None = None
    usual: float | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """``score`` ∈ [0, 1]; ``velocity`` in score per hour."""

    score: float
    velocity: float
    stage: Stage


def units(points: Iterable[Point]) -> dict[str, float]:
    """Per source the volume that is ordinary in its lists: the median of its positive volumes."""
    volumes: dict[str, list[int]] = defaultdict(list)
    for point in points:
        if point.volume:
            volumes[point.source].append(point.volume)
    return {source: float(median(found)) for source, found in volumes.items()}


def strength(volume: float | None, unit: float | None) -> float:
    """A volume on the common scale: ½ + ½ log2(1 + volume / unit), 0 for none. The source's median item is 1, ten times
    that 2.2, and the least item of a list ½: to be listed is news.

    The logarithm is there because volumes within a list differ by orders of magnitude. What has no volume (a headline)
    counts as a median item.
    """
    if volume is None:
        return 1.0
    if volume <= 0:
        return 0.0
    return 0.5 + 0.5 * math.log2(1 + volume / unit) if unit else 1.0


def burst(observed: float, expected: float) -> float:
    """Chi-square of one cell, (observed − expected)² / expected, where more was seen than expected; else 0."""
    expected = max(expected, FLOOR)
    return (observed - expected) ** 2 / expected if observed > expected else 0.0


def scaled(value: float) -> float:
    """[0, ∞) to [0, 1), keeping the order: value / (value + HALF_SCORE)."""
    return value / (value + HALF_SCORE)


def decay(age: timedelta, half_life: timedelta) -> float:
    """0.5 ** (age / half-life); 1 for an age below 0, which only clocks that differ can give."""
    return math.pow(0.5, max(age, timedelta()) / half_life)


@dataclass(frozen=True, slots=True)
class Course:
    """What a topic's points come to: its rating at ``last`` or any later time follows from it, without the points.

    Everything decays with one half-life, so that the strongest moment stays the strongest: score(now) = max over times
    t of height(t) × decay(now − t) = potential × decay(now − last). Sorted by potential × 2 ** (last / half-life),
    courses therefore keep their order for as long as they get no new point.

    ``potential``, ``height`` (of the last time) and ``peak`` are in [0, 1], ``change`` is the height's per hour.
    ``potential`` depends on the half-life that the course was made with.
    """

    last: datetime
    potential: float
    height: float
    peak: float
    change: float

    def at(self, now: datetime, half_life: timedelta) -> Rating:
        """The rating at ``now``; a time before ``last``, which only clocks that differ can give, counts as ``last``."""
        left = decay(now - self.last, half_life)
        current = self.height * left
        velocity = self.change
        if now - self.last >= STALE:
            velocity = -current * math.log(2) / (half_life / _HOUR)
        stage: Stage = "peaking"
        if current < FADED * self.peak or self.peak == 0:
            stage = "fading"
        elif velocity >= RISING_PER_HOUR and self.height == self.peak:
            stage = "rising"
        return Rating(min(self.potential * left, 1.0), velocity, stage)


def course(
    points: Sequence[Point], unit: Mapping[str, float], half_life: timedelta, began: datetime | None = None
) -> Course:
    """One topic's course from all its points, in any order, at least one of them.

    A time's height is scaled(burst × families). ``began`` is when the sources say that the topic started, where they
    do.
    """
    heights = _heights(points, unit)
    last = max(heights)
    return Course(
        last=last,
        potential=max(height * decay(last - at, half_life) for at, height in heights.items()),
        height=heights[last],
        peak=max(heights.values()),
        change=_change_per_hour(heights, last, began),
    )


def rate(
    points: Sequence[Point],
    unit: Mapping[str, float],
    now: datetime,
    half_life: timedelta,
    began: datetime | None = None,
) -> Rating:
    """One topic's rating at ``now``: ``course`` and ``Course.at`` in one."""
    return course(points, unit, half_life, began).at(now, half_life)


def _change_per_hour(heights: Mapping[datetime, float], last: datetime, began: datetime | None) -> float:
    """Against the height an hour or more before. What has no before has risen from nothing since it began."""
    before = [at for at in heights if last - at >= _HOUR]
    if not before:
        return heights[last] / max((last - (began or last)) / _HOUR, 1.0)
    earlier = max(before)
    return (heights[last] - heights[earlier]) / ((last - earlier) / _HOUR)


class _Seen(NamedTuple):
    """A sighting on the common scale. ``usual`` is the part of ``value`` that the source itself calls usual."""

    at: datetime
    family: str
    value: float
    usual: float


def _seen(point: Point, unit: float | None) -> _Seen:
    value = strength(point.volume, unit)
    part = min(point.usual / point.volume, 1.0) if point.usual is not None and point.volume else 0.0
    return _Seen(point.at, point.family, value, value * part)


def _heights(points: Sequence[Point], unit: Mapping[str, float]) -> dict[datetime, float]:
    """Scaled burst × families, undecayed, at each time of the last three days at which the topic was seen."""
    seen = sorted(_seen(point, unit.get(point.source)) for point in points)
    times = [each.at for each in seen]
    heights: dict[datetime, float] = {}
    for at in set(times[bisect_right(times, times[-1] - timedelta(days=3)) :]):
        # One more edge than days: slices of (edge, next edge], the last of which is the window itself.
        edges = [bisect_right(times, at - WINDOW * back) for back in range(BASELINE_DAYS + 1, -1, -1)]
        *past, window = (_by_family(seen[start:end]) for start, end in pairwise(edges))
        own = sum(each.value for day in past for each in day) / BASELINE_DAYS
        usual = sum(each.usual for each in window)
        observed = sum(each.value for each in window)
        heights[at] = scaled(burst(observed, max(own, usual)) * len(window))
    return heights


def _by_family(seen: Iterable[_Seen]) -> list[_Seen]:
    """Each family's strongest sighting; families of strength 0 are left out."""
    best: dict[str, _Seen] = {}
    for each in seen:
        if each.value > 0 and (each.family not in best or each.value >= best[each.family].value):
            best[each.family] = each
    return list(best.values())
