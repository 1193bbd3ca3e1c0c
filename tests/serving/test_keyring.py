"""Whether a key is good, on both databases: seen from several servers, and while the database is away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import event

from serving.identity.keyring import FRESH, GRACE, NOTED, RETRY, Keyring
from serving.identity.keys import ApiKey, Claim
from serving.identity.store import KeyStore
from serving.store.database import Database
from tests.fakes import NOW
from tests.serving.identities import Clock, away, claim_of, made
from trendrag.errors import StorageError
from trendrag.settings import Settings

LIMIT_S = 60
"""Safety net of a test that would otherwise hang; no test measures time."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
async def keyring(store: KeyStore, clock: Clock) -> AsyncIterator[Keyring]:
    opened = Keyring(store, clock)
    yield opened
    await opened.aclose()


def statements(database: Database) -> list[str]:
    """What it is asked from now on."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    return seen


async def test_a_key_is_good_and_what_it_may_is_told(keyring: Keyring, store: KeyStore) -> None:
    key, kept = await made(store, ["metrics"], captions_per_day=7, expires_at=NOW + timedelta(days=1))
    found = await keyring.check(claim_of(key))
    assert isinstance(found, ApiKey)
    assert (found.id, found.scopes, found.captions_per_day) == (kept.id, frozenset({"metrics"}), 7)
    assert (found.expires_at, found.created_at) == (kept.expires_at, NOW)


async def test_what_nobody_made_is_unknown(keyring: Keyring, store: KeyStore) -> None:
    key, kept = await made(store)
    assert await keyring.check(Claim("0" * 12, claim_of(key).secret)) == "unknown"
    assert await keyring.check(Claim(kept.id, "x" * 43)) == "unknown"
    await keyring.check(claim_of(key))
    assert await keyring.check(Claim(kept.id, "x" * 43)) == "unknown"  # from memory, too


async def test_guessing_leaves_nothing_in_memory(keyring: Keyring) -> None:
    for number in range(50):
        await keyring.check(Claim(f"{number:012}", "x" * 43))
    assert not keyring._held


async def test_a_key_ends_on_time_though_it_was_good_a_moment_before(
    keyring: Keyring, store: KeyStore, clock: Clock
) -> None:
    key, _ = await made(store, expires_at=NOW + timedelta(seconds=2))
    assert isinstance(await keyring.check(claim_of(key)), ApiKey)
    clock.pass_(seconds=2)
    assert await keyring.check(claim_of(key)) == "expired"


async def test_a_key_revoked_on_one_server_is_refused_on_all_within_seconds(
    keyring: Keyring, store: KeyStore, clock: Clock, service_settings: Settings
) -> None:
    key, kept = await made(store)
    assert isinstance(await keyring.check(claim_of(key)), ApiKey)
    elsewhere = Database.of(service_settings)
    revoked = await KeyStore(elsewhere).revoke(kept.id, clock())
    await elsewhere.aclose()
    assert revoked is not None
    assert revoked.revoked_at == NOW
    clock.at += FRESH
    assert await keyring.check(claim_of(key)) == "revoked"


async def test_a_key_that_is_gone_from_the_database_is_unknown(
    keyring: Keyring, store: KeyStore, clock: Clock, database: Database
) -> None:
    key, _ = await made(store)
    await keyring.check(claim_of(key))
    async with database.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM api_key")
    clock.at += FRESH
    assert await keyring.check(claim_of(key)) == "unknown"
    async with away(database):
        with pytest.raises(StorageError):  # it was good once, and that is forgotten
            await keyring.check(claim_of(key))


async def test_a_clock_that_was_set_back_makes_no_key_last_longer(
    keyring: Keyring, store: KeyStore, clock: Clock
) -> None:
    key, kept = await made(store)
    await keyring.check(claim_of(key))
    await store.revoke(kept.id, clock())
    clock.pass_(hours=-1)
    assert await keyring.check(claim_of(key)) == "revoked"


async def test_requests_ask_the_database_once_in_a_while_and_write_still_less(
    keyring: Keyring, store: KeyStore, clock: Clock, database: Database
) -> None:
    key, _ = await made(store)
    await keyring.check(claim_of(key))
    await keyring.aclose()
    seen = statements(database)
    for _ in range(100):
        await keyring.check(claim_of(key))
    assert seen == []
    clock.at += FRESH
    for _ in range(100):
        await keyring.check(claim_of(key))
    assert [statement.split()[0] for statement in seen] == ["SELECT"]


async def test_the_last_use_is_kept_to_the_minute(keyring: Keyring, store: KeyStore, clock: Clock) -> None:
    key, kept = await made(store)

    async def last_use() -> timedelta | None:
        await keyring.aclose()
        found = await store.find(kept.id)
        assert found is not None
        return None if found.last_used_at is None else found.last_used_at - NOW

    assert await last_use() is None
    await keyring.check(Claim(kept.id, "x" * 43))
    assert await last_use() is None
    await keyring.check(claim_of(key))
    assert await last_use() == timedelta(0)
    clock.at += NOTED - timedelta(seconds=1)
    await keyring.check(claim_of(key))
    assert await last_use() == timedelta(0)
    clock.pass_(seconds=1)
    await keyring.check(claim_of(key))
    assert await last_use() == NOTED
    await store.used(kept.id, NOW)  # a slower server
    assert await last_use() == NOTED


async def test_known_keys_go_on_for_a_while_when_the_database_is_away(
    keyring: Keyring, store: KeyStore, clock: Clock, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    known, kept = await made(store)
    other, _ = await made(store)
    await keyring.check(claim_of(known))
    async with away(database):
        clock.at += FRESH
        for _ in range(3):
            assert isinstance(await keyring.check(claim_of(known)), ApiKey)
            assert await keyring.check(Claim(kept.id, "x" * 43)) == "unknown"
            with pytest.raises(StorageError, match="can't be checked now"):
                await keyring.check(claim_of(other))
            clock.at += RETRY
        clock.at = NOW + GRACE - timedelta(seconds=1)
        assert isinstance(await keyring.check(claim_of(known)), ApiKey)
        clock.at = NOW + GRACE
        with pytest.raises(StorageError):
            await keyring.check(claim_of(known))
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    clock.at += RETRY
    assert isinstance(await keyring.check(claim_of(known)), ApiKey)
    assert isinstance(await keyring.check(claim_of(other)), ApiKey)
    assert "keys can be checked again" in caplog.text
    for key in (known, other):
        assert claim_of(key).secret not in caplog.text


async def test_a_database_that_is_away_is_not_asked_by_every_request(
    keyring: Keyring, store: KeyStore, clock: Clock, database: Database
) -> None:
    key, _ = await made(store)
    async with away(database):
        seen = statements(database)
        for _ in range(20):
            with pytest.raises(StorageError):
                await keyring.check(claim_of(key))
        assert len(seen) == 1
        clock.at += RETRY
        with pytest.raises(StorageError):
            await keyring.check(claim_of(key))
        assert len(seen) == 2


async def test_nobody_queues_behind_a_slow_database(store: KeyStore, clock: Clock) -> None:
    """While one request asks about a key, others with the same key go on."""
    key, _ = await made(store)
    asked, answer = asyncio.Event(), asyncio.Event()
    slow = False

    class Slow(KeyStore):
        async def find(self, key_id: str) -> ApiKey | None:
            if slow:
                asked.set()
                await answer.wait()
            return await store.find(key_id)

    keyring = Keyring(Slow(store._database), clock)
    await keyring.check(claim_of(key))
    slow = True
    clock.at += FRESH
    first = asyncio.create_task(keyring.check(claim_of(key)))
    async with asyncio.timeout(LIMIT_S):
        await asked.wait()
        assert isinstance(await keyring.check(claim_of(key)), ApiKey)
    await store.revoke(claim_of(key).id, clock())
    answer.set()
    assert await first == "revoked"
    assert await keyring.check(claim_of(key)) == "revoked"
    await keyring.aclose()


async def test_a_request_that_is_stopped_while_it_asks_leaves_the_question_open(store: KeyStore, clock: Clock) -> None:
    key, kept = await made(store)
    ask: Callable[[str], Awaitable[ApiKey | None]] = store.find

    class Stopping(KeyStore):
        async def find(self, key_id: str) -> ApiKey | None:
            return await ask(key_id)

    keyring = Keyring(Stopping(store._database), clock)
    await keyring.check(claim_of(key))
    await store.revoke(kept.id, clock())
    clock.at += FRESH

    async def stopped(_: str) -> ApiKey | None:
        raise asyncio.CancelledError

    ask = stopped
    with pytest.raises(asyncio.CancelledError):
        await keyring.check(claim_of(key))
    ask = store.find
    assert await keyring.check(claim_of(key)) == "revoked"
    await keyring.aclose()
