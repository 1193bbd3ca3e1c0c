"""What a run has settled so far: one SQLite file beside the output, which survives every kind of end.

A row is noted as soon as it has a caption or has failed, in whatever order that happens. The mark says how far output
and errors have been written: whatever these files hold beyond it is cut off when the run goes on. The file is locked
for as long as it is open, by the kernel, so that a process that was killed leaves no lock behind.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from trendrag.errors import RequestError, StorageError

VERSION = 1
_APPLICATION = 0x7472_6261  # "trba"

State = Literal["done", "failed"]

RECORD_BYTES, KEY_BYTES = 8, 24
_ALIKE = 16
Known = Mapping[bytes, Mapping[str, Any]]
"""key → the result of a row that is done with it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How one row of input ended.

    ``line`` is a hash of its text, so that a changed input is noticed. ``key`` names what its caption depends on
    (record, image, prompt, note, model), and begins with the record's own ``RECORD_BYTES``; empty where the image was
    never known. ``result`` are the fields that are added to a record that is done; of one that failed ``code`` and
    ``reason``.
    """

    number: int
    line: bytes
    state: State
    key: bytes
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """The files hold all rows up to input row ``number``, which was the ``selected``-th one that was selected, and have
    so many bytes. ``digest`` is of the input up to that row."""

    number: int = 0
    selected: int = 0
    digest: str = ""
    output_bytes: int = 0
    errors_bytes: int = 0


class Held(RequestError):
    """Another run has the journal."""


class Journal:
    """For one thread at a time. Use ``Journal.open``, and ``close`` at the end.

    Raises from all its methods:
        StorageError: the disk is full or fails. What was noted before is still there.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Raises:
            Held: another run has it open.
            RequestError: the file is no journal of this version.
        """
        try:
            connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StorageError(f"{path} can't be opened ({error}). Is its folder one that you may write to?") from error
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")  # taken here, kept until the end
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and (application, version) != (_APPLICATION, VERSION):
                raise RequestError(f"{path} is no journal of this version of TrendRAG. --overwrite begins anew.")
            if not tables:
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
                connection.execute(
                    "CREATE TABLE rows (number INTEGER PRIMARY KEY, line BLOB NOT NULL, state TEXT NOT NULL, "
                    "key BLOB NOT NULL, result TEXT NOT NULL)"
                )
                connection.execute("CREATE INDEX rows_by_key ON rows (key) WHERE state = 'done'")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise Held(f"Another run is writing this output: it holds {path}.") from error
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(f"{path} can't be used: {error}.") from error
            raise RequestError(
                f"{path} is damaged, or no journal of TrendRAG ({error}). --overwrite begins anew."
            ) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StorageError(
                f"{self._path} can't be written ({error}). Is the disk full? Nothing that was noted is lost: make "
                "room, and go on with --resume."
            ) from error
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path} can't be read, or is damaged ({error}). --overwrite begins anew."
            ) from error

    def told(self, name: str) -> Any:
        """What was kept under a name by ``tell``; None where nothing was."""
        found = self._read("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    def tell(self, **values: object) -> None:
        with self._writing() as connection:
            for name, value in values.items():
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def note(self, settled: Iterable[Settled]) -> None:
        """All of them, or none. A row that failed before and is noted again has only its last end."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)",
                (
                    (each.number, each.line, each.state, each.key, json.dumps(each.result, ensure_ascii=True))
                    for each in settled
                ),
            )

    @property
    def mark(self) -> Mark:
        return Mark(**(self.told("mark") or {}))

    def set_mark(self, mark: Mark, **also: object) -> None:
        """Moves the mark, and tells ``also`` in the same moment."""
        self.tell(mark=asdict(mark), **also)

    def settled(self, first: int, last: int) -> dict[int, Settled]:
        """The rows from ``first`` to ``last``, both included, that are settled."""
        found = self._read("SELECT * FROM rows WHERE number BETWEEN ? AND ?", first, last)
        return {row[0]: _settled(row) for row in found}

    def alike(self, record: bytes) -> Known:
        """Rows that are done with keys that begin with ``record``. Some of them where they are many: what names a
        thousand records names none."""
        rest = KEY_BYTES - len(record)
        found = self._read(
            "SELECT key, result FROM rows WHERE key BETWEEN ? AND ? AND state = 'done' LIMIT ?",
            record + b"\0" * rest,
            record + b"\xff" * rest,
            _ALIKE,
        )
        return {key: json.loads(result) for key, result in found}

    def counts(self) -> dict[State, int]:
        found = dict(self._read("SELECT state, count(*) FROM rows GROUP BY state"))
        return {"done": found.get("done", 0), "failed": found.get("failed", 0)}


def _settled(row: tuple[int, bytes, State, bytes, str]) -> Settled:
    number, line, state, key, result = row
    return Settled(number, line, state, key, json.loads(result))
