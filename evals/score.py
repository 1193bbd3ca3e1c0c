"""How soon the score finds a burst, and how often it cries wolf: over simulated worlds, against two simple baselines.

A topic is *found* in the first hour in which it reaches the threshold while it bursts. A *false alarm* is a topic and a
day on which it reaches it without a burst. Every method has its own scale, so that methods are compared at thresholds
that give them the same number of false alarms a day. Nothing is used before it would have been known.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.labelled import Record
from evals.simulation import DAY, TOPICS, WARM_UP, World, moment, simulate
from ingest.score import HISTORY, Course, Point, course, coverage, strength, units

HALF_LIFE = timedelta(hours=12)
BUDGET = 4.0
"""False alarms a day at which methods are compared. A world has five to six true bursts a day."""

CURVE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SOON = 6
GRACE = 36
"""A burst is over for the false alarms so many hours after it has fallen to half: daily sources tell of it late."""

AFTER = 2
"""Days after an outage or after a source was added in which false alarms are counted apart."""

_HOUR = timedelta(hours=1)
_Grid = NDArray[np.float64]
_RISING, _FADING = 0, 1


class CurvePoint(Record):
    """``soon``, ``day``: the share of bursts found within 6 and within 24 hours of their onset."""

    false_alarms: float
    soon: float
    day: float


class MethodResult(Record):
    """At ``BUDGET`` false alarms a day. Delays are hours from the onset over all bursts; None where more bursts than
    that quantile allows were not found at all.

    Attributes:
        false_by_kind: false alarms a day, by the kind of topic.
        false_after_outages: false alarms a day in the two days after an outage.
        false_at_half: false alarms a day at the threshold that finds half of the bursts within 24 hours.
        rising, fading: of the hours before a burst's peak, or after its fall to half, in which it reaches half of the
            threshold, the share of that stage; None for a method that tells none.
    """

    method: str
    threshold: float
    soon: float
    day: float
    median_delay: float | None
    p90_delay: float | None
    false_by_kind: dict[str, float]
    false_after_outages: float
    false_at_half: float
    rising: float | None
    fading: float | None
    curve: tuple[CurvePoint, ...]


class ScoreReport(Record):
    seeds: tuple[int, ...]
    bursts: int
    false_alarms_per_day: float
    methods: tuple[MethodResult, ...]


class Scores(NamedTuple):
    """(hours, topics): the score, and whether the method says that the topic rises or fades (None: it says nothing)."""

    score: _Grid
    stages: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None


Method = Callable[[World], Scores]
Unit = dict[str, float]


def trend_score(world: World) -> Scores:
    """TrendRAG's own."""
    score = np.zeros((world.hours, len(world.kinds)))
    stages = np.zeros(score.shape, dtype=bool), np.zeros(score.shape, dtype=bool)
    # Of the whole world at once: what is read later lies outside the past that a course looks at.
    read_at = coverage(point for read in world.reads for _, point in read)
    past: dict[int, list[Point]] = defaultdict(list)
    courses: dict[int, Course] = {}
    for hour, unit, read in _hours(world):
        now = moment(hour)
        for topic, point in read:
            past[topic].append(point)
        for topic in {topic for topic, _ in read}:
            past[topic] = [point for point in past[topic] if point.at >= now - HISTORY - timedelta(days=3)]
            courses[topic] = course(past[topic], unit, HALF_LIFE, read=read_at)
        for topic, found in courses.items():
            rating = found.at(now, HALF_LIFE)
            score[hour, topic] = rating.score
            stages[_RISING][hour, topic] = rating.stage == "rising"
            stages[_FADING][hour, topic] = rating.stage == "fading"
    return Scores(score, stages)


def raw_volume(world: World) -> Scores:
    """A baseline: the sum over sources of what each last said within a day, on the common scale."""
    return Scores(_summed(world, decays=False))


def decay_only(world: World) -> Scores:
    """A baseline: the sum over sources of the strongest that each said, decayed with the half-life."""
    return Scores(_summed(world, decays=True))


METHODS: dict[str, Method] = {"TrendRAG": trend_score, "decay only": decay_only, "raw volume": raw_volume}


def _hours(world: World) -> Iterable[tuple[int, Unit, Sequence[tuple[int, Point]]]]:
    """Each hour with the units as known then, and what is read in it."""
    recent: list[Point] = []
    unit: Unit = {}
    for hour, read in enumerate(world.reads):
        recent += [point for _, point in read]
        if hour % DAY == 0 or hour < DAY:
            recent = [point for point in recent if point.at >= moment(hour) - HISTORY]
            unit = units(recent)
        yield hour, unit, read


def _summed(world: World, *, decays: bool) -> _Grid:
    names = sorted({point.source for read in world.reads for _, point in read})
    column = {name: number for number, name in enumerate(names)}
    worth = np.zeros((len(world.kinds), len(names)))
    said = np.full(worth.shape, -np.inf)
    score = np.zeros((world.hours, len(world.kinds)))
    keep = 0.5 ** (_HOUR / HALF_LIFE)
    for hour, unit, read in _hours(world):
        worth *= keep if decays else 1.0
        for topic, point in read:
            cell = topic, column[point.source]
            value = strength(point.volume, unit.get(point.source))
            age = (moment(hour) - point.at) / _HOUR
            worth[cell] = max(worth[cell], value * keep**age) if decays else value
            said[cell] = hour - age
        score[hour] = (worth if decays else np.where(said > hour - DAY, worth, 0.0)).sum(axis=1)
    return score


