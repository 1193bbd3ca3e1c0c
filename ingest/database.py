"""Where what ingest remembers is kept: a database of SQLAlchemy, an SQLite file or PostgreSQL.

Knows how a database is reached and what its errors become. Its tables are in ``schema``; bringing them up to date is
left to ``migrations``, reading and writing them to ``store`` and ``states``.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from trendrag.errors import ConfigurationError
from trendrag.settings import Settings
from trendrag.text import clean_line

BUSY_TIMEOUT_S = 15.0
"""How long a writer waits for another process that is writing (SQLite allows one at a time)."""

CONNECT_TIMEOUT_S = 10
"""How long a PostgreSQL server may take to be reached."""


def engine_of(settings: Settings) -> Engine:
    """The engine of the database that the settings name. Nothing is connected to yet.

    Raises:
        ConfigurationError: the setting is no URL of a database that is taken, or the driver is missing. The message
            never holds the URL, which may hold a password.
    """
    if settings.ingest.database_url is None:
        return file_engine(settings.database_path)
    return url_engine(settings.ingest.database_url.get_secret_value())


def file_engine(file: Path) -> Engine:
    """An SQLite file, whose folder is made where there is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {file.parent} can't be made: {error.strerror}") from error
    engine = create_engine(URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def url_engine(url: str) -> Engine:
    """``sqlite:///FILE``, or ``postgresql://user:password@host:port/database`` (``postgres://`` is the same)."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise _unusable("is no database URL") from None  # the error would quote it
    if address.drivername == "sqlite" and address.database:
        return file_engine(Path(address.database))
    if address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise _unusable(f"names {address.drivername}, which is not taken")
    patience: dict[str, Any] = {} if "connect_timeout" in address.query else {"connect_timeout": CONNECT_TIMEOUT_S}
    try:
        return create_engine(address.set(drivername="postgresql+psycopg"), connect_args=patience, pool_pre_ping=True)
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs its driver, TrendRAG's extra `postgresql`. Install it with: pip install 'psycopg[binary]'"
        ) from error


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"TRENDRAG_INGEST__DATABASE_URL {why}. Give postgresql://user:password@host/database or sqlite:////path/of/file,"
        " with @ : / ? # and % of a password written as %XX; or nothing, for a file in the data directory"
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Readers don't block the writer, and a crash loses at most the last transaction, never the file. Space that pruning
    # frees is used again, so that a file stops growing when its oldest rows are pruned; it needs no vacuum.
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=NORMAL").close()


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """The mode stays with the file. Of processes that switch a new one at the same moment SQLite refuses all but one
    at once, whatever their timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def mapped_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = clean_line(str(getattr(error, "orig", None) or type(error).__name__), 200)
        raise ConfigurationError(
            f"The trend database can't be used ({cause}). Is its folder writable, is there space, is its server up?"
        ) from error
