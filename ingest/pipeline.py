"""merge → safety → score, as one function from what the store knows to the trends of a snapshot.

Pure but for the embedder, which the safety gate's classifier needs; it is asked once, for all texts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from indexes.embedder import Embedder
from indexes.withheld import Withheld
from ingest.merge import Topic, merge
from ingest.observation import MAX_EVIDENCE, Observation
from ingest.safety import Gate, Verdict, judge_all
from ingest.score import Point, Rating, coverage, rate, units, units_since
from trendrag.types import Trend

MIN_SCORE = 0.02
"""Below it a topic is merely there, as every day, or long over."""

NOT_TALKED_OF = "no more talked of than usual"


@dataclass(frozen=True, slots=True)
class Decision:
    """``trends`` best first. ``withheld`` counts topics that safety kept back, by reason, and ``kept_back`` names them,
    newest first; ``left_out`` counts observations that gave no topic, by reason."""

    trends: tuple[Trend, ...]
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    kept_back: tuple[Withheld, ...] = ()


def decide(
    observations: Iterable[Observation],
    points: Iterable[Point],
    gate: Gate,
    embedder: Embedder | None,
    *,
    now: datetime,
    half_life: timedelta,
    max_age: timedelta,
    min_score: float = MIN_SCORE,
) -> Decision:
    """The trends at ``now``.

    Args:
        observations: each item's last observation. Those that speak of a time before ``now - max_age`` are ignored.
        points: how strong each item was over time, for the baseline also from before that.
        min_score: a topic below it is no trend.
        embedder: the one that ``gate`` was made for; None does where it has no classifier.
    """
    points = list(points)
    by_item: dict[tuple[str, str], list[Point]] = defaultdict(list)
    by_form: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_item[point.source, point.key].append(point)
        by_form[point.form].append(point)
    unit, read = units(points, units_since(now, max_age)), coverage(points)
    known_since = {form: min(point.at for point in past) for form, past in by_form.items()}
    merged = merge((each for each in observations if each.at >= now - max_age), known_since)
    trends: list[Trend] = []
    withheld: Counter[str] = Counter()
    kept_back: list[Withheld] = []
    for topic, verdict in zip(merged.topics, judge_all(merged.topics, gate, embedder), strict=True):
        if not verdict.allowed:
            withheld[verdict.reason or "unsafe"] += 1
            kept_back.append(withheld_of(topic, verdict))
            continue
        rating = rate(points_of(topic, by_item, by_form), unit, now, half_life, topic.first_seen, read)
        if rating.score < min_score:
            merged.left_out[NOT_TALKED_OF] += len(topic.members)
        else:
            trends.append(trend_of(topic, rating))
    trends.sort(key=lambda trend: (-trend.score, trend.id))
    kept_back.sort(key=lambda each: (-each.last_seen.timestamp(), each.phrase))
    return Decision(tuple(trends), withheld, merged.left_out, tuple(kept_back))


def withheld_of(topic: Topic, verdict: Verdict) -> Withheld:
    return Withheld(
        phrase=topic.phrase,
        reason=verdict.reason or "unsafe",
        by=verdict.by or "",
        term=verdict.term,
        score=None if verdict.score is None else round(verdict.score, 2),
        headline=topic.summary or None,
        last_seen=topic.last_seen,
    )


def points_of(
    topic: Topic, by_item: Mapping[tuple[str, str], Sequence[Point]], by_form: Mapping[str, Sequence[Point]]
) -> Sequence[Point]:
    """All of a topic's past: that of its items now, and of other items that had one of its names (an earlier wave)."""
    found = {point: None for member in topic.members for point in by_item.get((member.source, member.key), ())}
    found |= dict.fromkeys(point for form in topic.forms for point in by_form.get(form, ()))
    # An observation without a point is possible where the caller kept none; its own time then stands for it.
    own = (Point(m.source, m.family, m.key, topic.form, m.at, m.volume, m.usual) for m in topic.members)
    return list(found) or list(own)


def trend_of(topic: Topic, rating: Rating) -> Trend:
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
