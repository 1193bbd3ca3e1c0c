"""How much one caller may ask for: requests a minute, captions a day, and at a time.

Rates are counted by a sliding window (two counters a caller, the older one fading out), which the library ``limits``
keeps in Redis by scripts. In memory it is kept here: the library's own storage walks over all callers at every request
(18.7 ms at 100,000 of them, measured) and never forgets one before its window ends. Who the caller is, and how a
refusal is told, are the business of ``serving.http``.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage

from serving.redis_link import RedisAway, RedisLink, open_redis
from trendrag.settings import LimitSettings, Settings

COUNTERS = 100_000
"""Counters kept in memory at most, some 25 MB; the one that was not used for longest goes first."""

PREFIX = "trendrag:limits:1"
"""Of every key in Redis."""


class Allowance(NamedTuple):
    """What one caller may have; 0 is any number."""

    requests_per_minute: int
    captions_per_day: int
    concurrent: int

    @classmethod
    def of(cls, settings: LimitSettings) -> "Allowance":
        return cls(settings.requests_per_minute, settings.captions_per_day, settings.concurrent)


class Window(NamedTuple):
    """A counter's two windows: counts, and seconds until each counts no more. The current one runs for ``expiry`` more
    than it fills, since it fades out as the previous one."""

    previous: int
    previous_s: float
    current: int
    current_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands with one limit: ``quota`` in ``window_s`` seconds, ``remaining`` of it now, more of it in
    ``reset_s``. ``refused`` says in how many seconds what was asked for would be granted; None where it was."""

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int
    refused: int | None = None


class Counters(Protocol):
    """As ``limits.aio.storage.SlidingWindowCounterSupport``."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool: ...

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]: ...


class MemoryCounters:
    """At most ``capacity`` counters, in this process, for one event loop. As the library's Redis scripts count."""

    def __init__(self, capacity: int = COUNTERS, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._counters: OrderedDict[str, tuple[float, int, int]] = OrderedDict()  # (current since, previous, current)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window = self._window(key, expiry)
        if used(window, expiry) + amount > limit:
            return False
        since, previous, current = self._counters.get(key, (self._clock(), 0, 0))
        self._counters[key] = since, previous, current + amount
        self._counters.move_to_end(key)
        while len(self._counters) > self._capacity:
            self._counters.popitem(last=False)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self._window(key, expiry)

    def _window(self, key: str, expiry: int) -> Window:
        if key not in self._counters:
            return Window(0, 0.0, 0, 0.0)
        since, previous, current = self._counters[key]
        elapsed = self._clock() - since
        if elapsed >= expiry:
            since, previous, current, elapsed = since + expiry, current, 0, elapsed - expiry
            self._counters[key] = since, previous, current
        if elapsed >= expiry or not (previous or current):
            del self._counters[key]
            return Window(0, 0.0, 0, 0.0)
        return Window(previous, expiry - elapsed, current, 2 * expiry - elapsed)


class SharedCounters:
    """The library's counters in Redis; those in memory while it is away. A request is never refused, or let in, for
    Redis's sake: each server then counts for itself, from nothing."""

    def __init__(self, link: RedisLink, spare: Counters) -> None:
        self._link = link
        self._spare = spare
        self._shared = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=link.client.connection_pool,  # type: ignore[arg-type] # documented, and typed too narrowly
        )

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        try:
            return await self._link.call(lambda: self._shared.acquire_sliding_window_entry(key, limit, expiry, amount))
        except RedisAway:
            return await self._spare.acquire_sliding_window_entry(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        try:
            return await self._link.call(lambda: self._shared.get_sliding_window(key, expiry))
        except RedisAway:
            return await self._spare.get_sliding_window(key, expiry)


def used(window: Window, expiry: int) -> int:
    """How much of a quota is used: the current window, and the previous one by what is left of it."""
    return math.floor(window.previous * window.previous_s / expiry) + window.current


def wait_s(window: Window, expiry: int, used_then: int) -> float:
    """Seconds after which no more than ``used_then`` (≥ 0) of a quota are used, if nobody uses more of it. 0.0: now."""
    if used(window, expiry) <= used_then:
        return 0.0
    if window.current <= used_then:
        # previous * s / expiry has to fall below the next whole number
        return window.previous_s - (used_then + 1 - window.current) * expiry / window.previous
    until_shift = window.current_s - expiry
    return until_shift + expiry - (used_then + 1) * expiry / window.current


class Busy(Exception):
    """The caller has as many captions written at a time as it may."""


class Limits:
    """Counts for all callers of this server; with ``SharedCounters``, for all servers of one Redis. How many captions
    one has written at a time is counted by each server for itself."""

    def __init__(self, counters: Counters, allowance: Allowance, link: RedisLink | None = None) -> None:
        self.allowance = allowance
        """Of callers for whom nothing else is set."""
        self.refused: Counter[str] = Counter()
        """Refusals since the start, by "rate", "quota" and "concurrency"; for metrics."""
        self._counters = counters
        self._link = link
        self._running: Counter[str] = Counter()

    @property
    def redis_up(self) -> bool | None:
        """Whether the Redis that counts for all servers answers; None where there is none."""
        return self._link.up if self._link else None

    async def request(self, caller: str, allowance: Allowance) -> Standing | None:
        """Counts one request. None where there is no limit."""
        if not allowance.requests_per_minute:
            return None
        return await self._hit("requests", RateLimitItemPerMinute(allowance.requests_per_minute), caller, 1)

    async def captions(self, caller: str, allowance: Allowance, candidates: int) -> Standing | None:
        """Counts so many captions of a day: all of them, or none where they are too many."""
        if not allowance.captions_per_day:
            return None
        return await self._hit("captions", RateLimitItemPerDay(allowance.captions_per_day), caller, candidates)

    @contextmanager
    def running(self, caller: str, allowance: Allowance) -> Iterator[None]:
        """Held while captions are written. Raises Busy where the caller holds all that it may."""
        if allowance.concurrent and self._running[caller] >= allowance.concurrent:
            raise Busy
        self._running[caller] += 1
        try:
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]

    async def _hit(self, name: str, item: RateLimitItem, caller: str, amount: int) -> Standing:
        key, expiry = item.key_for(name, caller), item.get_expiry()
        granted = await self._counters.acquire_sliding_window_entry(key, item.amount, expiry, amount)
        window = Window(*await self._counters.get_sliding_window(key, expiry))
        in_use = used(window, expiry)
        return Standing(
            name=name,
            quota=item.amount,
            window_s=expiry,
            remaining=max(0, item.amount - in_use),
            reset_s=_past(wait_s(window, expiry, in_use - 1)) if in_use else 0,
            refused=None if granted else _past(wait_s(window, expiry, max(0, item.amount - amount))),
        )


def _past(seconds: float) -> int:
    """The whole second after that moment, and 10 ms at least after it: Redis tells times in milliseconds."""
    return math.floor(seconds + 0.01) + 1


@asynccontextmanager
async def open_limits(settings: Settings) -> AsyncIterator[Limits]:
    """Limits for as long as a server runs.

    Raises:
        ConfigurationError: TRENDRAG_SERVER__REDIS_URL can't be used.
    """
    allowance, memory = Allowance.of(settings.limits), MemoryCounters()
    url = settings.server.redis_url
    if url is None:
        yield Limits(memory, allowance)
        return
    async with open_redis(url.get_secret_value(), "limits") as link:
        yield Limits(SharedCounters(link, memory), allowance, link)
