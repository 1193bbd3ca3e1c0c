"""A synthetic world for the score: topics with known bursts, and what sources of the usual kinds would have listed.

Pure: a seed gives the same world on every machine with the same numpy. Underneath, each topic has an activity per hour,
a product of its everyday size, the time of day, the day of the week and a slow drift, to which bursts add. Sources
show it through their own glass: counts are negative binomial (heavier than Poisson), in the source's unit, of which
only the top of a list is seen, some of it late, and nothing at all while the source is out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.score import Point

Array = NDArray[np.float64]
Kind = Literal["evergreen", "weekly", "noise", "hyped", "event"]
Shape = Literal["sharp", "slow", "second wave"]

START = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday."""

DAY, WEEK = 24, 168
WEEKS = 5
WARM_UP = 2 * WEEK
"""Bursts begin after it, so that they have a past to stand out from."""

TOPICS: dict[Kind, int] = {"evergreen": 130, "weekly": 35, "noise": 120, "hyped": 10, "event": 60}
"""``event`` topics are new: nobody speaks of them before their burst. ``hyped`` ones are pushed by one family only."""

KNOWN_BURSTS = 40
"""Bursts of evergreen and noise topics, besides those of the events."""

BUCKETS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000)
"""Google Trends tells searches as "1000+"."""


@dataclass(frozen=True, slots=True)
class Burst:
    """In hours since ``START``. ``begin``: the first with any of it. ``onset``: the first with twice the topic's usual
    activity. ``peak``: that of the highest activity, leaving the time of day aside. ``over``: the first below half of
    that. ``known``: the topic was spoken of before."""

    topic: int
    shape: Shape
    begin: int
    onset: int
    peak: int
    over: int
    known: bool


@dataclass(frozen=True, slots=True)
class Outage:
    """Hours [start, end) in which the sources of ``families`` could not be read; None for all."""

    start: int
    end: int
    families: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class World:
    """``kinds`` by topic. ``reads[hour]`` are the sightings that become known then, as (topic, point)."""

    kinds: tuple[Kind, ...]
    bursts: tuple[Burst, ...]
    outages: tuple[Outage, ...]
    newcomer: int
    reads: tuple[tuple[tuple[int, Point], ...], ...]

    @property
    def hours(self) -> int:
        return len(self.reads)


OUTAGES = (
    Outage(WARM_UP + 60, WARM_UP + 72, ("mastodon",)),
    Outage(WARM_UP + 150, WARM_UP + 186, ("google",)),
    Outage(WARM_UP + 290, WARM_UP + 326, None),
    Outage(WARM_UP + 390, WARM_UP + 402, ("wikimedia", "hackernews")),
)
NEWCOMER = WARM_UP + 240
"""The hour at which a source is added to the list: a second encyclopaedia, of topics that no other source speaks of."""


