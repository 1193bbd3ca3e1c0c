"""The service database comes into being at its first use, and its absence is an error that captions survive."""

import asyncio
import os
import stat
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from serving.store.database import SERVICE, Database
from serving.store.tables import Base, FavouriteRow, KeyRow
from tests.fakes import NOW
from trendrag.errors import ConfigurationError, StorageError
from trendrag.settings import ServerSettings, Settings

KEY = {"id": "k1", "name": "mine", "hash": "0" * 64, "scopes": ["captions"], "created_at": NOW}


async def test_what_is_written_is_there_for_the_next_process(database: Database, service_settings: Settings) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(KeyRow).values(KEY))
    await database.aclose()
    again = Database.of(service_settings)
    async with again.begin() as connection:
        found = (await connection.execute(select(KeyRow.name, KeyRow.created_at))).one()
    await again.aclose()
    assert tuple(found) == ("mine", NOW)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
async def test_a_new_file_is_for_its_owner_alone(settings: Settings) -> None:
    database = Database.of(settings)
    async with database.begin() as connection:
        await connection.execute(insert(KeyRow).values(KEY))
        files = sorted(settings.service_database_path.parent.glob("service.sqlite3*"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}
    assert modes == dict.fromkeys(["service.sqlite3", "service.sqlite3-shm", "service.sqlite3-wal"], 0o600)
    await database.aclose()
    settings.service_database_path.chmod(0o640)  # a group that reads it for a backup
    again = Database.of(settings)
    async with again.begin():
        pass
    await again.aclose()
    assert stat.S_IMODE(settings.service_database_path.stat().st_mode) == 0o640


async def test_tables_and_revisions_agree(database: Database) -> None:
    def difference(connection: Connection) -> list[object]:
        options = {"version_table": SERVICE.version_table}
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
        return found

    async with database.begin() as connection:
        assert await connection.run_sync(difference) == []


async def test_an_error_takes_the_whole_transaction_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            await connection.execute(insert(KeyRow).values(KEY))
            raise ZeroDivisionError
    async with database.begin() as connection:
        assert await connection.scalar(select(func.count()).select_from(KeyRow)) == 0


async def test_a_favourite_of_no_caption_is_refused(database: Database) -> None:
    with pytest.raises(StorageError) as raised:
        async with database.begin() as connection:
            row = {"caption": "none", "candidate": 0, "owner": "local", "created_at": NOW}
            await connection.execute(insert(FavouriteRow).values(row))
    assert isinstance(raised.value.__cause__, IntegrityError)


@pytest.mark.parametrize("steps", range(12))
async def test_who_leaves_while_a_connection_is_opened_leaves_none_behind(settings: Settings, steps: int) -> None:
    async def ask() -> None:
        async with database.begin() as connection:
            await connection.execute(select(func.count()).select_from(KeyRow))

    before = set(threading.enumerate())
    database = Database.of(settings)
    await ask()
    await database.aclose()  # the next one opens a connection
    asking = asyncio.create_task(ask())
    for _ in range(steps):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await database.aclose()
    of_loop = {thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")}
    for thread in set(threading.enumerate()) - before - of_loop:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()


async def test_many_first_users_at_once_all_succeed(database: Database) -> None:
    async def count() -> int | None:
        async with database.begin() as connection:
            return await connection.scalar(select(func.count()).select_from(KeyRow))

    assert await asyncio.gather(*(count() for _ in range(8))) == [0] * 8


async def test_a_database_that_is_away_is_an_error_at_each_use_and_none_before(settings: Settings) -> None:
    away = ServerSettings(database_url=SecretStr("postgresql://me:s3cret@127.0.0.1:1/db"))
    database = Database.of(settings.model_copy(update={"server": away}))
    for _ in range(2):
        with pytest.raises(StorageError, match="can't be used now") as raised:
            async with database.begin():
                pass
        assert "s3cret" not in str(raised.value)
    await database.aclose()


async def test_a_database_of_a_newer_trendrag_is_left_alone(database: Database, service_settings: Settings) -> None:
    async with database.begin() as connection:
        await connection.exec_driver_sql("UPDATE service_version SET version_num = '9999'")
    again = Database.of(service_settings)
    with pytest.raises(ConfigurationError, match="newer TrendRAG made this service database"):
        async with again.begin():
            pass
    await again.aclose()


def test_a_url_that_can_not_be_used_names_its_setting(settings: Settings) -> None:
    wrong = ServerSettings(database_url=SecretStr("mysql://me:s3cret@host/db"))
    with pytest.raises(ConfigurationError, match=r"TRENDRAG_SERVER__DATABASE_URL names mysql") as raised:
        Database.of(settings.model_copy(update={"server": wrong}))
    assert "s3cret" not in str(raised.value)
