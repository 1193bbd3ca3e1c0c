"""How much a caller may: one suite for counters in memory and in a real Redis; what follows from time by a clock of the
test's own."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from serving import redis_link
from serving.limits import Allowance, Busy, Counters, Limits, MemoryCounters, SharedCounters, open_limits
from serving.redis_link import open_redis
from tests.serving.clocks import Clock
from tests.serving.redises import REDIS, door, emptied
from trendrag.errors import ConfigurationError
from trendrag.settings import LimitSettings, ServerSettings, Settings

ALLOWANCE = Allowance(requests_per_minute=3, captions_per_day=10, concurrent=2)


@pytest.fixture(autouse=True)
def a_patient_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Redis is not away for being slow; a test in which it hangs says so."""
    monkeypatch.setattr(redis_link, "CALL_S", 10)


@pytest.fixture(params=["memory", REDIS])
async def counters(request: pytest.FixtureRequest) -> AsyncIterator[Counters]:
    if request.param == "memory":
        yield MemoryCounters()
        return
    async with emptied() as url, open_redis(url, "limits") as link:
        yield SharedCounters(link, MemoryCounters())
        assert link.up, "what was tested is Redis"


async def test_so_many_and_no_more_and_each_caller_for_itself(counters: Counters) -> None:
    limits = Limits(counters, ALLOWANCE)
    standings = [await limits.request("key:a", ALLOWANCE) for _ in range(4)]
    assert [standing and standing.remaining for standing in standings] == [2, 1, 0, 0]
    assert [standing and standing.refused is None for standing in standings] == [True, True, True, False]
    refused = standings[-1]
    assert refused is not None
    assert (refused.name, refused.quota, refused.window_s) == ("requests", 3, 60)
    # The minute's requests fade out one by one once it is over.
    assert refused.refused is not None
    assert 60 <= refused.refused <= 61
    other = await limits.request("key:b", ALLOWANCE)
    assert other is not None
    assert other.refused is None


async def test_captions_are_charged_all_or_none(counters: Counters) -> None:
    limits = Limits(counters, ALLOWANCE)
    told = [await limits.captions("key:a", ALLOWANCE, candidates) for candidates in (8, 3, 2, 1)]
    assert [each and (each.remaining, each.refused is None) for each in told] == [
        (2, True),
        (2, False),
        (0, True),
        (0, False),
    ]


async def test_zero_is_no_limit(counters: Counters) -> None:
    limits, free = Limits(counters, ALLOWANCE), Allowance(0, 0, 0)
    assert await limits.request("key:a", free) is None
    assert await limits.captions("key:a", free, 8) is None
    with limits.running("key:a", free), limits.running("key:a", free), limits.running("key:a", free):
        pass


async def test_many_at_once_never_get_more_than_there_is(counters: Counters) -> None:
    limits, allowance = Limits(counters, ALLOWANCE), Allowance(20, 0, 0)
    standings = await asyncio.gather(*(limits.request("key:a", allowance) for _ in range(60)))
    assert sum(standing is not None and standing.refused is None for standing in standings) == 20


def test_captions_at_a_time_are_given_back_whatever_happens() -> None:
    limits = Limits(MemoryCounters(), ALLOWANCE)
    with limits.running("key:a", ALLOWANCE):
        with limits.running("key:a", ALLOWANCE):
            with pytest.raises(Busy), limits.running("key:a", ALLOWANCE):
                pass
            with limits.running("key:b", ALLOWANCE):
                pass
        with pytest.raises(RuntimeError), limits.running("key:a", ALLOWANCE):
            raise RuntimeError
        with limits.running("key:a", ALLOWANCE):
            pass


@given(
    quota=st.integers(1, 40),
    asked=st.lists(st.tuples(st.floats(0, 70_000), st.integers(1, 8)), max_size=30),
    amount=st.integers(1, 8),
)
def test_who_waits_as_told_gets_it_and_not_much_sooner(quota: int, asked: list[tuple[float, int]], amount: int) -> None:
    async def run() -> None:
        clock = Clock()
        allowance = Allowance(0, max(quota, amount), 0)
        limits = Limits(MemoryCounters(clock=clock), allowance)

        async def granted_or_wait(candidates: int) -> int | None:
            standing = await limits.captions("a", allowance, candidates)
            assert standing is not None
            return standing.refused

        for pause, candidates in asked:
            clock.advance(pause)
            await granted_or_wait(candidates)
        while (wait := await granted_or_wait(amount)) is None:
            pass
        at = clock.now
        if wait > 2:
            clock.now = at + wait - 1.1
            assert await granted_or_wait(amount) is not None
        clock.now = at + wait
        assert await granted_or_wait(amount) is None

    asyncio.run(run())


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 5)), max_size=40), st.integers(1, 10))
def test_no_minute_holds_more_than_twice_the_quota_and_the_long_run_holds_the_quota(
    asked: list[tuple[float, int]], quota: int
) -> None:
    """A sliding window of two counters approximates: it errs by less than one window's worth."""

    async def run() -> None:
        clock = Clock()
        limits = Limits(MemoryCounters(clock=clock), ALLOWANCE)
        granted: list[float] = []
        for pause, times in asked:
            clock.advance(pause)
            for _ in range(times):
                standing = await limits.request("a", Allowance(quota, 0, 0))
                if standing is not None and standing.refused is None:
                    granted.append(clock.now)
        for start in granted:
            assert sum(start <= at < start + 60 for at in granted) <= 2 * quota
        if granted:
            minutes = (granted[-1] - granted[0]) / 60 + 2
            assert len(granted) <= quota * minutes

    asyncio.run(run())


