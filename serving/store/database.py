"""Reaches the service database: asynchronously, up to date, and with errors that captions survive.

Nothing is connected to before the first use, and a database that is away is asked again at each use: a server that
starts while PostgreSQL is down writes captions, and keeps history from when it is back.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from trendrag.database import (
    BUSY_TIMEOUT_S,
    DatabaseKind,
    cause_of,
    make_folder,
    missing_driver,
    open_engine,
    patience,
    prepare_sqlite,
)
from trendrag.errors import StorageError
from trendrag.settings import Settings

SERVICE = DatabaseKind(
    name="service database",
    setting="TRENDRAG_SERVER__DATABASE_URL",
    revisions=Path(__file__).resolve().parent / "migrations",
    version_table="service_version",
)

CONNECT_TIMEOUT_S = 3
"""Shorter than for the trend database: here somebody waits."""
TRANSACTION_S = 20.0
"""Longest time for a transaction: a server that is gone without a word would hold it for a minute. Longer than SQLite
waits for another writer."""


class Database:
    """For one event loop. Connections are pooled; ``aclose`` ends them."""

    def __init__(self, address: URL) -> None:
        self._address = address
        self._engine = _async_engine(address)
        self._up_to_date = False
        self._first = asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The one that the settings name. Nothing is connected to yet.

        Raises:
            ConfigurationError: the setting is no URL of a database that is taken, or the driver is missing.
        """
        return cls(SERVICE.address(settings.server.database_url, settings.service_database_path))

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end and rolled back on an error.

        Raises:
            StorageError: the database can't be used now.
            ConfigurationError: a newer TrendRAG made it.
        """
        try:
            await self._ensure_up_to_date()
            async with asyncio.timeout(TRANSACTION_S), self._connection() as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, OSError) as error:  # TimeoutError is an OSError
            cause = cause_of(error) if isinstance(error, SQLAlchemyError) else type(error).__name__
            raise StorageError(f"The service database can't be used now ({cause}). Try again later.") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """SQLite's is opened and closed to the end also where the caller is cancelled meanwhile: nobody else knows of
        one that is half open, and the thread of aiosqlite that is at it would outlive the loop. A server's is left at
        once: it may be gone without a word, and nobody waits for that."""
        connection = self._engine.connect()
        if self.dialect != "sqlite":
            async with connection:
                yield connection
            return
        try:
            await _to_the_end(connection.start())
            yield connection
        finally:
            if connection.sync_connection is not None:  # else it could not be opened
                await _to_the_end(connection.close())

    async def aclose(self) -> None:
        await self._engine.dispose()

    async def _ensure_up_to_date(self) -> None:
        if self._up_to_date:
            return
        async with self._first:
            if not self._up_to_date:
                await asyncio.to_thread(self._bring_up_to_date)
                self._up_to_date = True

    def _bring_up_to_date(self) -> None:
        engine = open_engine(self._address)
        _make_private(self._address)
        try:
            SERVICE.bring_up_to_date(engine)
        finally:
            engine.dispose()


async def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Waits for ``work``, which a cancellation does not reach."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _make_private(address: URL) -> None:
    """A new SQLite file is for its owner alone: what users wrote is in it. SQLite gives the files beside it (-wal,
    -shm) the same mode. One that is there keeps its mode, which somebody may have chosen."""
    if address.get_backend_name() == "sqlite" and address.database:
        with suppress(FileExistsError):
            os.close(os.open(address.database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _async_engine(address: URL) -> AsyncEngine:
    if address.get_backend_name() == "sqlite":
        make_folder(address)
        engine = create_async_engine(
            address.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        event.listen(engine.sync_engine, "connect", prepare_sqlite)
        event.listen(engine.sync_engine, "connect", _mind_foreign_keys)
        return engine
    try:
        return create_async_engine(
            address, connect_args={**patience(address), "connect_timeout": CONNECT_TIMEOUT_S}, pool_pre_ping=True
        )
    except ImportError as error:
        raise missing_driver() from error


def _mind_foreign_keys(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON").close()  # SQLite takes no notice of them otherwise