def moment(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def simulate(seed: int, weeks: int = WEEKS) -> World:
    rng = np.random.default_rng(seed)
    hours = weeks * WEEK
    kinds = tuple(kind for kind, count in TOPICS.items() for _ in range(count))
    base, bursts, added = _activity(rng, kinds, hours)
    activity = base + added
    reach = _reach(rng, kinds)
    sources: list[tuple[str, str, _Reader]] = [
        (f"google-{place}", "google", _google(_counts(rng, activity * reach["google"], 120.0, 4.0)))
        for place in ("us", "gb")
    ]
    hyped = activity + _hype(rng, kinds, hours)
    for host, size in (("one", 3.0), ("two", 1.2)):
        counts = _counts(rng, hyped * reach["mastodon"], size, 3.0)
        sources.append((f"mastodon-{host}", "mastodon", _mastodon(counts)))
    sources.append(("hacker-news", "hackernews", _hackernews(_counts(rng, activity * reach["hackernews"], 2.0, 2.0))))
    for name, family in (("wikipedia-a", "wikimedia"), ("wikipedia-b", "wikimedia")):
        counts = _counts(rng, activity * reach[name], 150.0, 6.0)
        sources.append((name, family, _wikimedia(counts)))
    for number in range(PUBLISHERS):
        pushed = activity + (_hype(rng, kinds, hours) if number == 0 else 0.0)
        sources.append((f"news-{number}", f"publisher-{number}", _headlines(rng, pushed * reach[f"news-{number}"])))
    reads: list[list[tuple[int, Point]]] = [[] for _ in range(hours)]
    for name, family, reader in sources:
        begins = NEWCOMER if name == "wikipedia-b" else 0
        shown: set[tuple[int, str]] = set()
        for hour in range(begins, hours):
            if any(o.start <= hour < o.end and (o.families is None or family in o.families) for o in OUTAGES):
                continue
            for topic, at, volume, usual, item in reader(hour):
                # A dated item stays in its list, and says something new only once.
                if item is not None and (topic, item) in shown:
                    continue
                if item is not None:
                    shown.add((topic, item))
                key = f"{topic}/{item}" if item is not None and volume is None else f"{topic}"
                reads[hour].append((topic, Point(name, family, key, f"topic{topic}", at, volume, usual)))
    return World(kinds, bursts, OUTAGES, NEWCOMER, tuple(tuple(each) for each in reads))


_Item = tuple[int, datetime, int | None, float | None, str | None]
"""(topic, the time it speaks of, volume, usual, what makes the item new; None for a list of now)."""

_Reader = Callable[[int], Sequence[_Item]]


def _activity(rng: np.random.Generator, kinds: Sequence[Kind], hours: int) -> tuple[Array, tuple[Burst, ...], Array]:
    """(everyday activity, the bursts, what they add), the arrays (topics, hours)."""
    count = len(kinds)
    hour = np.arange(hours)
    size = rng.lognormal(0.0, 0.9, count)
    size[[kind == "noise" for kind in kinds]] *= 0.4
    size[[kind == "hyped" for kind in kinds]] *= 0.3
    size[[kind == "event" for kind in kinds]] = 0.0
    phase = rng.uniform(-2, 2, count)[:, None]
    daily = 1 + 0.5 * np.sin(2 * np.pi * (hour - 9 + phase) / DAY)
    weekend = np.where((hour // DAY) % 7 >= 5, rng.lognormal(0.0, 0.35, count)[:, None], 1.0)
    drift = np.zeros((count, hours))
    swing = np.where([kind == "noise" for kind in kinds], 0.5, 0.25)
    for now in range(1, hours):  # an autoregression with a memory of two days
        drift[:, now] = drift[:, now - 1] * (1 - 1 / 48) + rng.normal(0, 1, count) * swing * np.sqrt(2 / 48)
    base = size[:, None] * daily * weekend * np.exp(drift)
    for topic, kind in enumerate(kinds):
        if kind == "weekly":
            on_day = (hour // DAY) % 7 == rng.integers(7)
            base[topic] *= np.where(on_day, rng.uniform(6, 20), 0.15)
    added = np.zeros((count, hours))
    bursts: list[Burst] = []
    events = [topic for topic, kind in enumerate(kinds) if kind == "event"]
    ordinary = [topic for topic, kind in enumerate(kinds) if kind in ("evergreen", "noise")]
    known = rng.choice(ordinary, KNOWN_BURSTS, replace=False)
    for topic in [*events, *known.tolist()]:
        usual = float(np.median(base[topic]))
        begin = int(rng.integers(WARM_UP, hours - 2 * DAY))
        shapes: list[tuple[Shape, int]] = [("slow" if rng.random() < 0.3 else "sharp", begin)]
        if shapes[0][0] == "sharp" and rng.random() < 0.25 and begin + 7 * DAY < hours:
            shapes.append(("second wave", begin + int(rng.integers(4 * DAY, 6 * DAY))))
        height = (2 + rng.lognormal(1.6, 0.7)) * max(usual, 1.0)
        for shape, start in shapes:
            course = _course(shape, start, hours)
            added[topic] += height * course * daily[topic]
            peak = int(np.argmax(course))
            above = np.flatnonzero(height * course[: peak + 1] > max(usual, 0.05 * height))
            over = peak + int(np.argmax(np.append(course[peak:], 0.0) < 0.5))
            bursts.append(Burst(topic, shape, start, int(above[0]), peak, over, topic not in events))
    return base, tuple(sorted(bursts, key=lambda burst: (burst.onset, burst.topic))), added


def _course(shape: Shape, start: int, hours: int) -> Array:
    """A burst of height 1 by the hour: a rise in two hours, or in 36, then an exponential end."""
    age = np.arange(hours) - start
    rise, half_life = (36, 24) if shape == "slow" else (2, 12)
    course = np.where(age < rise, (age + 1) / (rise + 1), 0.5 ** ((age - rise) / half_life))
    return np.where(age < 0, 0.0, course)


def _hype(rng: np.random.Generator, kinds: Sequence[Kind], hours: int) -> Array:
    """What one family alone makes of the hyped topics: a day or so of thirty times as much."""
    pushed = np.zeros((len(kinds), hours))
    for topic, kind in enumerate(kinds):
        if kind == "hyped":
            start = int(rng.integers(WARM_UP, hours - DAY))
            pushed[topic, start : start + int(rng.integers(12, 30))] = 30.0
    return pushed


PUBLISHERS = 8


def _reach(rng: np.random.Generator, kinds: Sequence[Kind]) -> dict[str, Array]:
    """How much of a topic's activity is in which source's public; 0 where it is none of its subjects."""
    count = len(kinds)
    share = {"google": 0.6, "mastodon": 0.6, "hackernews": 0.25, "wikipedia-a": 0.5, "wikipedia-b": 0.3}
    share |= {f"news-{number}": 0.35 for number in range(PUBLISHERS)}
    reach = {name: (rng.random(count) < part) * rng.lognormal(0, 0.5, count) for name, part in share.items()}
    # What the newcomer lists and nobody else does: everyday things, all of them new to us when it comes.
    own = np.array([kind == "evergreen" and rng.random() < 0.3 for kind in kinds])
    for name, weights in reach.items():
        weights[own] = 1.0 if name == "wikipedia-b" else 0.0
    return {name: weights[:, None] for name, weights in reach.items()}


def _counts(rng: np.random.Generator, activity: Array, size: float, shape: float) -> Array:
    """Negative binomial counts around size × activity: variance = mean + mean² / shape."""
    mean = size * activity
    return rng.negative_binomial(shape, shape / (shape + mean)).astype(np.float64)


def _over(counts: Array, hours: int) -> Array:
    """Sums over the last ``hours`` up to and with each hour."""
    total = np.cumsum(counts, axis=1)
    total[:, hours:] -= total[:, :-hours].copy()
    return total


def _top(worth: Array, count: int) -> list[int]:
    return [int(topic) for topic in np.argsort(-worth, kind="stable")[:count] if worth[topic] > 0]


def _google(counts: Array) -> _Reader:
    """What is searched at least three times as much as usual; the twelve most searched of it, in coarse buckets."""
    lately, day = _over(counts, 6), _over(counts, DAY)
    usual = np.maximum(_over(counts, 2 * WEEK) / (2 * WEEK / 6), 20.0)

    def read(hour: int) -> list[_Item]:
        rows = _top(np.where(lately[:, hour] > 3 * usual[:, hour], day[:, hour], 0.0), 12)
        bucket = [max((b for b in BUCKETS if b <= day[topic, hour]), default=BUCKETS[0]) for topic in rows]
        return [(topic, moment(hour), volume, None, None) for topic, volume in zip(rows, bucket, strict=True)]

    return read


def _mastodon(counts: Array) -> _Reader:
    """Today's accounts against yesterday's, as the servers do it, the peak halved every four hours; the top twenty."""
    topics, hours = counts.shape
    days = counts.reshape(topics, hours // DAY, DAY)
    whole, so_far = days.sum(axis=2), days.cumsum(axis=2).reshape(topics, hours)
    worth = np.zeros((topics, hours))
    for hour in range(hours):
        day = hour // DAY
        expected = np.maximum(whole[:, day - 1] if day else 0.0, 1.0)
        now = np.where(so_far[:, hour] > expected, (so_far[:, hour] - expected) ** 2 / expected, 0.0)
        worth[:, hour] = np.maximum(now, worth[:, hour - 1] * 0.5**0.25 if hour else 0.0)

    def read(hour: int) -> list[_Item]:
        day = hour // DAY
        found: list[_Item] = []
        for topic in _top(worth[:, hour], 20):
            volume = max(so_far[topic, hour], whole[topic, day - 1] if day else 0.0)
            earlier = whole[topic, max(day - 6, 0) : max(day - 1, 0)]
            usual = float(earlier.sum() / 5) if day else None
            found.append((topic, moment(hour), int(volume), usual, None))
        return found

    return read


def _hackernews(counts: Array) -> _Reader:
    lately, day = _over(counts, 12), _over(counts, DAY)

    def read(hour: int) -> list[_Item]:
        return [(topic, moment(hour), int(day[topic, hour]), None, None) for topic in _top(lately[:, hour], 20)]

    return read


def _wikimedia(counts: Array) -> _Reader:
    """Yesterday's forty most read, told from six o'clock on, or the day's before until then."""
    topics, hours = counts.shape
    views = counts.reshape(topics, hours // DAY, DAY).sum(axis=2)

    def read(hour: int) -> list[_Item]:
        day = (hour - 6) // DAY - 1
        if day < 0:
            return []
        end = moment((day + 1) * DAY)
        return [(topic, end, int(views[topic, day]), None, str(day)) for topic in _top(views[:, day], 40)]

    return read


def _headlines(rng: np.random.Generator, activity: Array) -> _Reader:
    """About two headlines an hour by day, on topics by chance in proportion to the root of their activity; the feed
    keeps the last thirty, so that a short outage loses few."""
    items: list[tuple[int, int, str]] = []
    first_unread = [0]
    weights = np.sqrt(activity)
    for hour in range(activity.shape[1]):
        first_unread.append(len(items))
        pace = 2.0 if 6 <= hour % DAY < 22 else 0.4
        chance = weights[:, hour] / weights[:, hour].sum()
        items.extend(
            (int(topic), hour, str(len(items))) for topic in rng.choice(len(chance), rng.poisson(pace), p=chance)
        )

    def read(hour: int) -> list[_Item]:
        end = first_unread[hour + 1]
        return [(topic, moment(at), None, None, item) for topic, at, item in items[max(end - 30, 0) : end]]

    return read
