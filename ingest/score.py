"""How strongly a topic bursts, and whether it rises, peaks or fades. Pure: the time and all numbers are arguments.

The base is Mastodon's trends: the chi-square burst (observed − expected)² / expected of a thing against its own past,
its peak decaying with a half-life. Added here:

- Sources count in different units, so that volumes are first put on one scale (``strength``).
- Lists are cut off: a topic that is absent from one was weak, not at 0 (``ABSENT``). Where the list itself could not be
  read nothing is known, and that day has no part in the baseline (``Coverage``).
- What comes every week is expected on its day.
- The variance, which in a chi-square is what is expected, is learnt from the topic's own past: some come and go.
- Agreement between publishers that don't belong together multiplies the burst, and no family counts for more than
  ``CAP``: one alone can't outdo two that agree.

docs/scoring.md has the figures for each.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, get_args, overload

import numpy as np
from numpy.typing import NDArray

from trendrag.clock import EPOCH, microseconds
from trendrag.types import Stage

_DAY = 24
_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)

WINDOW_HOURS = 6
"""What is observed at a time is the strongest sighting of so many hours before it. Lists speak of the last day in any
case; a longer window finds bursts no better and their end later."""

BASELINE_DAYS = 14
"""The baseline is made of the strongest sightings of each of so many days (24 hours each, back from the time)."""

WEEKS = (7, 14)
"""Days ago that were the same day of the week: no less than then is expected."""

PEAK_HOURS = 72
"""A topic's moments are looked at for so long before its last sighting."""

HISTORY = (PEAK_HOURS + _DAY * (BASELINE_DAYS + 1)) * _HOUR
"""Points that are older than a topic's last one by more than this change nothing."""

ABSENT = 0.25
"""The strength of what is not listed on a day when the list was read: half of the least that is listed."""

PRIOR = 0.33
PRIOR_DAYS = 1.0
"""Before there is a past, as much is expected as after so many days of ``PRIOR``. It is more than ``ABSENT``: that a
thing was not there before is not known on the first day. More yet, and a first day's lone headlines would not burst."""

VARIANCE_DAYS = 3.0
"""The weight, in days, of the chi-square's own variance against the one that was measured."""

UNKNOWN = 0.7
"""The strength of an item without a volume (a headline): something between the least of a list and its median."""

CAP = 6.0
"""The limit of one family's burst. A single one thus stays below a score of 0.6, which two exceed that see a topic at a
usual volume for the first time in two weeks."""

UNIT_STEPS = 4
"""Units are rounded to so many steps an octave. A source's ordinary volume wavers with each item; rounded, it stays for
days, and with it all that was rated by it. A strength is off by at most 1/16 from this, for all items of a source."""

HALF_SCORE = 4.0
"""The product of burst and families that gives a score of one half."""

RISE_HOURS = 12
RISING = 1.5
"""A topic rises while its power is so many times that of ``RISE_HOURS`` before."""

FADED = 0.6
"""It fades once its power, decayed, is below this part of its peak's."""

STALE = timedelta(hours=3)
"""Not seen for so long, a topic's course is its decay rather than its last change."""

_HOURS = HISTORY // _HOUR
_DAYS_BEFORE = np.arange(_HOURS - PEAK_HOURS, _HOURS) - _DAY * np.arange(1, BASELINE_DAYS + 1)[:, None]
"""(days back, slots): where the day so far back of each of the last slots ends."""