class _Found(NamedTuple):
    """One method in one world. ``quiet`` (days, topics): a day's highest score outside bursts, from the end of the
    warm-up. ``bursts``: of each the highest score so far, by hours from its onset to its end."""

    quiet: _Grid
    bursts: list[_Grid]


def _found(world: World, score: _Grid) -> _Found:
    quiet = score.copy()
    bursts: list[_Grid] = []
    for burst in world.bursts:
        end = min(burst.over + GRACE, world.hours)
        quiet[burst.begin : end, burst.topic] = 0.0
        highest = np.maximum.accumulate(score[burst.begin : end, burst.topic])
        bursts.append(highest[burst.onset - burst.begin :])
    days = quiet.reshape(world.hours // DAY, DAY, -1).max(axis=1)
    return _Found(days[WARM_UP // DAY :], bursts)


def _threshold(found: Sequence[_Found], false_alarms: float) -> float:
    """The lowest with no more than ``false_alarms`` a day."""
    quiet = np.sort(np.concatenate([each.quiet.ravel() for each in found]))[::-1]
    days = sum(len(each.quiet) for each in found)
    return float(np.nextafter(quiet[int(false_alarms * days)], np.inf))


def _delays(found: Sequence[_Found], threshold: float) -> _Grid:
    """Of each burst the hours from its onset until it was found; infinite where it was not."""
    runs = [run for each in found for run in each.bursts]
    return np.array([float(np.searchsorted(run, threshold)) if run[-1] >= threshold else np.inf for run in runs])


def _false_at(found: Sequence[_Found], share: float) -> float:
    """False alarms a day at the highest threshold that finds ``share`` of the bursts within a day."""
    within = np.sort([run[: DAY + 1][-1] for each in found for run in each.bursts])[::-1]
    threshold = within[int(np.ceil(share * len(within))) - 1]
    return float(np.mean(np.concatenate([(each.quiet >= threshold).sum(axis=1) for each in found])))


def _stage_shares(worlds: Sequence[World], scores: Sequence[Scores], threshold: float) -> tuple[float | None, ...]:
    right, count = [0, 0], [0, 0]
    for world, each in zip(worlds, scores, strict=True):
        if each.stages is None:
            return None, None
        for burst in world.bursts:
            phases = (burst.onset, burst.peak), (burst.over, min(burst.over + DAY, world.hours))
            for stage, (start, end) in enumerate(phases):
                shown = each.score[start:end, burst.topic] >= threshold / 2
                count[stage] += int(shown.sum())
                right[stage] += int((shown & each.stages[stage][start:end, burst.topic]).sum())
    return tuple(part / whole if whole else None for part, whole in zip(right, count, strict=True))


def _result(name: str, worlds: Sequence[World], scores: Sequence[Scores]) -> MethodResult:
    found = [_found(world, each.score) for world, each in zip(worlds, scores, strict=True)]
    threshold = _threshold(found, BUDGET)
    delays = _delays(found, threshold)
    alarms = [each.quiet >= threshold for each in found]
    days = sum(len(each) for each in alarms)
    kinds = np.array(worlds[0].kinds)
    ends = [outage.end for outage in worlds[0].outages] + [worlds[0].newcomer]
    after = sorted({end // DAY + day - WARM_UP // DAY for end in ends for day in range(AFTER)})
    rising, fading = _stage_shares(worlds, scores, threshold)
    return MethodResult(
        method=name,
        threshold=threshold,
        soon=float(np.mean(delays <= SOON)),
        day=float(np.mean(delays <= DAY)),
        median_delay=_quantile(delays, 0.5),
        p90_delay=_quantile(delays, 0.9),
        false_by_kind={kind: sum(int(each[:, kinds == kind].sum()) for each in alarms) / days for kind in TOPICS},
        false_after_outages=float(np.mean([each[after].sum(axis=1) for each in alarms])),
        false_at_half=_false_at(found, 0.5),
        rising=rising,
        fading=fading,
        curve=tuple(_curve_point(found, budget) for budget in CURVE),
    )


def _quantile(delays: _Grid, share: float) -> float | None:
    delay = float(np.sort(delays)[int(share * (len(delays) - 1))])
    return delay if np.isfinite(delay) else None


def _curve_point(found: Sequence[_Found], false_alarms: float) -> CurvePoint:
    delays = _delays(found, _threshold(found, false_alarms))
    soon, day = float(np.mean(delays <= SOON)), float(np.mean(delays <= DAY))
    return CurvePoint(false_alarms=false_alarms, soon=soon, day=day)


def run(
    seeds: Sequence[int], methods: Mapping[str, Method] = METHODS, on_progress: Callable[[str], None] | None = None
) -> ScoreReport:
    """Every method on the worlds of all ``seeds``, their bursts and days taken together."""
    worlds = [simulate(seed) for seed in seeds]
    scores: dict[str, list[Scores]] = defaultdict(list)
    for seed, world in zip(seeds, worlds, strict=True):
        for name, method in methods.items():
            scores[name].append(method(world))
        if on_progress:
            on_progress(f"world {seed}: {len(world.bursts)} bursts, {world.hours // DAY} days")
    return ScoreReport(
        seeds=tuple(seeds),
        bursts=sum(len(world.bursts) for world in worlds),
        false_alarms_per_day=BUDGET,
        methods=tuple(_result(name, worlds, scores[name]) for name in methods),
    )
