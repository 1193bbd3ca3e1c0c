"""What asking each source has taught so far, kept over restarts: one ``policy.FetchState`` a source.

A state is of an entry as it was: where the entry's fingerprint is another, the source starts anew, so that editing an
entry ends a mute or a long wait. What a state means is left to ``policy``.
"""

import contextlib
import zlib
from collections.abc import Iterable
from typing import Protocol

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ingest.database import TRENDS
from ingest.policy import FetchState
from ingest.schema import FetchRow


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

    def load(self, entries: Iterable[Entry]) -> dict[str, FetchState]:
        """The state of each entry, by id. New and edited ones have that of a source that was never asked."""
        with TRENDS.mapped_errors(), Session(self._engine) as session:
            rows = {row.source: row for row in session.scalars(select(FetchRow))}
        return {
            entry.id: _state(row) if row is not None and row.fingerprint == entry.fingerprint else FetchState()
            for entry in entries
            for row in (rows.get(entry.id),)
        }

    def save(self, entry: Entry, state: FetchState) -> None:
        fields = {name: getattr(state, name) for name in FetchState.__slots__}
        fields["body"] = None if state.body is None else zlib.compress(state.body)
        with TRENDS.mapped_errors(), Session(self._engine) as session, session.begin():
            session.merge(FetchRow(source=entry.id, fingerprint=entry.fingerprint, **fields))


def _state(row: FetchRow) -> FetchState:
    fields = {name: getattr(row, name) for name in FetchState.__slots__}
    fields["body"] = None
    if row.body is not None:
        # Without its body a list is asked for unconditionally, so that a damaged one mends itself.
        with contextlib.suppress(zlib.error):
            fields["body"] = zlib.decompress(row.body)
    return FetchState(**fields)
