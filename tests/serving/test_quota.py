"""Captions counted by key and day, on both databases: never one too many, whatever comes at once."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.identity.keyring import RETRY
from serving.identity.keys import ApiKey
from serving.identity.quota import Quota, QuotaExceeded, Use, seconds_to_midnight
from serving.identity.store import KEEP_USE, KeyStore
from serving.store.database import Database
from tests.fakes import NOW
from tests.serving.identities import Clock, away, made
from trendrag.settings import Settings
from trendrag.types import CandidateDone, CandidateFailed, CaptionEvent, Delta, Done, Failed, Timings, Usage

WRITTEN = CandidateDone(candidate=0, text="x", confidence=None, trend_ids=())
FAILED = Failed(code="model_timeout", message="too slow")
ONE_FAILED = CandidateFailed(candidate=1, code="model_timeout", message="too slow")
DONE = Done(model="m", draft=False, usage=Usage(), timings=Timings(total=1), snapshot_id=None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def quota(store: KeyStore, clock: Clock) -> Quota:
    return Quota(store, clock)


@pytest.fixture
async def key(store: KeyStore) -> ApiKey:
    return (await made(store, captions_per_day=10))[1]


async def used(store: KeyStore, key: ApiKey) -> int:
    return (await store.uses(NOW.date())).get(key.id, 0)


async def test_a_hundred_at_once_on_several_servers_get_ten(
    service_settings: Settings, store: KeyStore, clock: Clock, key: ApiKey
) -> None:
    servers = [Database.of(service_settings) for _ in range(3)]
    quotas = [Quota(KeyStore(server), clock) for server in servers]
    taken = await asyncio.gather(*(quotas[n % 3].take(key, 1) for n in range(100)), return_exceptions=True)
    for server in servers:
        await server.aclose()
    assert len([use for use in taken if isinstance(use, Use)]) == 10
    assert len([use for use in taken if isinstance(use, QuotaExceeded)]) == 90
    assert await used(store, key) == 10


async def test_candidates_count_all_or_none(quota: Quota, store: KeyStore, key: ApiKey) -> None:
    await quota.take(key, 8)
    with pytest.raises(QuotaExceeded) as refused:
        await quota.take(key, 3)
    assert (refused.value.limit, refused.value.retry_after) == (10, 12 * 3600)
    await quota.take(key, 2)
    assert await used(store, key) == 10


async def test_more_than_a_day_holds_is_refused_on_a_new_day_too(quota: Quota, store: KeyStore, key: ApiKey) -> None:
    with pytest.raises(QuotaExceeded):
        await quota.take(key, 11)
    assert await used(store, key) == 0


async def test_the_next_day_is_another(quota: Quota, clock: Clock, key: ApiKey) -> None:
    clock.at = datetime(2026, 11, 20, 23, 59, 59, 999_999, UTC)
    await quota.take(key, 10)
    with pytest.raises(QuotaExceeded) as refused:
        await quota.take(key, 1)
    assert refused.value.retry_after == 1
    clock.pass_(microseconds=1)
    await quota.take(key, 10)


async def test_keys_count_for_themselves(quota: Quota, store: KeyStore, key: ApiKey) -> None:
    _, other = await made(store, captions_per_day=10)
    await quota.take(key, 10)
    await quota.take(other, 10)


async def test_counts_of_days_long_over_are_removed_and_no_others(
    quota: Quota, store: KeyStore, clock: Clock, key: ApiKey
) -> None:
    await quota.take(key, 1)
    clock.pass_(days=1)
    await quota.take(key, 2)
    assert await store.prune(NOW + KEEP_USE) == 0
    assert await store.prune(NOW + KEEP_USE + timedelta(days=1)) == 1
    assert await store.uses(NOW.date()) == {}
    assert await store.uses(clock.at.date()) == {key.id: 2}


async def test_what_has_no_limit_is_not_counted(quota: Quota, store: KeyStore) -> None:
    _, unlimited = await made(store)
    for _ in range(3):
        await quota.take(unlimited, 8)
        await quota.take(None, 8)
    assert await store.uses(NOW.date()) == {}


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([WRITTEN, WRITTEN, WRITTEN, DONE], 3),
        ([WRITTEN, ONE_FAILED, WRITTEN, DONE], 2),
        ([WRITTEN, ONE_FAILED, Delta(candidate=2, text="the client left here")], 2),
        ([ONE_FAILED, FAILED], 0),
        ([FAILED], 0),
        ([WRITTEN, Delta(candidate=1, text="half"), FAILED], 1),
        ([WRITTEN, Delta(candidate=1, text="the client left here")], 3),
    ],
)
async def test_what_failed_is_given_back_and_what_was_not_waited_for_is_not(
    quota: Quota, store: KeyStore, key: ApiKey, events: list[CaptionEvent], kept: int
) -> None:
    await quota.take(key, 2)
    async with quota.counted(key, 3) as use:
        assert await used(store, key) == 5
        for event in events:
            use.event(event)
    assert await used(store, key) == 2 + kept


async def test_it_is_given_back_to_the_day_that_it_was_taken_from(
    quota: Quota, store: KeyStore, clock: Clock, key: ApiKey
) -> None:
    async with quota.counted(key, 3) as use:
        clock.pass_(days=1)
        await quota.take(key, 10)
        use.event(FAILED)
    assert await used(store, key) == 0
    with pytest.raises(QuotaExceeded):
        await quota.take(key, 1)


async def test_an_error_meanwhile_is_not_swallowed(quota: Quota, key: ApiKey) -> None:
    with pytest.raises(ZeroDivisionError):
        async with quota.counted(key, 1) as use:
            use.event(FAILED)
            raise ZeroDivisionError


async def test_captions_go_on_uncounted_while_the_database_is_away_and_that_is_said_once(
    quota: Quota, store: KeyStore, clock: Clock, key: ApiKey, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await quota.take(key, 10)
    async with away(database):
        for _ in range(3):
            async with quota.counted(key, 8) as use:
                use.event(FAILED)
            clock.at += RETRY
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    with pytest.raises(QuotaExceeded):
        await quota.take(key, 1)
    assert "quotas are counted again" in caplog.text
    assert await used(store, key) == 10


@given(st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_waiting_so_long_ends_in_the_next_day_and_a_second_less_does_not(now: datetime) -> None:
    wait = seconds_to_midnight(now)
    assert 1 <= wait <= 86_400
    assert (now + timedelta(seconds=wait)).date() == now.date() + timedelta(days=1)
    assert (now + timedelta(seconds=wait - 1)).date() == now.date()
