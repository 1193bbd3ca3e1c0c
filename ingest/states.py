"""What asking each source has taught so far, kept over restarts: one ``policy.FetchState`` a source.

A state is of an entry as it was: where the entry's fingerprint is another, the source starts anew, so that editing an
entry ends a mute or a long wait. What a state means is left to ``policy``.
"""

import contextlib
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from sqlalchemy import BigInteger, Engine, Integer, LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingest.policy import FetchState
from ingest.store import Base, UtcDateTime, mapped_errors


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


class Entry(Protocol):
    """What a state hangs on; every source is one."""

    @property
    def id(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class FetchStates:
    """Synchronous; call it in a thread. Beside the observations, in the same database (``ObservationStore.engine``).

    Raises:
        ConfigurationError: the database can't be used.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with mapped_errors():
            Base.metadata.create_all(engine)

    def load(self, entries: Iterable[Entry]) -> dict[str, FetchState]:
        """The state of each entry, by id. New and edited ones have that of a source that was never asked."""
        with mapped_errors(), Session(self._engine) as session:
            rows = {row.source: row for row in session.scalars(select(FetchRow))}
        return {
            entry.id: _state(row) if row is not None and row.fingerprint == entry.fingerprint else FetchState()
            for entry in entries
            for row in (rows.get(entry.id),)
        }

    def save(self, entry: Entry, state: FetchState) -> None:
        fields = {name: getattr(state, name) for name in FetchState.__slots__}
        fields["body"] = None if state.body is None else zlib.compress(state.body)
        with mapped_errors(), Session(self._engine) as session, session.begin():
            session.merge(FetchRow(source=entry.id, fingerprint=entry.fingerprint, **fields))


def _state(row: FetchRow) -> FetchState:
    fields = {name: getattr(row, name) for name in FetchState.__slots__}
    fields["body"] = None
    if row.body is not None:
        # Without its body a list is asked for unconditionally, so that a damaged one mends itself.
        with contextlib.suppress(zlib.error):
            fields["body"] = zlib.decompress(row.body)
    return FetchState(**fields)
