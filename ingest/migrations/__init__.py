"""Brings the tables of a trend database to those of ``ingest.schema``, with Alembic, when it is opened.

Each change is a file of ``versions``; their numbers say the order. CONTRIBUTING.md says how one is written.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from trendrag.errors import ConfigurationError

_HERE = Path(__file__).resolve().parent


def newest_version() -> str:
    """The number of the last revision, from the file names: a database that is up to date never loads Alembic."""
    return max(file.name[:4] for file in (_HERE / "versions").glob("[0-9]*.py"))


def bring_up_to_date(engine: Engine) -> None:
    """All or nothing, also where the process is killed, and by one process at a time: the others wait.

    A database from before there were versions is taken over as it is.

    Raises:
        ConfigurationError: a newer TrendRAG made the database. It is left as it is.
    """
    newest = newest_version()
    with engine.connect() as connection:
        if _version(connection) == newest:
            return
        connection.rollback()
        _lock(connection)
        found = _version(connection)  # once more: another process may have been here in the meantime
        if found is not None and found > newest:
            raise ConfigurationError(
                f"A newer TrendRAG made this trend database: its tables are of version {found}, this one knows them up "
                f"to {newest}. Nothing was changed. Install the newer TrendRAG, or name another database in "
                "TRENDRAG_INGEST__DATABASE_URL"
            )
        if found != newest:
            _upgrade(connection)
        connection.commit()


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _lock(connection: Connection) -> None:
    """Until the transaction ends."""
    if connection.dialect.name == "postgresql":
        key = "hashtextextended('trendrag migrations ' || coalesce(current_schema(), ''), 0)"
        connection.execute(text(f"SELECT pg_advisory_xact_lock({key})"))
    else:
        connection.execute(text("BEGIN IMMEDIATE"))


def _upgrade(connection: Connection, to: str = "head") -> None:
    # Here, since most openings need neither.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
