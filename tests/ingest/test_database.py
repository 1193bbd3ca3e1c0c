"""How the database of the settings is reached, and what is said where that is impossible."""

import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.database import engine_of
from ingest.store import ObservationStore
from tests.ingest.fakes import seen
from trendrag.errors import ConfigurationError
from trendrag.settings import IngestSettings, Settings


def with_url(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"ingest": IngestSettings(database_url=SecretStr(url))})


def test_by_default_it_is_a_file_in_the_data_directory(settings: Settings) -> None:
    store = ObservationStore.of(settings)
    assert store.add([seen("latte art")]) == 1
    store.close()
    assert settings.database_path.is_file()


@pytest.mark.parametrize("name", ["t.sqlite3", "50% of #1?.sqlite3"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    ObservationStore.at(tmp_path / name).close()
    assert (tmp_path / name).is_file()


def test_a_url_may_name_a_file_elsewhere(settings: Settings, tmp_path: Path) -> None:
    ObservationStore.of(with_url(settings, f"sqlite:///{tmp_path}/elsewhere/t.sqlite3")).close()
    assert (tmp_path / "elsewhere" / "t.sqlite3").is_file()
    assert not settings.database_path.exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_reached_by_psycopg(scheme: str, settings: Settings) -> None:
    engine = engine_of(with_url(settings, f"{scheme}://someone:s%40crt@db.example:6543/trends"))
    assert (engine.dialect.name, engine.dialect.driver) == ("postgresql", "psycopg")
    assert (engine.url.host, engine.url.port, engine.url.password) == ("db.example", 6543, "s@crt")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3cret", "is no database URL"),
        ("postgresql://me:s3cret@host:port/db", "is no database URL"),
        ("mysql://me:s3cret@host/db", "mysql, which is not taken"),
        ("postgresql+asyncpg://me:s3cret@host/db", "postgresql.asyncpg, which is not taken"),
        ("sqlite://", "sqlite, which is not taken"),
        ("postgresql://me:s3cret@127.0.0.1:1/db", "trend database can't be used"),
        ("postgresql://me:s3cret@127.0.0.1:1/db?no_such_option=1", "trend database can't be used"),
    ],
)
def test_what_can_not_be_used_is_a_clear_error_without_the_password(settings: Settings, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        ObservationStore.of(with_url(settings, url))
    assert "s3cret" not in str(raised.value)


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match="extra `postgresql`"):
        engine_of(with_url(settings, "postgresql://host/db"))
