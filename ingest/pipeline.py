"""merge → score → safety, as one pure function from what the store knows to the trends of a snapshot."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ingest.merge import Topic, merge
from ingest.observation import MAX_EVIDENCE, Observation
from ingest.safety import Vocabulary, judge
from ingest.score import Point, Rating, coverage, rate, units
from trendrag.types import Trend

MIN_SCORE = 0.02
"""Below it a topic is merely there, as every day, or long over."""


@dataclass(frozen=True, slots=True)
class Decision:
    """``trends`` best first. ``withheld`` counts topics that safety kept back, by reason; ``left_out`` observations
    that gave no topic, by reason."""

    trends: tuple[Trend, ...]
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def decide(
    observations: Iterable[Observation],
    points: Iterable[Point],
    vocabulary: Vocabulary,
    *,
    now: datetime,
    half_life: timedelta,
    max_age: timedelta,
) -> Decision:
    """The trends at ``now``.

    Args:
        observations: each item's last observation. Those that speak of a time before ``now - max_age`` are ignored.
        points: how strong each item was over time, for the baseline also from before that.
    """
    points = list(points)
    by_item: dict[tuple[str, str], list[Point]] = defaultdict(list)
    by_form: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_item[point.source, point.key].append(point)
        by_form[point.form].append(point)
    unit, read = units(points), coverage(points)
    merged = merge(each for each in observations if each.at >= now - max_age)
    trends: list[Trend] = []
    withheld: Counter[str] = Counter()
    for topic in merged.topics:
        verdict = judge(topic, vocabulary)
        if not verdict.allowed:
            withheld[verdict.reason or "unsafe"] += 1
            continue
        rating = rate(_points(topic, by_item, by_form), unit, now, half_life, topic.first_seen, read)
        if rating.score < MIN_SCORE:
            merged.left_out["no more talked of than usual"] += len(topic.members)
        else:
            trends.append(_trend(topic, rating))
    trends.sort(key=lambda trend: (-trend.score, trend.id))
    return Decision(tuple(trends), withheld, merged.left_out)


def _points(
    topic: Topic, by_item: dict[tuple[str, str], list[Point]], by_form: dict[str, list[Point]]
) -> Sequence[Point]:
    """All of a topic's past: that of its items now, and of other items that had its name (an earlier wave)."""
    found = {point: None for member in topic.members for point in by_item.get((member.source, member.key), ())}
    found |= dict.fromkeys(by_form.get(topic.form, ()))
    # An observation without a point is possible where the caller kept none; its own time then stands for it.
    own = (Point(m.source, m.family, m.key, topic.form, m.at, m.volume, m.usual) for m in topic.members)
    return list(found) or list(own)


def _trend(topic: Topic, rating: Rating) -> Trend:
    return Trend(
        id=topic.id,
        phrase=topic.phrase,
        aliases=topic.aliases,
        summary=topic.summary,
        language=topic.language,
        region=topic.region,
        categories=topic.categories,
        score=rating.score,
        velocity=rating.velocity,
        stage=rating.stage,
        first_seen=topic.first_seen,
        last_seen=topic.last_seen,
        evidence=topic.evidence[:MAX_EVIDENCE],
    )
