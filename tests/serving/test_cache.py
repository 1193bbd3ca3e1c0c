"""Caches, one suite for memory and a real Redis; and descriptions, made once for all who ask."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from serving import redis_link
from serving.cache import PREFIX, MemoryCache, RedisCache, open_cache
from serving.describing import CachedDescriber, describer_identity
from serving.redis_link import open_redis
from tests.fakes import IMAGE, FakeDescriber
from tests.serving.clocks import Clock
from tests.serving.redises import REDIS, URL, door, emptied
from trendrag.errors import ModelUnavailable
from trendrag.ports import MAX_CACHED_CHARS, Cache, Description
from trendrag.settings import CacheSettings, ModelSettings, Settings
from trendrag.types import PreparedImage

OTHER_IMAGE = IMAGE.model_copy(update={"sha256": "cd" * 32})


@pytest.fixture(autouse=True)
def a_patient_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Redis is not away for being slow."""
    monkeypatch.setattr(redis_link, "CALL_S", 10)


@pytest.fixture(params=["memory", REDIS])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(entries=100)
        return
    async with emptied() as url, open_redis(url, "caches") as link:
        yield RedisCache(link, MemoryCache(entries=0))
        assert link.up, "what was tested is Redis"


@pytest.mark.parametrize(
    "value", ["a cup of coffee", "", "=", "line\nline", "Größe 👩‍🚀", "x" * MAX_CACHED_CHARS], ids=range(6)
)
async def test_what_is_kept_is_given_back(cache: Cache, value: str) -> None:
    assert await cache.get("key") is None
    await cache.set("key", "old", 60)
    await cache.set("key", value, 60)
    assert await cache.get("key") == value
    assert await cache.get("key2") is None


async def test_what_is_too_long_or_for_no_time_is_not_kept(cache: Cache) -> None:
    await cache.set("long", "x" * (MAX_CACHED_CHARS + 1), 60)
    await cache.set("never", "x", 0)
    assert [await cache.get(key) for key in ("long", "never")] == [None, None]


async def test_memory_forgets_in_time_and_what_was_not_used_for_longest() -> None:
    clock = Clock()
    cache = MemoryCache(2, clock)
    await cache.set("a", "1", 10)
    await cache.set("b", "2", 100)
    clock.advance(9)
    assert await cache.get("a") == "1"
    await cache.set("c", "3", 100)
    assert [await cache.get(key) for key in ("a", "b", "c")] == ["1", None, "3"]
    clock.advance(1)
    assert await cache.get("a") is None


@pytest.mark.services
async def test_redis_forgets_in_time() -> None:
    async with emptied() as url, open_redis(url, "caches") as link:
        await RedisCache(link, MemoryCache(1)).set("a", "1", 3_600)
        assert 3_590 < await link.client.ttl(PREFIX + "a") <= 3_600


@pytest.mark.services
@pytest.mark.parametrize("rubbish", [b"", b"no sign", b"=\xff\xfe", b"=" + b"x" * 100_000, ["a", "list"]])
async def test_rubbish_in_redis_is_not_there_for_us(rubbish: bytes | list[str]) -> None:
    async with emptied() as url, open_redis(url, "caches") as link:
        cache = RedisCache(link, MemoryCache(1))
        if isinstance(rubbish, bytes):
            await link.client.set(PREFIX + "key", rubbish)
        else:
            await link.client.lpush(PREFIX + "key", *rubbish)
        assert await cache.get("key") is None
        assert link.up


@pytest.mark.services
async def test_without_redis_there_is_memory_and_then_redis_again() -> None:
    clock = Clock()
    async with door() as redis, open_redis(redis.url, "caches", clock) as link:
        cache = RedisCache(link, MemoryCache(10))
        await cache.set("a", "shared", 60)
        await redis.shut()
        assert await cache.get("a") is None
        await cache.set("a", "own", 60)
        assert await cache.get("a") == "own"
        await redis.open()
        clock.advance(redis_link.REST_S + 0.1)
        assert await cache.get("a") == "shared"


@pytest.mark.services
async def test_the_settings_choose(settings: Settings) -> None:
    async with open_cache(settings) as cache:
        assert isinstance(cache, MemoryCache)
    server = settings.server.model_validate(settings.server.model_dump() | {"redis_url": URL})
    async with open_cache(settings.model_copy(update={"server": server})) as cache:
        assert isinstance(cache, RedisCache)


# Descriptions


