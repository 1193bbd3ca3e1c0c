"""Brings the book up to a time, and reads from it what trends then.

A topic is made anew where any of this is so, and stays as it is otherwise:

- an item of its group came, was seen again, or grew too old, or the group's items changed in consequence (``assign``);
- an item of its own or of its name was seen, young enough or not, which is a point of its past;
- a source that its points are of turned out to have been read in an hour that the topic's past goes back over, or has
  another unit than before.

Nothing else of a topic changes with time but its rating, which follows from its course.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, delete, func, insert, or_, select

from indexes.segments import ROW, Keys, Rows
from ingest.book.assign import Changes, reassign
from ingest.book.shelf import Nothing, Shelf, reasons, withheld
from ingest.book.sources import SourceFacts
from ingest.book.tables import batches, put, read, remove
from ingest.book.topics import Judge, brief_of, group_of, topic_row
from ingest.book.unions import Brief, Cluster, Unions
from ingest.database import TRENDS
from ingest.merge import Group, by_age, topic_of
from ingest.pipeline import MIN_SCORE, NOT_TALKED_OF
from ingest.schema import (
    BookFormRow,
    BookItemRow,
    BookKeyRow,
    BookMemberRow,
    BookNameRow,
    BookPairRow,
    BookRow,
    BookSourceRow,
    BookSpanRow,
    BookStartRow,
    BookTopicRow,
    BookTrendRow,
    ObservationRow,
)
from ingest.score import HISTORY, Courses, hour_of, units_since
from trendrag.clock import microseconds
from trendrag.types import Trend

TABLES = (
    BookRow,
    BookItemRow,
    BookStartRow,
    BookSpanRow,
    BookMemberRow,
    BookNameRow,
    BookKeyRow,
    BookPairRow,
    BookTopicRow,
    BookFormRow,
    BookTrendRow,
    BookSourceRow,
)


@dataclass(frozen=True, slots=True)
class Times:
    """What the book is kept by, besides what was seen."""

    half_life: timedelta
    max_age: timedelta

    @property
    def needed(self) -> timedelta:
        """How far back points are looked at."""
        return self.max_age + HISTORY


@dataclass(frozen=True, slots=True)
class Standing:
    """The trends at a time as rows of a snapshot, and what is not among them, counted by reason."""

    rows: Rows
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def advance(engine: Engine, judge: Judge, times: Times, now: datetime, *, rebuild: bool = False) -> int:
    """Takes in what was seen since the last time, and says how many topics were made anew.

    The book is made from nothing where it was made by other rules, or for a later time: clocks are set back now and
    then, and what has left the book for its age does not come back by itself.
    """
    made_by = _made_by(judge, times)
    with TRENDS.mapped_errors(), engine.begin() as connection:
        book = connection.execute(select(BookRow.made_by, BookRow.upto, BookRow.as_of)).one_or_none()
        if rebuild or book is None or book.made_by != made_by or book.as_of > now:
            for table in TABLES:
                connection.execute(delete(table))
            return _Keeper(connection, judge, times, now, made_by, fresh=True).take_in(0)
        return _Keeper(connection, judge, times, now, made_by, fresh=False).take_in(book.upto)


def _made_by(judge: Judge, times: Times) -> str:
    """What the book depends on besides observations. The rules are the program's own files: a number that has to be
    raised with every change of a word list would be forgotten once."""
    digest = hashlib.sha256(f"{times.half_life} {times.max_age} {judge.version}".encode())
    folders = (files("ingest"), files("ingest") / "book")
    rules = [each for folder in folders for each in folder.iterdir() if each.name.endswith((".py", ".toml"))]
    for each in (*sorted(rules, key=lambda file: file.name), files("trendrag") / "text.py"):
        digest.update(each.read_bytes())
    return digest.hexdigest()


class _Keeper:
    """One ``advance``."""

    def __init__(
        self, connection: Connection, judge: Judge, times: Times, now: datetime, made_by: str, *, fresh: bool
    ) -> None:
        self._connection = connection
        self._shelf = Shelf(connection)
        self._judge = judge
        self._times = times
        self._now = now
        self._made_by = made_by
        self._fresh = fresh
        self._since = now - times.max_age

    def take_in(self, upto: int) -> int:
        last = self._connection.scalar(select(func.max(ObservationRow.id))) or 0
        new = [] if self._fresh else list(self._new(upto))
        changes = self._changes(new)
        facts, turned = self._facts(self._new(upto) if self._fresh else new)
        clusters = Unions(self._connection).change(self._briefs(changes.touched))
        united = {form for cluster in clusters for form in cluster}
        replaced = self._shelf.topics(changes.touched | united)
        others = (self._shelf.topics(self._seen_again(new, changes)) | self._rated_anew(turned)) - replaced
        clusters += self._shelf.clusters(others)
        self._remove(replaced | others)
        self._make(clusters, facts)
        self._connection.execute(delete(BookRow))
        row = {"id": 1, "made_by": self._made_by, "upto": last, "as_of": self._now}
        self._connection.execute(insert(BookRow).values(row))
        return len(clusters)

    def _new(self, upto: int) -> Iterator[Any]:
        row = ObservationRow
        wanted = select(row.id, row.source, row.key, row.form, row.at, row.volume).where(row.id > upto)
        wanted = wanted.where(row.at >= self._now - self._times.needed).execution_options(yield_per=10_000)
        yield from self._connection.execute(wanted)

    def _changes(self, new: Sequence[Any]) -> Changes:
        if self._fresh:
            before, after = {}, self._shelf.all_latest(self._since)
        else:
            expired = select(BookItemRow.source, BookItemRow.key).where(BookItemRow.at < self._since)
            keys = {(source, key) for source, key in self._connection.execute(expired)}
            keys |= {(each.source, each.key) for each in new}
            before, after = self._shelf.items(keys), self._shelf.latest(keys, self._since)
        gone = {item for key, item in before.items() if after.get(key) != item}
        come = self._shelf.observations({item for key, item in after.items() if before.get(key) != item})
        changes = reassign(Nothing() if self._fresh else self._shelf, gone, come)
        self._shelf.put(changes, {item: (seen.source, seen.key, seen.at) for item, seen in come.items()})
        return changes

    def _seen_again(self, new: Sequence[Any], changes: Changes) -> set[str]:
        """Forms whose points are more than before, whoever is in their group now."""
        items = self._shelf.items({(each.source, each.key) for each in new}).values()
        known = self._shelf.stored([item for item in items if item not in changes.come])
        return {each.form for each in new} | {form for stored in known.values() for form in stored.places}

    def _facts(self, new: Iterable[Any]) -> tuple[dict[str, SourceFacts], "_Turned"]:
        """What is known of each source now, and what of that is new."""
        row = BookSourceRow
        before = {
            source: SourceFacts.read(hours, volumes)
            for source, hours, volumes in self._connection.execute(select(row.source, row.hours, row.volumes))
        }
        points: dict[str, list[tuple[datetime, int | None]]] = defaultdict(list)
        for each in new:
            points[each.source].append((each.at, each.volume))
        first = hour_of(self._now - self._times.needed), units_since(self._now, self._times.max_age)
        nothing = SourceFacts()
        after = {
            source: before.get(source, nothing).with_points(points.get(source, ()), *first)
            for source in before.keys() | points.keys()
        }
        turned = _Turned()
        for source, facts in after.items():
            was = before.get(source, nothing)
            if facts.unit() != was.unit():
                turned.units.add(source)
            if more := set(facts.hours.tolist()) - set(was.hours.tolist()):
                turned.hours[source] = min(more)
        self._connection.execute(delete(row))
        kept = [(source, *facts.as_bytes()) for source, facts in after.items() if len(facts.hours)]
        if kept:
            self._connection.execute(insert(row), [{"source": s, "hours": h, "volumes": v} for s, h, v in kept])
        return after, turned

    def _rated_anew(self, turned: "_Turned") -> set[str]:
        if self._fresh:
            return set()
        row = BookTopicRow
        found = set(self._connection.scalars(select(row.id).where(row.until < microseconds(self._now))))
        for part in batches(turned.units, 50):
            found.update(self._connection.scalars(select(row.id).where(or_(*(_of(source) for source in part)))))
        for source, hour in turned.hours.items():
            since = hour * 3_600_000_000
            found.update(self._connection.scalars(select(row.id).where(row.last >= since, _of(source))))
        return found

    def _groups(self, forms: Collection[str]) -> dict[str, Group]:
        members = self._shelf.members(forms)
        seen = self._shelf.observations({item for group in members.values() for item in group})
        found = {
            form: group_of([(seen[item], place) for item, place in sorted(group.items())])
            for form, group in members.items()
        }
        return {form: group for form, group in found.items() if group is not None}

    def _briefs(self, forms: Collection[str]) -> dict[str, Brief | None]:
        found: dict[str, Brief | None] = dict.fromkeys(forms)
        for part in batches(forms):
            found |= {form: brief_of(group) for form, group in self._groups(part).items()}
        return found

    def _remove(self, topics: Collection[str]) -> None:
        keys = [key for (key,) in read(self._connection, (BookTopicRow.key,), BookTopicRow.id, topics)]
        remove(self._connection, BookFormRow.topic, topics)
        remove(self._connection, BookTopicRow.id, topics)
        remove(self._connection, BookTrendRow.key, keys)

    def _make(self, clusters: Collection[Cluster], facts: Mapping[str, SourceFacts]) -> None:
        unit = {source: unit for source, each in facts.items() if (unit := each.unit()) is not None}
        read_at = {source: each.hours for source, each in facts.items()}
        needed = self._now - self._times.needed
        for part in batches(sorted(clusters)):
            groups = self._groups({form for cluster in part for form in cluster})
            # The form that gives its id is the first one of several, as far as is looked back.
            known_since = self._shelf.known_since({form for each in part if len(each) > 1 for form in each}, needed)
            found = [topic_of(by_age(cluster, groups, known_since), groups) for cluster in part]
            verdicts = self._judge.verdicts(found)
            passed = [topic for topic, verdict in zip(found, verdicts, strict=True) if verdict.allowed]
            by_item, by_form = self._shelf.points(
                {(member.source, member.key) for topic in passed for member in topic.members},
                {form for topic in passed for form in topic.forms},
                needed,
            )
            rows = []
            for topic, verdict in zip(found, verdicts, strict=True):
                oldest = min((known_since[form] for form in topic.forms if form in known_since), default=None)
                until = None if oldest is None else oldest + self._times.needed
                rows.append(topic_row(topic, verdict, by_item, by_form, unit, read_at, self._times.half_life, until))
            put(self._connection, BookTopicRow, (row for row, _ in rows))
            put(
                self._connection,
                BookFormRow,
                ({"form": form, "topic": topic.id} for topic in found for form in topic.forms),
            )
            put(self._connection, BookTrendRow, (trend for _, trend in rows))


@dataclass(slots=True)
class _Turned:
    """Sources whose unit is another one than before, and those read in hours that were not known of (the first)."""

    units: set[str] = field(default_factory=set)
    hours: dict[str, int] = field(default_factory=dict)


def _of(source: str) -> Any:
    return BookTopicRow.sources.contains(f",{source},", autoescape=True)


def standing(engine: Engine, times: Times, now: datetime) -> Standing:
    """What trends at ``now``, which is no earlier than what the book was brought up to."""
    table = BookTopicRow.__table__
    columns = ("key", "content", "members", "last_seen", "last", "potential", "height", "peak", "change")
    with TRENDS.mapped_errors(), engine.connect() as connection:
        wanted = select(*(table.c[name] for name in columns)).where(table.c.withheld.is_(None))
        found = connection.execute(wanted).cursor.fetchall()  # plain tuples: rows of SQLAlchemy's cost as much again
        left_out, held = reasons(connection), withheld(connection)
    kinds = [(name, "<i8" if name in columns[:5] else "<f8") for name in columns]
    known = np.array(found, dtype=kinds)
    ratings = Courses(*(known[name] for name in Courses._fields)).at(now, times.half_life)
    talked_of = ratings.score >= MIN_SCORE
    rows = np.zeros(int(talked_of.sum()), dtype=ROW)
    for name in ("key", "content", "last_seen"):
        rows[name] = known[name][talked_of]
    for name, values in ratings._asdict().items():
        rows[name] = values[talked_of]
    rows["live"] = True
    left_out[NOT_TALKED_OF] += int(known["members"][~talked_of].sum())
    return Standing(rows[np.lexsort((rows["key"], -rows["score"]))], held, +left_out)


def trends(engine: Engine, keys: Keys) -> list[Trend]:
    """What the topics of some rows say, in their order; rated 0."""
    texts: dict[int, str] = {}
    with TRENDS.mapped_errors(), engine.connect() as connection:
        for part in batches(keys.tolist()):
            found = connection.execute(select(BookTrendRow).where(BookTrendRow.key.in_(part)))
            texts |= {row.key: row.trend for row in found}
    return [Trend.model_validate_json(texts[key]) for key in keys.tolist()]


def kept_back(engine: Engine) -> list[str]:
    """What is withheld, a ``Withheld`` in JSON each, the last seen first."""
    row = BookTopicRow
    wanted = select(BookTrendRow.trend).join(row, row.key == BookTrendRow.key).where(row.withheld.is_not(None))
    with TRENDS.mapped_errors(), engine.connect() as connection:
        return list(connection.scalars(wanted.order_by(row.last_seen.desc(), row.id)))
