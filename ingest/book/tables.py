"""Reading and writing rows of the book in batches."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.orm import InstrumentedAttribute

BATCH = 500
"""Values in one statement; databases limit them."""

T = TypeVar("T")


def batches(values: Iterable[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    ordered = list(values)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def read(
    connection: Connection,
    columns: tuple[InstrumentedAttribute[Any], ...],
    which: InstrumentedAttribute[Any],
    values: Collection[Any],
) -> Iterator[Any]:
    """``columns`` of the rows whose ``which`` is one of ``values``."""
    for part in batches(values):
        yield from connection.execute(select(*columns).where(which.in_(part))).fetchall()


def remove(connection: Connection, which: InstrumentedAttribute[Any], values: Collection[Any]) -> None:
    for part in batches(values):
        connection.execute(delete(which.class_).where(which.in_(part)))


def put(connection: Connection, table: type, rows: Iterable[dict[str, Any]]) -> None:
    for part in batches(rows, 10_000):
        connection.execute(insert(table), part)