@dataclass
class GatedDescriber(FakeDescriber):
    """Waits until a test lets it answer, or fail."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    closed: int = 0

    async def describe(self, image: PreparedImage) -> Description:
        self.asked.set()
        try:
            answer = await super().describe(image)
            await self.gate.wait()
            if self.error:
                raise self.error
            return answer
        finally:
            self.closed += 1


async def test_one_image_is_described_once(cache: Cache) -> None:
    describer = FakeDescriber()
    cached = CachedDescriber(describer, cache, "model", 60)
    first, second = [await cached.describe(IMAGE) for _ in range(2)]
    assert (first.text, first.cached, first.usage.prompt_tokens) == ("a cup of coffee", False, 10)
    assert (second.text, second.cached, second.usage.prompt_tokens) == ("a cup of coffee", True, 0)
    await cached.describe(OTHER_IMAGE)
    assert describer.calls == 2


async def test_no_time_keeps_nothing(cache: Cache) -> None:
    describer = FakeDescriber()
    cached = CachedDescriber(describer, cache, "model", 0)
    assert [(await cached.describe(IMAGE)).cached for _ in range(2)] == [False, False]
    assert CacheSettings(descriptions_s=0).descriptions_s == 0


async def test_another_model_never_reads_them(cache: Cache) -> None:
    model = ModelSettings(provider="openai", base_url="http://127.0.0.1:1/v1")
    elsewhere = model.model_copy(update={"base_url": "http://127.0.0.1:2/v1"})
    for identity in (
        describer_identity(model, "one"),
        describer_identity(model, "two"),
        describer_identity(elsewhere, "one"),
        describer_identity(ModelSettings(), "one"),
    ):
        describer = FakeDescriber(text="seen by another")
        answer = await CachedDescriber(describer, cache, identity, 60).describe(IMAGE)
        assert (describer.calls, answer.cached) == (1, False)


async def test_another_prompt_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describer_identity(ModelSettings(), "one")
    monkeypatch.setattr("serving.describing.prompt", lambda name: f"another {name}")
    assert describer_identity(ModelSettings(), "one") != before


@pytest.mark.parametrize("rubbish", ["<b>markup</b>", "two\nlines", "esc\x1b[2J", "x" * 1_000, "a  b", "bidi\u202e"])
async def test_a_cached_text_that_is_none_of_ours_is_not_used(cache: Cache, rubbish: str) -> None:
    describer = FakeDescriber()
    cached = CachedDescriber(describer, Poisoned(cache, rubbish), "model", 60)
    assert (await cached.describe(IMAGE)).text == "a cup of coffee"
    assert describer.calls == 1


@dataclass
class Poisoned:
    cache: Cache
    rubbish: str

    async def get(self, key: str) -> str | None:
        return self.rubbish

    async def set(self, key: str, value: str, ttl_s: float) -> None:
        await self.cache.set(key, value, ttl_s)


async def test_those_who_ask_at_the_same_time_share_one_call() -> None:
    describer = GatedDescriber()
    cached = CachedDescriber(describer, MemoryCache(10), "model", 60)
    asking = [asyncio.create_task(cached.describe(IMAGE)) for _ in range(5)]
    await describer.asked.wait()
    describer.gate.set()
    answers = await asyncio.gather(*asking)
    assert describer.calls == 1
    assert {answer.text for answer in answers} == {"a cup of coffee"}
    assert sum(answer.usage.prompt_tokens for answer in answers) == 10, "tokens are told once"


async def test_whoever_leaves_does_not_take_it_from_the_others() -> None:
    describer = GatedDescriber()
    cached = CachedDescriber(describer, MemoryCache(10), "model", 60)
    first, second = (asyncio.create_task(cached.describe(IMAGE)) for _ in range(2))
    await describer.asked.wait()
    first.cancel()
    await asyncio.wait({first})
    describer.gate.set()
    assert (await second).text == "a cup of coffee"
    assert describer.calls == 1


async def test_when_all_have_left_the_call_is_closed_and_the_next_one_begins_anew() -> None:
    describer = GatedDescriber()
    cached = CachedDescriber(describer, MemoryCache(10), "model", 60)
    asking = [asyncio.create_task(cached.describe(IMAGE)) for _ in range(2)]
    await describer.asked.wait()
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert describer.closed == 1
    describer.gate.set()
    assert not (await cached.describe(IMAGE)).cached
    assert describer.calls == 2


async def test_a_failure_is_told_to_all_and_kept_for_none() -> None:
    describer = GatedDescriber(error=ModelUnavailable("gone"))
    cached = CachedDescriber(describer, MemoryCache(10), "model", 60)
    asking = [asyncio.create_task(cached.describe(IMAGE)) for _ in range(3)]
    await describer.asked.wait()
    describer.gate.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in told] == [ModelUnavailable] * 3
    describer.error = None
    assert (await cached.describe(IMAGE)).text == "a cup of coffee"


async def test_whether_a_description_is_always_needed_is_the_describers_to_say() -> None:
    for always in (True, False):
        assert CachedDescriber(FakeDescriber(always=always), MemoryCache(1), "model", 1).always is always
