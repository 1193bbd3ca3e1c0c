"""How a database is reached, brought up to date, and what its errors become: an SQLite file or PostgreSQL.

The trend database of ``ingest`` and the service database of ``serving`` share this and nothing else. Each has tables
and Alembic revisions of its own; nothing here knows either.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL, BigInteger, Connection, Dialect, Engine, TypeDecorator, create_engine, event, inspect, text
from sqlalchemy import make_url as parsed_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from trendrag.clock import microseconds, moment
from trendrag.errors import ConfigurationError
from trendrag.text import clean_line

BUSY_TIMEOUT_S = 15.0
"""How long a writer waits for another process that is writing (SQLite allows one at a time)."""

PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""libpq's parameters, seconds but for the last (milliseconds): a PostgreSQL server that can't be reached, or is gone
without a word, is an error after a minute. A URL may say otherwise."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC, kept as microseconds since 1970: SQLite has no dates, and would forget the zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002  (its signature)
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (as above)
        return None if value is None else moment(value)


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """One of the databases that TrendRAG keeps.

    ``name`` is what it is called in messages, ``setting`` the variable that holds its URL, ``revisions`` the folder
    with ``env.py`` and ``versions``, ``version_table`` where Alembic writes the version down: two kinds may share a
    server's database.
    """

    name: str
    setting: str
    revisions: Path
    version_table: str

    def address(self, url: SecretStr | None, file: Path) -> URL:
        """Where it is: at ``url`` (``sqlite:///FILE``, or ``postgresql://user:password@host:port/database``;
        ``postgres://`` is the same), by default in ``file``. Nothing is connected to.

        Raises:
            ConfigurationError: this is no URL of a database that is taken. The message never holds the URL, which may
                hold a password.
        """
        if url is None:
            return URL.create("sqlite", database=str(file))
        try:
            address = parsed_url(url.get_secret_value())
        except (ArgumentError, ValueError):
            raise self._unusable("is no database URL") from None  # the error would quote it
        if address.drivername == "sqlite" and address.database:
            return address
        if address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise self._unusable(f"names {address.drivername}, which is not taken")
        return address.set(drivername="postgresql+psycopg")

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.setting} {why}. Give postgresql://user:password@host/database or sqlite:////path/of/file, with @ : "
            "/ ? # and % of a password written as %XX; or nothing, for a file in the data directory"
        )

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise ConfigurationError(
                f"The {self.name} can't be used ({cause_of(error)}). Is its folder writable, is there space, is its "
                "server up?"
            ) from error

    def newest_version(self) -> str:
        """The number of the last revision, from the file names: a database that is up to date never loads Alembic."""
        return max(file.name[:4] for file in (self.revisions / "versions").glob("[0-9]*.py"))

    def bring_up_to_date(self, engine: Engine) -> None:
        """All or nothing, also where the process is killed, and by one process at a time: the others wait.

        A database from before there were versions is taken over as it is.

        Raises:
            ConfigurationError: a newer TrendRAG made the database. It is left as it is.
        """
        newest = self.newest_version()
        with engine.connect() as connection:
            if self._version(connection) == newest:
                return
            connection.rollback()
            self._lock(connection)
            found = self._version(connection)  # once more: another process may have been here in the meantime
            if found is not None and found > newest:
                raise ConfigurationError(
                    f"A newer TrendRAG made this {self.name}: its tables are of version {found}, this one knows them "
                    f"up to {newest}. Nothing was changed. Install the newer TrendRAG, or name another database in "
                    f"{self.setting}"
                )
            if found != newest:
                self.upgrade(connection)
            connection.commit()

    def upgrade(self, connection: Connection, to: str = "head") -> None:
        """The revisions up to ``to``, in the transaction of ``connection``."""
        # Here, since most openings need neither.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(self.revisions).replace("%", "%%"))
        config.attributes["connection"] = connection
        config.attributes["version_table"] = self.version_table
        command.upgrade(config, to)

    def _version(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(self.version_table):
            return None
        found: str | None = connection.scalar(text(f"SELECT version_num FROM {self.version_table}"))  # noqa: S608 - ours
        return found

    def _lock(self, connection: Connection) -> None:
        """Until the transaction ends."""
        if connection.dialect.name == "postgresql":
            key = "hashtextextended('trendrag migrations ' || coalesce(current_schema(), ''), 0)"
            connection.execute(text(f"SELECT pg_advisory_xact_lock({key})"))
        else:
            connection.execute(text("BEGIN IMMEDIATE"))


def cause_of(error: SQLAlchemyError) -> str:
    """What the driver said, on one line: SQLAlchemy's own message would quote the statement and its values."""
    return clean_line(str(getattr(error, "orig", None) or type(error).__name__), 200)


def open_engine(address: URL) -> Engine:
    """A synchronous engine; call it in a thread. The folder of an SQLite file is made where there is none.

    Raises:
        ConfigurationError: the driver is missing, or the folder can't be made.
    """
    if address.get_backend_name() == "sqlite":
        make_folder(address)
        engine = create_engine(address, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", prepare_sqlite)
        return engine
    try:
        return create_engine(address, connect_args=patience(address), pool_pre_ping=True)
    except ImportError as error:
        raise missing_driver() from error


def patience(address: URL) -> dict[str, int]:
    """``PATIENCE``, but for what the URL says itself."""
    return {name: value for name, value in PATIENCE.items() if name not in address.query}


def missing_driver() -> ConfigurationError:
    return ConfigurationError(
        "PostgreSQL needs its driver, TrendRAG's extra `postgresql`. Install it with: pip install 'psycopg[binary]'"
    )


def make_folder(address: URL) -> None:
    """Of an SQLite file.

    Raises:
        ConfigurationError: it can't be made.
    """
    folder = Path(address.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} can't be made: {error.strerror}") from error


def prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """For a new connection, before its first statement."""
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
