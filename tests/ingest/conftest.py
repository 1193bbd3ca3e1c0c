"""Stores on every database that TrendRAG takes; `tests/ingest/databases.py` says when PostgreSQL is among them."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from ingest.store import ObservationStore
from tests.ingest import databases
from trendrag.settings import Settings


@pytest.fixture(params=databases.DATABASES)
def database_settings(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """``settings`` with a database that is empty, of each kind in turn."""
    if request.param == "sqlite":
        yield settings
        return
    with databases.schema() as url:
        ingest = settings.ingest.model_copy(update={"database_url": SecretStr(url)})
        yield settings.model_copy(update={"ingest": ingest})


@pytest.fixture
def store(database_settings: Settings) -> Iterator[ObservationStore]:
    made = ObservationStore.of(database_settings)
    yield made
    made.close()
