"""Where small texts are kept for a while: in this process, or in a Redis that several servers share.

Both are ``trendrag.ports.Cache``; ``tests/serving/test_cache.py`` holds them to the same behaviour.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.redis_link import RedisAway, RedisLink, open_redis
from trendrag.ports import MAX_CACHED_CHARS, Cache
from trendrag.settings import Settings

PREFIX = "trendrag:cache:1:"
"""Of every key in Redis. The number changes with what values mean."""

_MAX_BYTES = 4 * MAX_CACHED_CHARS


class MemoryCache:
    """At most ``entries`` texts; the one that was not used for longest goes first. For one event loop."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()  # key -> (good until, value)

    async def get(self, key: str) -> str | None:
        until, value = self._kept.get(key, (0.0, ""))
        if until <= self._clock():
            self._kept.pop(key, None)
            return None
        self._kept.move_to_end(key)
        return value

    async def set(self, key: str, value: str, ttl_s: float) -> None:
        if ttl_s <= 0 or len(value) > MAX_CACHED_CHARS:
            return
        self._kept[key] = self._clock() + ttl_s, value
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)


class RedisCache:
    """Texts in Redis, under ``PREFIX``; in ``spare`` while Redis is away."""

    def __init__(self, link: RedisLink, spare: Cache) -> None:
        self._link = link
        self._spare = spare

    async def get(self, key: str) -> str | None:
        try:
            # Never more than a value of ours can be, whatever somebody else has put there.
            found = await self._link.call(lambda: self._link.client.getrange(PREFIX + key, 0, _MAX_BYTES))
        except RedisAway:
            return await self._spare.get(key)
        try:
            text = found.decode() if isinstance(found, bytes) else str(found)
        except UnicodeDecodeError:
            return None
        # Redis gives an empty text for a key that is not there, so values of ours begin with a sign.
        return text[1:] if text[:1] == "=" and len(text) - 1 <= MAX_CACHED_CHARS else None

    async def set(self, key: str, value: str, ttl_s: float) -> None:
        if ttl_s <= 0 or len(value) > MAX_CACHED_CHARS:
            return
        kept_ms = max(1, round(ttl_s * 1000))
        try:
            await self._link.call(lambda: self._link.client.set(PREFIX + key, f"={value}".encode(), px=kept_ms))
        except RedisAway:
            await self._spare.set(key, value, ttl_s)


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """The cache that the settings ask for.

    Raises:
        ConfigurationError: TRENDRAG_SERVER__REDIS_URL can't be used.
    """
    memory = MemoryCache(settings.cache.entries)
    url = settings.server.redis_url
    if url is None:
        yield memory
        return
    async with open_redis(url.get_secret_value(), "caches") as link:
        yield RedisCache(link, memory)
