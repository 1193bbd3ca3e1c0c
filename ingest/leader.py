"""What only one process may do at a time: locks by name, shared by all who use one database.

Beside an SQLite file the lock is a file that the kernel locks, in PostgreSQL an advisory lock of a session. Neither
outlives the process that holds it, however that ends, so that there is nothing to clean up after a crash.
"""

from abc import ABC, abstractmethod
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from ingest.database import TRENDS
from trendrag.errors import ConfigurationError


class NamedLock(ABC):
    """Synchronous; one instance in one thread at a time. Two instances of one name exclude each other, also within a
    process. As a context manager it gives whether it was got: ``with named_lock(engine, "refresh") as mine``.

    Raises:
        ConfigurationError: the lock can't be used at all.
    """

    @abstractmethod
    def acquire(self) -> bool:
        """Takes it where it is free, without waiting, and says whether it is held now. Taken twice is held once."""

    @abstractmethod
    def held(self) -> bool:
        """Whether it is still held: a session, and its locks with it, ends when its server restarts."""

    @abstractmethod
    def release(self) -> None:
        """Gives it back; nothing where it is not held."""

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def named_lock(engine: Engine, name: str) -> NamedLock:
    """The lock ``name`` of the database behind ``engine``; a database in memory has nobody to share it with.

    PostgreSQL: the session must be the client's own, which it is not behind a pooler in transaction mode.
    """
    if engine.dialect.name == "postgresql":
        return _SessionLock(engine, name)
    file = engine.url.database
    return _FileLock(Path(f"{file}.{name}.lock")) if file else _Unshared()


class _FileLock(NamedLock):
    def __init__(self, file: Path) -> None:
        # A soft lock, filelock's way out where the kernel has none, would outlive a crash.
        self._lock = FileLock(file, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> bool:
        if self._lock.is_locked:
            return True
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise ConfigurationError(f"The file {self._lock.lock_file} can't be locked: {error}") from error
        return True

    def held(self) -> bool:
        return self._lock.is_locked

    def release(self) -> None:
        self._lock.release()


_KEY = "hashtextextended('trendrag ' || coalesce(current_schema(), '') || ' ' || :name, 0)"
"""Advisory locks have numbers and are shared by a whole database; installations may differ by schema only."""


class _SessionLock(NamedLock):
    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._session: Connection | None = None

    def acquire(self) -> bool:
        if self.held():
            return True
        with TRENDS.mapped_errors():
            session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                got = bool(session.scalar(text(f"SELECT pg_try_advisory_lock({_KEY})"), {"name": self._name}))
                # A holder whose machine has vanished without a word loses it after a minute, not after hours.
                for setting, value in (("idle", 30), ("interval", 10), ("count", 3)) if got else ():
                    session.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
            except BaseException:
                _end(session)
                raise
        if got:
            self._session = session
        else:
            session.close()
        return got

    def held(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.execute(text("SELECT 1"))
        except SQLAlchemyError:
            self.release()
        return self._session is not None

    def release(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            _end(session)


def _end(session: Connection) -> None:
    """Ends the session itself, and all that it holds, rather than handing it back to the pool."""
    session.invalidate()
    session.close()


class _Unshared(NamedLock):
    def __init__(self) -> None:
        self._held = False

    def acquire(self) -> bool:
        self._held = True
        return True

    def held(self) -> bool:
        return self._held

    def release(self) -> None:
        self._held = False
