"""The tables of the trend database as they are now. How they came to be so, version by version, is in ``migrations``:
a change here needs a revision there, and a test compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ingest.observation import Kind


class Base(DeclarativeBase):
    pass


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC, kept as microseconds since 1970: SQLite has no dates, and would forget the zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002  (its signature)
        return None if value is None else round(value.timestamp() * 1_000_000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (as above)
        return None if value is None else datetime.fromtimestamp(value / 1_000_000, UTC)


class ObservationRow(Base):
    __tablename__ = "observation"
    __table_args__ = (
        UniqueConstraint("source", "key", "bucket", name="observation_once"),
        Index("observation_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
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
