"""The tables of the trend database as they are now. How they came to be so, version by version, is in ``migrations``:
a change here needs a revision there, and a test compares the two.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ingest.observation import Kind
from trendrag.database import UtcDateTime


class Base(DeclarativeBase):
    pass


_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class ObservationRow(Base):
    __tablename__ = "observation"
    __table_args__ = (
        UniqueConstraint("source", "key", "bucket", name="observation_once"),
        Index("observation_at", "at"),
        Index("observation_form", "form"),
    )

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    source: Mapped[str] = mapped_column(String(64))
    source_type: Mapped[str] = mapped_column(String(32))
    family: Mapped[str] = mapped_column(String(255))
    name: Mapped[str]
    kind: Mapped[Kind] = mapped_column(String(16))
    title: Mapped[str]
    form: Mapped[str]
    key: Mapped[str] = mapped_column(String(24))
    bucket: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    observed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    url: Mapped[str | None]
    volume: Mapped[int | None] = mapped_column(BigInteger)
    usual: Mapped[float | None] = mapped_column(Float)
    region: Mapped[str | None] = mapped_column(String(2))
    language: Mapped[str] = mapped_column(String(35))
    categories: Mapped[list[str]] = mapped_column(JSON)
    evidence: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class SourceRow(Base):
    """How a source is doing. An error stays until the next success, a success's numbers until the next one."""

    __tablename__ = "source_status"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_success: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None]
    items: Mapped[int] = mapped_column(default=0)
    new: Mapped[int] = mapped_column(default=0)
    size: Mapped[int | None] = mapped_column(BigInteger)


class FetchRow(Base):
    """The fields of ``FetchState``; ``body`` is compressed with zlib."""

    __tablename__ = "fetch_state"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    url: Mapped[str | None]
    etag: Mapped[str | None]
    last_modified: Mapped[str | None]
    checksum: Mapped[str | None] = mapped_column(String(64))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    last_attempt: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_success: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_changed: Mapped[datetime | None] = mapped_column(UtcDateTime)
    errors: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"))
    reason: Mapped[str | None]
    next_due: Mapped[datetime | None] = mapped_column(UtcDateTime)
    told_to_wait: Mapped[bool]
    moved_to: Mapped[str | None]
    moved_seen: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"))
    muted: Mapped[str | None]
    ttl_minutes: Mapped[int | None]


# The book: what ``ingest.book`` has made of the observations so far. It holds nothing that they don't tell.


class BookRow(Base):
    """One row. ``made_by`` is what the book depends on besides observations; ``upto`` the last one that is in it."""

    __tablename__ = "book"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    made_by: Mapped[str]
    upto: Mapped[int] = mapped_column(BigInteger)
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)


class BookItemRow(Base):
    """An item that is young enough: ``item`` is its last observation. ``named`` is the form that it names; ``loose`` a
    headline that names no topic; ``left_out`` why it is in none."""

    __tablename__ = "book_item"
    __table_args__ = (
        UniqueConstraint("source", "key", name="book_item_once"),
        Index("book_item_at", "at"),
        Index("book_item_named", "named"),
    )

    item: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    source: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(24))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    family: Mapped[str] = mapped_column(String(255))
    named: Mapped[str | None]
    loose: Mapped[bool]
    left_out: Mapped[str | None]


class BookStartRow(Base):
    """What the names begin with that a headline may hold, as UTF-8, so that it is found by any of them."""

    __tablename__ = "book_start"
    __table_args__ = (Index("book_start_item", "item"), {"sqlite_with_rowid": False})

    start: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    item: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)


class BookSpanRow(Base):
    """The names that a headline offers."""

    __tablename__ = "book_span"
    __table_args__ = (Index("book_span_item", "item"), {"sqlite_with_rowid": False})

    form: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)


class BookMemberRow(Base):
    """Which groups an item is in, and as what (``assign.Place``)."""

    __tablename__ = "book_member"
    __table_args__ = (Index("book_member_item", "item"), {"sqlite_with_rowid": False})

    form: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    role: Mapped[int]
    name: Mapped[str | None]


class BookNameRow(Base):
    """What a group is united with others by: some names and headlines (as ``same.brief`` gives them), and the year."""

    __tablename__ = "book_name"

    form: Mapped[str] = mapped_column(primary_key=True)
    names: Mapped[list[str]] = mapped_column(JSON)
    said: Mapped[list[str]] = mapped_column(JSON)
    year: Mapped[int]


class BookKeyRow(Base):
    """The keys of each group's name, hashed to 64 bits."""

    __tablename__ = "book_key"
    __table_args__ = (Index("book_key_form", "form"), {"sqlite_with_rowid": False})

    key: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    form: Mapped[str] = mapped_column(primary_key=True)


class BookPairRow(Base):
    """Names that are the same (``one`` comes first), with the rank of the reason."""

    __tablename__ = "book_pair"
    __table_args__ = (Index("book_pair_other", "other"),)

    one: Mapped[str] = mapped_column(primary_key=True)
    other: Mapped[str] = mapped_column(primary_key=True)
    rank: Mapped[int]


class BookTopicRow(Base):
    """What is needed of a topic to rate it at any time: its course, and what it counts as. ``key`` and ``content`` are
    those of a snapshot's row. ``sources`` are those that its points are of, between commas. ``until`` is when its id
    has to be looked at again, since it depends on how far back is looked."""

    __tablename__ = "book_topic"
    __table_args__ = (Index("book_topic_last", "last"), Index("book_topic_until", "until"))

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    key: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[int] = mapped_column(BigInteger)
    members: Mapped[int]
    last_seen: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[int] = mapped_column(BigInteger)
    potential: Mapped[float] = mapped_column(Float)
    height: Mapped[float] = mapped_column(Float)
    peak: Mapped[float] = mapped_column(Float)
    change: Mapped[float] = mapped_column(Float)
    withheld: Mapped[str | None]
    sources: Mapped[str]
    until: Mapped[int | None] = mapped_column(BigInteger)


class BookFormRow(Base):
    """The forms of each topic."""

    __tablename__ = "book_form"
    __table_args__ = (Index("book_form_topic", "topic"),)

    form: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(String(16))


class BookTrendRow(Base):
    """What a topic says: a ``Trend`` in JSON, rated 0, or where it is withheld a ``Withheld``."""

    __tablename__ = "book_trend"

    key: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=False)
    trend: Mapped[str]


class BookSourceRow(Base):
    """When a source was read (int64, hours since 1970), and how many of its volumes were of each step on each day
    (int64, (n, 3): day, step, count); little-endian."""

    __tablename__ = "book_source"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    hours: Mapped[bytes] = mapped_column(LargeBinary)
    volumes: Mapped[bytes] = mapped_column(LargeBinary)