_Line = NDArray[np.float64]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""What the codes of ``Ratings.stage`` stand for."""

Coverage = Mapping[str, NDArray[np.int64]]
"""Per source the hours since 1970, ascending, in which it is known to have been read."""


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


@dataclass(frozen=True, slots=True)
class Course:
    """What a topic's points come to: its rating at ``last`` or any later time follows from it, without the points.

    Everything decays with one half-life, so that the strongest moment stays the strongest: score(now) = max over times
    t of height(t) × decay(now − t) = potential × decay(now − last). Sorted by potential × 2 ** (last / half-life),
    courses therefore keep their order for as long as they get no new point.

    ``height`` (of the last time) and ``peak`` are in [0, 1), ``change`` is the height's per hour. ``potential`` depends
    on the half-life that the course was made with.
    """

    last: datetime
    potential: float
    height: float
    peak: float
    change: float

    def at(self, now: datetime, half_life: timedelta) -> Rating:
        """The rating at ``now``; a time before ``last``, which only clocks that differ can give, counts as ``last``."""
        left = decay(now - self.last, half_life)
        fresh = now - self.last < STALE
        velocity = self.change if fresh else -self.height * left * math.log(2) / (half_life / _HOUR)
        before = max(self.height - self.change * RISE_HOURS, 0.0)
        stage: Stage = "peaking"
        if power(self.height) * left < FADED * power(self.peak) or self.peak == 0:
            stage = "fading"
        elif fresh and power(self.height) > RISING * power(before):
            stage = "rising"
        return Rating(min(self.potential * left, 1.0), velocity, stage)


class Courses(NamedTuple):
    """Many courses, as arrays (n,) of their fields; ``last`` in microseconds since 1970, int64."""

    last: NDArray[np.int64]
    potential: _Line
    height: _Line
    peak: _Line
    change: _Line

    def at(self, now: datetime, half_life: timedelta) -> "Ratings":
        """What ``Course.at`` gives for each, but for the last bits of the decay: where one of its comparisons is
        decided by less than 1e-12, so that the stage may be the other one."""
        age = np.maximum(microseconds(now) - self.last, 0)
        left = np.power(0.5, age / (half_life / _MICROSECOND))
        fresh = age < STALE / _MICROSECOND
        fall = -self.height * left * math.log(2) / (half_life / _HOUR)
        before = np.maximum(self.height - self.change * RISE_HOURS, 0.0)
        power_now, power_then = power(self.height), power(before)
        fading = (power_now * left < FADED * power(self.peak)) | (self.peak == 0)
        rising = ~fading & fresh & (power_now > RISING * power_then)
        stage = np.where(fading, STAGES.index("fading"), STAGES.index("peaking")).astype(np.uint8)
        stage[rising] = STAGES.index("rising")
        return Ratings(np.minimum(self.potential * left, 1.0), np.where(fresh, self.change, fall), stage)


class Ratings(NamedTuple):
    """Many ratings, as arrays (n,); ``stage`` uint8, an index of ``STAGES``."""

    score: _Line
    velocity: _Line
    stage: NDArray[np.uint8]


def rate(
    points: Sequence[Point],
    unit: Mapping[str, float],
    now: datetime,
    half_life: timedelta,
    began: datetime | None = None,
    read: Coverage | None = None,
) -> Rating:
    """One topic's rating at ``now``: ``course`` and ``Course.at`` in one."""
    return course(points, unit, half_life, began, read).at(now, half_life)


def course(
    points: Sequence[Point],
    unit: Mapping[str, float],
    half_life: timedelta,
    began: datetime | None = None,
    read: Coverage | None = None,
) -> Course:
    """One topic's course from all its points, in any order, at least one of them.

    Time goes by whole hours. In each of the last ``PEAK_HOURS`` in which the topic was seen, height = scaled(power) of
    power = Σ burst × number of families, over the families that see more than they expect.

    Args:
        unit: as ``units`` gives it.
        began: when the sources say that the topic started, where they do.
        read: as ``coverage`` gives it, from the points of all topics. Without it every source counts as always read.
    """
    hours = [hour_of(point.at) for point in points]
    first = max(hours) + 1 - _HOURS
    times: dict[int, datetime] = {}
    sightings: dict[str, _Sightings] = defaultdict(lambda: _Sightings({}, {}, set()))
    for point, hour in zip(points, hours, strict=True):
        slot = hour - first
        if slot < 0:
            continue
        times[slot] = max(point.at, times.get(slot, point.at))
        sightings[point.family].add(slot, point, unit.get(point.source))
    powers = _powers(sightings.values(), read, first)
    # The last PEAK_HOURS of the slots are those that powers has.
    heights = {at: scaled(float(powers[slot - _HOURS])) for slot, at in times.items() if slot >= _HOURS - PEAK_HOURS}
    last, before = max(heights), scaled(float(powers[-1 - RISE_HOURS]))
    return Course(
        last=last,
        potential=max(height * decay(last - at, half_life) for at, height in heights.items()),
        height=heights[last],
        peak=max(heights.values()),
        change=_change_per_hour(heights[last], before, last, min(times.values()), began),
    )


