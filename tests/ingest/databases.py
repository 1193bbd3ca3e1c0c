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
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

SERVER = os.environ.get("TRENDRAG_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.services)
DATABASES = ["sqlite", POSTGRESQL]
"""Parameters of ``database_settings``."""


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
