"""From groups to what the book keeps of a topic: merged, judged, rated. Pure but for the judge."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from indexes.embedder import Embedder
from indexes.segments import content_of, key_of
from ingest.book.assign import Place, Role
from ingest.book.unions import Brief
from ingest.merge import Group, Topic, titles
from ingest.observation import Observation
from ingest.offers import offer
from ingest.pipeline import points_of, trend_of, withheld_of
from ingest.safety import Gate, Verdict, judge_all
from ingest.same import brief
from ingest.score import Coverage, Point, Rating, course
from trendrag.clock import microseconds


class Judge(Protocol):
    """May topics be offered to the writer of a caption? A topic's verdict is the same for as long as ``version`` is."""

    @property
    def version(self) -> str: ...

    def verdicts(self, topics: Sequence[Topic]) -> Sequence[Verdict]: ...


class GateJudge:
    """The safety gate, with the embedder that its classifier belongs to."""

    def __init__(self, gate: Gate, embedder: Embedder | None) -> None:
        self._gate = gate
        self._embedder = embedder
        self.version = gate.version

    def verdicts(self, topics: Sequence[Topic]) -> Sequence[Verdict]:
        return judge_all(topics, self._gate, self._embedder)


def group_of(members: Iterable[tuple[Observation, Place]]) -> Group | None:
    """None where nothing but headlines that may hold its name are in it."""
    group = Group()
    for seen, (role, name) in members:
        if role is Role.MAY_HOLD:
            group.context.append(seen.title)
            continue
        group.members.append(seen)
        if role is Role.NAMES:
            offered = offer(seen)
            group.names[offered.name] += 1
            group.qualifiers |= {offered.qualifier} if offered.qualifier else set()
        elif name is not None:
            group.names[name] += 1
    return group if group.members else None


def brief_of(group: Group) -> Brief:
    """What the group is united with others by."""
    return Brief(*brief(group.names, titles(group.members)), max(each.at for each in group.members).year)


def topic_row(
    topic: Topic,
    verdict: Verdict,
    by_item: Mapping[tuple[str, str], list[Point]],
    by_form: Mapping[str, list[Point]],
    unit: Mapping[str, float],
    read: Coverage,
    half_life: timedelta,
    until: datetime | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The topic's rows of ``book_topic`` and ``book_trend``."""
    key = key_of(topic.id)
    row: dict[str, Any] = {
        "id": topic.id,
        "key": key,
        "content": 0,
        "members": len(topic.members),
        "last_seen": microseconds(topic.last_seen),
        "last": 0,
        "potential": 0.0,
        "height": 0.0,
        "peak": 0.0,
        "change": 0.0,
        "withheld": None,
        "sources": "",
        "until": None if until is None else microseconds(until),
    }
    if not verdict.allowed:
        told = withheld_of(topic, verdict)
        return row | {"withheld": told.reason}, {"key": key, "trend": told.model_dump_json()}
    points = points_of(topic, by_item, by_form)
    found = course(points, unit, half_life, topic.first_seen, read)
    trend = trend_of(topic, Rating(0.0, 0.0, "fading"))
    row |= {
        "content": content_of(trend),
        "last": microseconds(found.last),
        "potential": found.potential,
        "height": found.height,
        "peak": found.peak,
        "change": found.change,
        "sources": f",{','.join(sorted({point.source for point in points}))},",
    }
    return row, {"key": key, "trend": trend.model_dump_json()}
