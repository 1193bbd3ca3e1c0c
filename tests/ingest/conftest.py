"""Stores on every database that TrendRAG takes; `tests/databases.py` says when PostgreSQL is among them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.store import ObservationStore
from tests.databases import DATABASES, database_of
from trendrag.settings import Settings


@pytest.fixture(params=DATABASES)
def database_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Default settings with a data directory of the test's own and an empty database, of each kind in turn."""
    with database_of(request.param, Settings(data_dir=tmp_path / "var")) as settings:
        yield settings


@pytest.fixture
def store(database_settings: Settings) -> Iterator[ObservationStore]:
    made = ObservationStore.of(database_settings)
    yield made
    made.close()
