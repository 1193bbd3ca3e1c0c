"""A database of any version becomes one of this version, whole, or is left alone."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, insert, inspect, text

from ingest.database import TRENDS, engine_of
from ingest.schema import Base
from ingest.states import FetchStates
from ingest.store import ObservationStore, _row
from tests.ingest.fakes import seen, source
from tests.ingest.test_states import FEED, FULL
from tests.ingest.test_store import LONG_AGO
from trendrag.database import DatabaseKind
from trendrag.errors import ConfigurationError
from trendrag.settings import Settings

KNOWN = seen("latte art", news=["A headline"], volume=9)
OPENER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from ingest.database import TRENDS
from trendrag.database import open_engine
engine = open_engine(TRENDS.address(SecretStr(sys.argv[1]), Path()))
sys.stdin.read()  # until all are ready
TRENDS.bring_up_to_date(engine)
"""


@pytest.fixture
def engine(database_settings: Settings) -> Iterator[Engine]:
    made = engine_of(database_settings)
    yield made
    made.dispose()


def test_the_revisions_are_one_line_and_the_last_file_is_its_end() -> None:
    config = Config()
    config.set_main_option("script_location", str(TRENDS.revisions))
    revisions = ScriptDirectory.from_config(config)
    assert revisions.get_heads() == [TRENDS.newest_version()]
    line = [Path(revision.path).name for revision in revisions.walk_revisions()]
    assert line == sorted((file.name for file in Path(revisions.versions).glob("*.py")), reverse=True)
    assert [name[:4] for name in line] == [revision.revision for revision in revisions.walk_revisions()]


def test_migrations_and_tables_agree(engine: Engine) -> None:
    TRENDS.bring_up_to_date(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_comparison_sees_a_difference(engine: Engine) -> None:
    TRENDS.bring_up_to_date(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX observation_at"))
        connection.execute(text("ALTER TABLE fetch_state ADD COLUMN more VARCHAR"))
        assert len(compare_metadata(MigrationContext.configure(connection), Base.metadata)) == 2


@pytest.fixture
def unversioned(engine: Engine) -> Engine:
    """A database as it was made before there were versions, with one observation in it."""
    with engine.begin() as connection:
        TRENDS.upgrade(connection, "0001")
        connection.execute(text("DROP TABLE alembic_version"))
    fields = {
        name: round(value.timestamp() * 1e6) if isinstance(value, datetime) else value
        for name, value in _row(KNOWN).items()
    }
    with engine.begin() as connection:
        connection.execute(insert(Table("observation", MetaData(), autoload_with=connection)).values(fields))
    return engine


def test_a_database_from_before_there_were_versions_is_taken_over_with_all_it_holds(
    unversioned: Engine, database_settings: Settings
) -> None:
    store = ObservationStore.of(database_settings)
    assert store.latest(LONG_AGO) == [KNOWN]
    assert store.add([KNOWN]) == 0
    FetchStates(store.engine).save(source(FEED), FULL)
    store.close()
    with unversioned.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_database_from_before_there_were_states_gets_their_table(
    unversioned: Engine, database_settings: Settings
) -> None:
    with unversioned.begin() as connection:
        connection.execute(text("DROP TABLE fetch_state"))
    store = ObservationStore.of(database_settings)
    FetchStates(store.engine).save(source(FEED), FULL)
    assert FetchStates(store.engine).load([source(FEED)]) == {"feed": FULL}
    assert store.latest(LONG_AGO) == [KNOWN]
    store.close()


def test_a_newer_database_is_a_clear_error_and_not_touched(engine: Engine, database_settings: Settings) -> None:
    TRENDS.bring_up_to_date(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DROP TABLE fetch_state"))
    with pytest.raises(ConfigurationError, match="newer TrendRAG made this trend database"):
        ObservationStore.of(database_settings)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables} - {"fetch_state"}


def test_a_migration_that_fails_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_at_its_end(kind: DatabaseKind, connection: Connection) -> None:
        upgrade(kind, connection)
        raise ZeroDivisionError

    upgrade = DatabaseKind.upgrade
    monkeypatch.setattr(DatabaseKind, "upgrade", fails_at_its_end)
    with pytest.raises(ZeroDivisionError):
        TRENDS.bring_up_to_date(engine)
    assert inspect(engine).get_table_names() == []
    monkeypatch.undo()
    TRENDS.bring_up_to_date(engine)
    assert "observation" in inspect(engine).get_table_names()


def test_processes_that_open_a_new_database_at_the_same_moment_all_succeed(engine: Engine) -> None:
    url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
    command = [sys.executable, "-c", OPENER, url]
    openers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(4)
    ]
    for each in openers:
        assert each.stdin
        each.stdin.close()
    said = [each.stderr.read() for each in openers if each.stderr]
    assert ([each.wait() for each in openers], said) == ([0] * 4, [""] * 4)
    assert "observation" in inspect(engine).get_table_names()


def test_a_database_that_is_up_to_date_opens_without_alembic(engine: Engine) -> None:
    TRENDS.bring_up_to_date(engine)
    url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
    code = OPENER + "print([name for name in sys.modules if name.startswith(('alembic', 'mako'))])"
    done = subprocess.run([sys.executable, "-c", code, url], input="", capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"
