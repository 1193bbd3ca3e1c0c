"""The trend database: where what ingest remembers is kept. Its tables are in ``schema``, their history in
``migrations``; reading and writing them is left to ``store`` and ``states``.
"""

from pathlib import Path

from sqlalchemy import URL, Engine

from trendrag.database import DatabaseKind, open_engine
from trendrag.settings import Settings

TRENDS = DatabaseKind(
    name="trend database",
    setting="TRENDRAG_INGEST__DATABASE_URL",
    revisions=Path(__file__).resolve().parent / "migrations",
    version_table="alembic_version",
)


def engine_of(settings: Settings) -> Engine:
    """The engine of the database that the settings name. Nothing is connected to yet.

    Raises:
        ConfigurationError: the setting is no URL of a database that is taken, or the driver is missing.
    """
    return open_engine(TRENDS.address(settings.ingest.database_url, settings.database_path))


def file_engine(file: Path) -> Engine:
    """An SQLite file, whose folder is made where there is none."""
    return open_engine(URL.create("sqlite", database=str(file)))
