"""A real Redis for tests, and a way to lose it: a proxy on loopback that can refuse, hang and come back.

TRENDRAG_TEST_REDIS_URL names the server. Tests that use it carry ``services``. Our keys in it are removed, before and
after.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

URL = os.environ.get("TRENDRAG_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
REDIS = pytest.param("redis", marks=pytest.mark.services)


@asynccontextmanager
async def emptied() -> AsyncIterator[str]:
    """The URL of a real Redis with nothing of ours in it."""
    async with Redis.from_url(URL) as client:
        try:
            await _forget(client)
        except RedisError as error:
            pytest.fail(f"No Redis at TRENDRAG_TEST_REDIS_URL ({error}). `.ci/run` starts one.", pytrace=False)
        yield URL
        await _forget(client)


async def _forget(client: Redis) -> None:
    if keys := await client.keys("trendrag:*"):
        await client.delete(*keys)


class Door:
    """Stands before the real Redis. ``shut`` breaks connections and refuses new ones; ``freeze`` takes bytes and
    answers nothing."""

    def __init__(self) -> None:
        parts = urlsplit(URL)
        self._real = parts.hostname or "127.0.0.1", parts.port or 6379
        self._database = parts.path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._answering = asyncio.Event()
        self._answering.set()
        self.port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}{self._database}"

    async def open(self) -> None:
        self._answering.set()
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._answering.set()

    def freeze(self) -> None:
        self._answering.clear()

    def thaw(self) -> None:
        self._answering.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, to_there = await asyncio.open_connection(*self._real)
        self._writers |= {writer, to_there}
        try:
            await asyncio.gather(self._copy(reader, to_there), self._copy(there, writer, self._answering))
        finally:
            self._writers -= {writer, to_there}

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None = None
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65_536):
                if gate is not None:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    """An open door to an empty Redis."""
    async with emptied():
        made = Door()
        await made.open()
        try:
            yield made
        finally:
            await made.shut()