def _change_per_hour(height: float, before: float, last: datetime, first: datetime, began: datetime | None) -> float:
    """Against the height ``RISE_HOURS`` ago. What was not seen by then has risen from nothing since it began; where it
    began before that without being seen it may be anywhere in its course, and the change is 0."""
    if last - first >= RISE_HOURS * _HOUR:
        return (height - before) / RISE_HOURS
    since = (last - min(began or last, first)) / _HOUR
    return height / max(since, 1.0) if since < RISE_HOURS else 0.0


def units(points: Iterable[Point], first_day: int = 0) -> dict[str, float]:
    """Per source the volume that is ordinary in its lists: the median of its positive volumes since ``first_day``, in
    whole days since 1970, rounded (``UNIT_STEPS``)."""
    volumes: dict[str, Counter[int]] = defaultdict(Counter)
    for point in points:
        if point.volume and day_of(point.at) >= first_day:
            volumes[point.source][volume_step(point.volume)] += 1
    return {source: unit_of(found) for source, found in volumes.items()}


def volume_step(volume: int) -> int:
    """The step nearest to a positive volume."""
    return round(UNIT_STEPS * math.log2(volume))


def unit_of(steps: Mapping[int, int]) -> float:
    """The unit of volumes of which ``steps`` says how many were at each step: the (lower) median, at least one."""
    ordered = sorted(steps)
    upto = np.cumsum([steps[step] for step in ordered])
    return float(2 ** (ordered[int(np.searchsorted(upto, upto[-1] / 2))] / UNIT_STEPS))


def units_since(now: datetime, max_age: timedelta) -> int:
    """The first whole day, since 1970, whose volumes are looked at for the units at ``now``."""
    return day_of(now - max_age - HISTORY) + 1


def coverage(points: Iterable[Point]) -> Coverage:
    """When each source was read, as far as points tell: in the hours of which it said anything about any topic."""
    hours: dict[str, set[int]] = defaultdict(set)
    for point in points:
        hours[point.source].add(hour_of(point.at))
    return {source: np.array(sorted(found), dtype=np.int64) for source, found in hours.items()}


def day_of(at: datetime) -> int:
    """Whole days since 1970."""
    return (at - EPOCH) // (_DAY * _HOUR)


def hour_of(at: datetime) -> int:
    """Whole hours since 1970."""
    return (at - EPOCH) // _HOUR


def strength(volume: float | None, unit: float | None) -> float:
    """A volume on the common scale: ½ + ½ log2(1 + volume / unit), 0 for none. The source's median item is 1, ten times
    that 2.2, and the least item of a list ½: to be listed is news.

    The logarithm is there because volumes within a list differ by orders of magnitude.
    """
    if volume is None:
        return UNKNOWN
    if volume <= 0:
        return 0.0
    return 0.5 + 0.5 * math.log2(1 + volume / unit) if unit else 1.0


def burst(observed: _Line, expected: _Line, variance: _Line) -> _Line:
    """x · CAP / (x + CAP) of x = (observed − expected)² / variance where more was seen than expected; else 0.

    With a variance equal to what is expected, x is the chi-square of one cell.
    """
    more: _Line = np.maximum(observed - expected, 0.0) ** 2 / variance
    return more * CAP / (more + CAP)


