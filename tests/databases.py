"""The databases that suites run on: an SQLite file, and with TRENDRAG_TEST_SERVICES=1 (`make test-services`) a real
PostgreSQL, where each test has a schema of its own.

TRENDRAG_TEST_POSTGRES_URL names the server. Without TRENDRAG_TEST_SERVICES its tests are deselected; with it, nothing
skips.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from trendrag.settings import Settings

SERVER = os.environ.get("TRENDRAG_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.services)
DATABASES = ["sqlite", POSTGRESQL]
"""Parameters of ``database_settings``."""


@contextmanager
def database_of(kind: str, settings: Settings) -> Iterator[Settings]:
    """``settings`` with an empty database of that kind, the trends' and the service's in one."""
    if kind != "postgresql":
        yield settings
        return
    with schema() as url:
        named = {"database_url": SecretStr(url)}
        both = {"ingest": settings.ingest.model_copy(update=named), "server": settings.server.model_copy(update=named)}
        yield settings.model_copy(update=both)


def environment(settings: Settings) -> dict[str, str]:
    """What makes a command use the data directory and the database of ``settings``."""
    urls = {
        "TRENDRAG_INGEST__DATABASE_URL": settings.ingest.database_url,
        "TRENDRAG_SERVER__DATABASE_URL": settings.server.database_url,
    }
    return {
        "TRENDRAG_DATA_DIR": str(settings.data_dir),
        **{name: url.get_secret_value() for name, url in urls.items() if url},
    }


@contextmanager
def schema() -> Iterator[str]:
    """The URL of a new, empty schema, which is dropped at the end."""
    name = f"trendrag_test_{secrets.token_hex(6)}"
    server = create_engine(make_url(SERVER).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
    except OperationalError as error:
        pytest.fail(f"No PostgreSQL at TRENDRAG_TEST_POSTGRES_URL ({error.orig}). `.ci/run` starts one.", pytrace=False)
    try:
        yield make_url(SERVER).update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
        server.dispose()
