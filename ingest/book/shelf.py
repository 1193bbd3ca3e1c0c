"""The book's tables: reading and writing them, in batches. What stands in them is decided elsewhere."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, func, or_, select, update
from sqlalchemy.orm import Session

from ingest.book.assign import Changes, Place, Role, Stored, left_out
from ingest.book.entries import START_BYTES
from ingest.book.tables import batches, put, read, remove
from ingest.observation import Observation
from ingest.schema import (
    BookFormRow,
    BookItemRow,
    BookMemberRow,
    BookSpanRow,
    BookStartRow,
    BookTopicRow,
    BookTrendRow,
    ObservationRow,
)
from ingest.score import Point
from ingest.store import observation_of


class Shelf:
    """``assign.View`` of the book as it stands in the database, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stored(self, items: Collection[int]) -> dict[int, Stored]:
        row = BookMemberRow
        places: dict[int, dict[str, Place]] = defaultdict(dict)
        columns = (row.item, row.form, row.role, row.name)
        for item, form, role, name in read(self._connection, columns, row.item, items):
            places[item][form] = Place(Role(role), name)
        found = read(
            self._connection, (BookItemRow.item, BookItemRow.named, BookItemRow.loose), BookItemRow.item, items
        )
        return {item: Stored(named, loose, places.get(item, {})) for item, named, loose in found}

    def named(self, forms: Collection[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for part in batches(forms):
            wanted = select(BookItemRow.named, func.count()).where(BookItemRow.named.in_(part))
            counts |= _counted(self._connection, wanted.group_by(BookItemRow.named))
        return counts

    def holding(self, forms: Collection[str]) -> set[int]:
        whole = {form.encode()[:START_BYTES] for form in forms}
        found = {item for (item,) in read(self._connection, (BookStartRow.item,), BookStartRow.start, whole)}
        for part in batches([start for start in whole if len(start) < START_BYTES], 50):
            longer: list[ColumnElement[bool]] = [
                (BookStartRow.start > start) & (BookStartRow.start < start + b"\xff") for start in part
            ]
            found.update(self._connection.scalars(select(BookStartRow.item).where(or_(*longer))))
        return found

    def loose(self, spans: Collection[str]) -> dict[str, dict[int, str]]:
        users: dict[str, dict[int, str]] = defaultdict(dict)
        for part in batches(spans):
            wanted = (
                select(BookSpanRow.form, BookSpanRow.item, BookItemRow.family)
                .join(BookItemRow, BookItemRow.item == BookSpanRow.item)
                .where(BookSpanRow.form.in_(part), BookItemRow.loose)
            )
            for form, item, family in self._connection.execute(wanted):
                users[form][item] = family
        return users

    def spans(self, items: Collection[int]) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for item, form in read(self._connection, (BookSpanRow.item, BookSpanRow.form), BookSpanRow.item, items):
            found[item].add(form)
        return found

    def observations(self, items: Collection[int]) -> dict[int, Observation]:
        found: dict[int, Observation] = {}
        with Session(self._connection) as session:
            for part in batches(items):
                rows = session.scalars(select(ObservationRow).where(ObservationRow.id.in_(part)))
                found |= {row.id: observation_of(row) for row in rows}
                session.expunge_all()
        return found

    def latest(self, keys: Iterable[tuple[str, str]], since: datetime) -> dict[tuple[str, str], int]:
        """By (source, key) the item's last observation of those that speak of ``since`` or later."""
        row = ObservationRow
        newest: dict[tuple[str, str], int] = {}
        for source, part in _by_source(keys):
            wanted = select(row.key, func.max(row.id)).where(row.source == source, row.key.in_(part), row.at >= since)
            newest |= {(source, key): item for key, item in self._connection.execute(wanted.group_by(row.key))}
        return newest

    def all_latest(self, since: datetime) -> dict[tuple[str, str], int]:
        """As ``latest``, of all items."""
        row = ObservationRow
        wanted = select(row.source, row.key, func.max(row.id)).where(row.at >= since).group_by(row.source, row.key)
        return {(source, key): item for source, key, item in self._connection.execute(wanted)}

    def items(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """By (source, key) the items that are in the book."""
        row = BookItemRow
        found: dict[tuple[str, str], int] = {}
        for source, part in _by_source(keys):
            wanted = select(row.key, row.item).where(row.source == source, row.key.in_(part))
            found |= {(source, key): item for key, item in self._connection.execute(wanted)}
        return found

    def topics(self, forms: Collection[str]) -> set[str]:
        return {topic for (topic,) in read(self._connection, (BookFormRow.topic,), BookFormRow.form, forms)}

    def clusters(self, topics: Collection[str]) -> list[tuple[str, ...]]:
        """The forms of each."""
        found: dict[str, list[str]] = defaultdict(list)
        for topic, form in read(self._connection, (BookFormRow.topic, BookFormRow.form), BookFormRow.topic, topics):
            found[topic].append(form)
        return [tuple(sorted(forms)) for forms in found.values()]

    def known_since(self, forms: Collection[str], since: datetime) -> dict[str, datetime]:
        """By form when a point of it was first seen, of those since then."""
        row = ObservationRow
        found: dict[str, datetime] = {}
        for part in batches(forms):
            wanted = select(row.form, func.min(row.at)).where(row.form.in_(part), row.at >= since).group_by(row.form)
            found.update((form, at) for form, at in self._connection.execute(wanted))
        return found

    def members(self, forms: Collection[str]) -> dict[str, dict[int, Place]]:
        """By form the items of its group."""
        row = BookMemberRow
        found: dict[str, dict[int, Place]] = defaultdict(dict)
        columns = (row.form, row.item, row.role, row.name)
        for form, item, role, name in read(self._connection, columns, row.form, forms):
            found[form][item] = Place(Role(role), name)
        return found

    def points(
        self, keys: Iterable[tuple[str, str]], forms: Collection[str], since: datetime
    ) -> tuple[dict[tuple[str, str], list[Point]], dict[str, list[Point]]]:
        """Points since then, by (source, key) and by form."""
        row = ObservationRow
        columns = (row.source, row.family, row.key, row.form, row.at, row.volume, row.usual)
        by_item: dict[tuple[str, str], list[Point]] = defaultdict(list)
        by_form: dict[str, list[Point]] = defaultdict(list)
        for source, part in _by_source(keys):
            wanted = select(*columns).where(row.source == source, row.key.in_(part), row.at >= since)
            for point in self._connection.execute(wanted):
                by_item[point.source, point.key].append(Point(*point))
        for forms_part in batches(forms):
            for point in self._connection.execute(select(*columns).where(row.form.in_(forms_part), row.at >= since)):
                by_form[point.form].append(Point(*point))
        return by_item, by_form

    def put(self, changes: Changes, keys: Mapping[int, tuple[str, str, datetime]]) -> None:
        """``keys``: source, key and time of the items that come."""
        remove(self._connection, BookItemRow.item, changes.gone)
        remove(self._connection, BookMemberRow.item, changes.gone | changes.places.keys())
        remove(self._connection, BookStartRow.item, changes.gone)
        remove(self._connection, BookSpanRow.item, changes.gone)
        put(
            self._connection,
            BookItemRow,
            (
                {
                    "item": item,
                    "source": keys[item][0],
                    "key": keys[item][1],
                    "at": keys[item][2],
                    "family": found.seen.family,
                    "named": found.offer.form or None,
                    "loose": changes.loose[item],
                    "left_out": left_out(found, changes.places[item]),
                }
                for item, found in changes.come.items()
            ),
        )
        put(
            self._connection,
            BookStartRow,
            ({"start": start, "item": item} for item, found in changes.come.items() for start in found.starts),
        )
        put(
            self._connection,
            BookSpanRow,
            ({"form": form, "item": item} for item, found in changes.come.items() for form in found.offer.spans),
        )
        put(
            self._connection,
            BookMemberRow,
            (
                {"form": form, "item": item, "role": int(place.role), "name": place.name}
                for item, places in changes.places.items()
                for form, place in places.items()
            ),
        )
        for item in changes.places.keys() - changes.come.keys():
            known: dict[str, Any] = {"left_out": left_out(changes.known[item], changes.places[item])}
            if item in changes.loose:
                known["loose"] = changes.loose[item]
            self._connection.execute(update(BookItemRow).where(BookItemRow.item == item).values(known))

    def remove_topics(self, topics: Collection[str], keys: Collection[int]) -> None:
        remove(self._connection, BookFormRow.topic, topics)
        remove(self._connection, BookTopicRow.id, topics)
        remove(self._connection, BookTrendRow.key, keys)

    def put_topics(
        self, topics: Sequence[dict[str, Any]], forms: Sequence[dict[str, Any]], trends: Sequence[dict[str, Any]]
    ) -> None:
        put(self._connection, BookTopicRow, topics)
        put(self._connection, BookFormRow, forms)
        put(self._connection, BookTrendRow, trends)


class Nothing:
    """``assign.View`` of a book that is empty."""

    def stored(self, items: Collection[int]) -> dict[int, Stored]:  # noqa: ARG002  (a View's)
        return {}

    def named(self, forms: Collection[str]) -> dict[str, int]:  # noqa: ARG002  (as above)
        return {}

    def holding(self, forms: Collection[str]) -> set[int]:  # noqa: ARG002  (as above)
        return set()

    def loose(self, spans: Collection[str]) -> dict[str, dict[int, str]]:  # noqa: ARG002  (as above)
        return {}

    def spans(self, items: Collection[int]) -> dict[int, set[str]]:  # noqa: ARG002  (as above)
        return {}

    def observations(self, items: Collection[int]) -> dict[int, Observation]:  # noqa: ARG002  (as above)
        return {}


def _by_source(keys: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Sequence[str]]]:
    found: dict[str, set[str]] = defaultdict(set)
    for source, key in keys:
        found[source].add(key)
    for source, of_it in found.items():
        for part in batches(of_it):
            yield source, part


def reasons(connection: Connection) -> Counter[str]:
    """How many items are in no group, by reason."""
    row = BookItemRow
    counted = select(row.left_out, func.count()).where(row.left_out.is_not(None)).group_by(row.left_out)
    return Counter(_counted(connection, counted))


def withheld(connection: Connection) -> Counter[str]:
    """How many topics are withheld, by reason."""
    row = BookTopicRow
    counted = select(row.withheld, func.count()).where(row.withheld.is_not(None)).group_by(row.withheld)
    return Counter(_counted(connection, counted))


def _counted(connection: Connection, query: Executable) -> dict[str, int]:
    return {name: count for name, count in connection.execute(query) if name is not None}