def scaled(value: float) -> float:
    """[0, ∞) to [0, 1), keeping the order: value / (value + HALF_SCORE)."""
    return value / (value + HALF_SCORE)


@overload
def power(height: float) -> float: ...
@overload
def power(height: _Line) -> _Line: ...
def power(height: float | _Line) -> float | _Line:
    """``scaled`` undone: heights near 1 say little of how far apart two topics, or two moments, are."""
    return HALF_SCORE * height / (1 - height)


def decay(age: timedelta, half_life: timedelta) -> float:
    """0.5 ** (age / half-life); 1 for an age below 0, which only clocks that differ can give."""
    return math.pow(0.5, max(age, timedelta()) / half_life)


class _Sightings(NamedTuple):
    """What one family said of a topic: by slot the strongest sighting, what its source calls usual for it, and the
    sources. A slot is an hour, the last of ``_HOURS`` that of the topic's last point."""

    values: dict[int, float]
    usual: dict[int, float]
    sources: set[str]

    def add(self, slot: int, point: Point, unit: float | None) -> None:
        value = strength(point.volume, unit)
        self.sources.add(point.source)
        if value >= self.values.get(slot, 0.0):
            usual = 0.0 if point.usual is None else strength(point.usual, unit)
            # Of two that are equally strong the one that is less unusual, so that their order does not matter.
            same = self.values.get(slot) == value
            self.usual[slot] = max(usual, self.usual[slot]) if same else usual
            self.values[slot] = value


def _powers(families: Iterable[_Sightings], read: Coverage | None, first: int) -> _Line:
    """Σ burst × families that burst, for each of the last ``PEAK_HOURS`` slots."""
    total, agreeing = np.zeros(PEAK_HOURS), np.zeros(PEAK_HOURS)
    for family in families:
        known = None if read is None else _slots_read(read, family.sources, first)
        found = _family_burst(family, known)
        total += found
        agreeing += found > 0
    return total * agreeing


def _slots_read(read: Coverage, sources: Iterable[str], first: int) -> _Line:
    line = np.zeros(_HOURS)
    for source in sources:
        if source in read:
            hours = read[source]
            line[hours[np.searchsorted(hours, first) : np.searchsorted(hours, first + _HOURS)] - first] = 1.0
    return line


def _family_burst(seen: _Sightings, read: _Line | None) -> _Line:
    values = _line(seen.values)
    past = _days_before(values)
    known = np.ones_like(past) if read is None else _days_before(read)
    past = np.maximum(past, ABSENT) * known
    days = known.sum(axis=0)
    mean = (PRIOR_DAYS * PRIOR + past.sum(axis=0)) / (PRIOR_DAYS + days)
    measured = (known * (past - mean) ** 2).sum(axis=0)
    variance = (VARIANCE_DAYS * mean + measured) / (VARIANCE_DAYS + days)
    same_day = past[[back - 1 for back in WEEKS]].max(axis=0)
    usual = _strongest(_line(seen.usual), WINDOW_HOURS)[-PEAK_HOURS:]
    expected = np.maximum(np.maximum(mean, same_day), usual)
    return burst(_strongest(values, WINDOW_HOURS)[-PEAK_HOURS:], expected, variance)


def _line(values: Mapping[int, float]) -> _Line:
    line = np.zeros(_HOURS)
    line[list(values)] = list(values.values())
    return line


def _days_before(line: _Line) -> _Line:
    """(days back, slots): the maximum of each of the ``BASELINE_DAYS`` days before each of the last slots."""
    before: _Line = _strongest(line, _DAY)[_DAYS_BEFORE]
    return before


def _strongest(line: _Line, hours: int) -> _Line:
    """The maximum over the ``hours`` up to and with each slot, by widening a window to at most its double."""
    width = 1
    while width < hours:
        step = min(width, hours - width)
        line = np.concatenate([line[:step], np.maximum(line[step:], line[:-step])])
        width += step
    return line
