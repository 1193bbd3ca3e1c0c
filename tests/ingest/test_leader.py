"""Locks by name, between instances and between processes, at every database."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ingest.database import engine_of
from ingest.leader import _SessionLock, named_lock
from ingest.store import ObservationStore
from tests import databases
from trendrag.errors import ConfigurationError
from trendrag.settings import Settings

HOLDER = """
import signal, sys
from pathlib import Path
from pydantic import SecretStr
from ingest.database import TRENDS
from ingest.leader import named_lock
from trendrag.database import open_engine
lock = named_lock(open_engine(TRENDS.address(SecretStr(sys.argv[1]), Path())), "refresh")
print(lock.acquire(), flush=True)
signal.pause()
"""


@pytest.fixture
def engine(database_settings: Settings) -> Iterator[Engine]:
    made = engine_of(database_settings)
    yield made
    made.dispose()


def test_one_at_a_time_holds_a_name(engine: Engine) -> None:
    first, second, other = named_lock(engine, "refresh"), named_lock(engine, "refresh"), named_lock(engine, "schedule")
    assert first.acquire()
    assert first.acquire()
    assert (second.acquire(), second.held(), first.held()) == (False, False, True)
    assert other.acquire()
    first.release()
    first.release()
    assert (first.held(), second.acquire()) == (False, True)
    second.release()
    other.release()


def test_a_block_holds_it_and_gives_it_back_also_after_an_error(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), named_lock(engine, "refresh") as mine:
        assert mine
        with named_lock(engine, "refresh") as also_mine:
            assert not also_mine
        assert not named_lock(engine, "refresh").acquire()  # the inner block has given nothing back
        raise ZeroDivisionError
    with named_lock(engine, "refresh") as mine:
        assert mine


def test_a_killed_process_holds_nothing(engine: Engine) -> None:
    url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "True\n"
        mine = named_lock(engine, "refresh")
        assert not mine.acquire()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    # A kernel frees it with the process; a server needs a moment to see that its client is gone.
    assert any(mine.acquire() for _ in range(10_000))
    mine.release()


@pytest.mark.parametrize("database_settings", ["sqlite"], indirect=True)
def test_databases_do_not_share_locks(engine: Engine, tmp_path: Path) -> None:
    elsewhere = ObservationStore.at(tmp_path / "other.sqlite3")
    with named_lock(engine, "refresh") as mine, named_lock(elsewhere.engine, "refresh") as theirs:
        assert mine
        assert theirs
    elsewhere.close()


def test_a_database_in_memory_has_nobody_to_share_with() -> None:
    store = ObservationStore.in_memory()
    lock = named_lock(store.engine, "refresh")
    assert (lock.held(), lock.acquire(), lock.held()) == (False, True, True)
    lock.release()
    assert not lock.held()
    store.close()


@pytest.mark.parametrize("database_settings", ["sqlite"], indirect=True)
def test_a_place_that_can_not_be_locked_is_a_clear_error(engine: Engine) -> None:
    Path(f"{engine.url.database}.refresh.lock").mkdir()
    with pytest.raises(ConfigurationError, match="can't be locked"):
        named_lock(engine, "refresh").acquire()


@pytest.mark.parametrize("database_settings", [databases.POSTGRESQL], indirect=True)
def test_a_holder_notices_that_its_session_has_ended(engine: Engine) -> None:
    lock = named_lock(engine, "refresh")
    assert lock.acquire()
    assert isinstance(lock, _SessionLock)
    assert lock._session
    session = lock._session.scalar(text("SELECT pg_backend_pid()"))
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:session)"), {"session": session})
    assert not lock.held()
    assert lock.acquire()
    lock.release()