async def test_memory_holds_so_many_counters_and_forgets_the_one_that_rested_longest() -> None:
    counters = MemoryCounters(capacity=2)
    for key in ("a", "b", "a", "c"):
        await counters.acquire_sliding_window_entry(key, 10, 60)
    held = {key: (await counters.get_sliding_window(key, 60))[2] for key in ("a", "b", "c")}
    assert held == {"a": 2, "b": 0, "c": 1}


async def test_a_counter_that_rested_for_two_windows_is_new() -> None:
    clock = Clock()
    counters = MemoryCounters(clock=clock)
    await counters.acquire_sliding_window_entry("a", 1, 60)
    clock.advance(119.9)
    assert (await counters.get_sliding_window("a", 60))[0] == 1
    clock.advance(0.2)
    assert tuple(await counters.get_sliding_window("a", 60)) == (0, 0.0, 0, 0.0)


@pytest.mark.services
async def test_two_servers_share_what_is_left() -> None:
    async with emptied() as url, open_redis(url, "limits") as one, open_redis(url, "limits") as other:
        servers = [Limits(SharedCounters(link, MemoryCounters()), ALLOWANCE) for link in (one, other)]
        granted = [await servers[turn % 2].request("key:a", ALLOWANCE) for turn in range(5)]
        assert [each and each.refused is None for each in granted] == [True, True, True, False, False]


@pytest.mark.services
@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_redis_goes_away_and_comes_back(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.redis_link")
    clock = Clock()
    async with door() as redis, open_redis(redis.url, "limits", clock) as link:
        limits = Limits(SharedCounters(link, MemoryCounters()), ALLOWANCE, link)
        assert (await limits.request("key:a", ALLOWANCE)) is not None
        assert limits.redis_up is True
        if how == "refuses":
            await redis.shut()
        else:
            redis.freeze()
            monkeypatch.setattr(redis_link, "CALL_S", 0.05)
        # In memory the count begins anew, and is a count.
        standings = [await limits.request("key:a", ALLOWANCE) for _ in range(4)]
        assert [each and each.refused is None for each in standings] == [True, True, True, False]
        assert limits.redis_up is False
        # Nothing is tried while it rests; afterwards one call tries, however many there are.
        tried = redis.connections
        await asyncio.gather(*(limits.request("key:b", ALLOWANCE) for _ in range(20)))
        assert redis.connections == tried
        clock.advance(redis_link.REST_S + 0.1)
        if how == "hangs":
            await asyncio.gather(*(limits.request("key:b", ALLOWANCE) for _ in range(20)))
            assert redis.connections <= tried + 1
            clock.advance(redis_link.REST_S + 0.1)
            redis.thaw()
            monkeypatch.setattr(redis_link, "CALL_S", 10)
        else:
            await redis.open()
        standing = await limits.request("key:a", ALLOWANCE)
        assert limits.redis_up is True
        assert standing is not None
        # What was counted before is still there, the call that got no answer among it.
        assert standing.remaining == (1 if how == "refuses" else 0)
    told = [record.levelname for record in caplog.records]
    assert told == ["WARNING", "INFO"]


@pytest.mark.services
async def test_a_key_of_another_kind_is_counted_in_memory_and_nothing_else_suffers() -> None:
    async with emptied() as url, open_redis(url, "limits") as link:
        limits = Limits(SharedCounters(link, MemoryCounters()), ALLOWANCE, link)
        await limits.request("key:a", ALLOWANCE)
        (key,) = await link.client.keys("trendrag:limits:*")
        await link.client.delete(key)
        await link.client.lpush(key, "rubbish")
        standings = [await limits.request("key:a", ALLOWANCE) for _ in range(4)]
        assert [each and each.refused is None for each in standings] == [True, True, True, False]
        assert limits.redis_up is True


async def test_a_redis_that_was_never_there_costs_no_start(settings: Settings) -> None:
    server = ServerSettings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    changed = {"server": server, "limits": LimitSettings(requests_per_minute=1)}
    async with open_limits(settings.model_copy(update=changed)) as limits:
        first, second = [await limits.request("key:a", limits.allowance) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert (first.refused is None, second.refused is None) == (True, False)
        assert limits.redis_up is False


async def test_a_url_that_is_none_is_said_at_the_start_without_its_password(settings: Settings) -> None:
    server = ServerSettings(redis_url=SecretStr("http://user:hunter2@host"))
    with pytest.raises(ConfigurationError, match="TRENDRAG_SERVER__REDIS_URL") as caught:
        async with open_limits(settings.model_copy(update={"server": server})):
            pass
    assert "hunter2" not in str(caught.value)
