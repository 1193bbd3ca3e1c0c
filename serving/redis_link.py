"""One Redis, shared by counters and caches, that may go away at any time without anybody noticing but the operator.

Knows connections, time limits and when not to try; what is stored is the business of ``serving.limits`` and
``serving.cache``, and so is what to do while it is away. The library comes with the extra `redis`, and is imported only
where a URL is set.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from trendrag.errors import ConfigurationError

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

CALL_S = 0.25
"""Longest wait for one answer, connecting included: what a caption may be held up by, once, when Redis hangs."""

REST_S = 5.0
"""So long nothing is tried after a failure; then one call tries, and the others go on without."""

CONNECTIONS = 32
T = TypeVar("T")


class RedisAway(Exception):
    """No answer from Redis, or none of use. Never leaves ``serving.limits`` and ``serving.cache``."""


class RedisLink:
    """A pool of connections behind a breaker. Made by ``open_redis``."""

    def __init__(
        self,
        client: "Redis",
        purpose: str,
        refused: type[Exception],
        failed: type[Exception],
        clock: Callable[[], float],
    ) -> None:
        """``refused`` and ``failed`` are the library's errors for an answer that says no, and for any at all."""
        self.client = client
        self._purpose = purpose
        self.up = True
        """For /readyz and metrics: False from the first failure until a call succeeds again."""
        self._clock = clock
        self._try_at = 0.0
        self._refused = refused
        self._failed = failed
        self._told = False

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` answers within ``CALL_S``.

        Raises:
            RedisAway: it did not, or was not tried because Redis was away a moment ago.
        """
        if not self.up:
            if self._clock() < self._try_at:
                raise RedisAway
            self._try_at = self._clock() + REST_S  # this call tries; those beside it do not
        try:
            async with asyncio.timeout(CALL_S):
                answer = await work()
        except self._refused as error:
            # It is there and refuses this command (no memory left, read-only, a key of another kind).
            if not self._told:
                self._told = True
                log.warning("Redis refuses a command (%s): %s are kept in memory", type(error).__name__, self._purpose)
            self._back()
            raise RedisAway from error
        except (self._failed, OSError, TimeoutError) as error:
            if self.up:
                # The kind alone: messages of the library may hold the address, with its password.
                log.warning("Redis is away (%s): %s are this server's own", type(error).__name__, self._purpose)
            self.up = False
            self._try_at = self._clock() + REST_S
            raise RedisAway from error
        self._back()
        return answer

    def _back(self) -> None:
        if not self.up:
            log.info("Redis is back: %s are shared again", self._purpose)
        self.up = True


@asynccontextmanager
async def open_redis(url: str, purpose: str, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[RedisLink]:
    """A link to the Redis at ``url`` (redis://, rediss:// or unix://), which need not be there yet. ``purpose`` is what
    the log calls what is kept there.

    Raises:
        ConfigurationError: the URL is none, or the library is not there.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415  the extra `redis`
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: PLC0415
        from redis.exceptions import RedisError, ResponseError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("TRENDRAG_SERVER__REDIS_URL needs a package: pip install 'trendrag[redis]'") from error
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=CALL_S,
            socket_timeout=CALL_S,
            socket_connect_timeout=CALL_S,
            # Once more at once: the connection that was taken may be of before a restart.
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError("TRENDRAG_SERVER__REDIS_URL must look like redis://host:6379/0") from error
    client = Redis.from_pool(pool)
    try:
        yield RedisLink(client, purpose, ResponseError, RedisError, clock)
    finally:
        await client.aclose()
