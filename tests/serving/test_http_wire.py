"""How it goes over a real connection: events at once, clients that leave, limits while a body is still arriving."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec

import httpx2
import pytest

from tests.serving.conftest import Serve
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.test_http_captions import PATHS, b64, body
from trendrag.settings import ImageSettings

LIMIT_S = 120
"""Safety net of a test that would otherwise hang; no test measures time."""


P = ParamSpec("P")


def ends(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(LIMIT_S):
            await test(*args, **kwargs)

    return run


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def post(path: str, content: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content) if length is None else length}\r\n\r\n".encode() + content


REQUEST = json.dumps(body()).encode()


async def metric(port: int, name: str) -> float:
    async with httpx2.AsyncClient(timeout=60) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))


@ends
async def test_events_arrive_while_the_model_still_writes_and_leaving_stops_it(serve: Serve) -> None:
    writer = GatedWriter()
    port = serve(FakeService(writer))
    async with connection(port) as (reader, sender):
        sender.write(post(PATHS[1], REQUEST))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b' caption."')
        assert writer.open_streams == 1
    await writer.closed.wait()
    assert writer.open_streams == 0


@ends
async def test_leaving_before_the_json_answer_stops_the_model(serve: Serve) -> None:
    writer = GatedWriter()
    port = serve(FakeService(writer))
    async with connection(port) as (_, sender):
        sender.write(post(PATHS[0], REQUEST))
        await writer.begun.wait()
    await writer.closed.wait()
    assert writer.open_streams == 0


@pytest.mark.parametrize("path", PATHS)
@ends
async def test_no_more_captions_at_once_than_set_and_slots_come_back(serve: Serve, path: str) -> None:
    gates = [GatedWriter(), GatedWriter()]
    service = FakeService(gates[0])
    port = serve(service)
    async with connection(port) as (_, one):
        one.write(post(path, REQUEST))
        await gates[0].begun.wait()
        service.writer = gates[1]
        async with connection(port) as (_, two), httpx2.AsyncClient(timeout=60) as client:
            two.write(post(path, REQUEST))
            await gates[1].begun.wait()
            answer = await client.post(f"http://127.0.0.1:{port}{path}", json=body())
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert int(answer.headers["retry-after"]) > 0
            assert await metric(port, "trendrag_captions_in_flight") == 2
    await asyncio.gather(*(gate.closed.wait() for gate in gates))
    service.writer = FakeService().writer
    async with httpx2.AsyncClient(timeout=60) as client:
        # The slot is given back just after the model was closed: ask until it is.
        while (answer := await client.post(f"http://127.0.0.1:{port}{path}", json=body())).status_code == 503:
            pass
    assert answer.status_code == 200
    assert await metric(port, "trendrag_clients_left_total") == 2


@pytest.mark.parametrize("path", PATHS)
@ends
async def test_a_huge_upload_is_refused_and_the_client_can_read_why(serve: Serve, path: str) -> None:
    """A client that sends all of its 50 MB before it reads, as most do."""
    port = serve(FakeService())
    async with connection(port) as (reader, writer):
        writer.write(post(path, b"", length=50_000_000))
        for _ in range(50):
            writer.write(bytes(1_000_000))
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 413 " in head
        told = json.loads(await reader.readuntil(b"}"))
        assert told["code"] == "body_too_large"
        # The connection is still good for the next request.
        writer.write(post(path, b"{}"))
        assert b" 422 " in await reader.readuntil(b"\r\n\r\n")


@ends
async def test_the_refusal_does_not_wait_for_the_body(serve: Serve) -> None:
    port = serve(FakeService())
    async with connection(port) as (reader, writer):
        writer.write(post(PATHS[0], b"", length=50_000_000))
        assert b" 413 " in await reader.readuntil(b"\r\n\r\n")


@ends
async def test_a_body_of_unknown_length_is_counted_while_it_arrives(serve: Serve) -> None:
    port = serve(FakeService())
    chunk = b"%x\r\n%b\r\n" % (100_000, bytes(100_000))
    async with connection(port) as (reader, writer):
        head = f"POST {PATHS[0]} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(6):  # over 300,000 * 4/3 + 64 KiB, and no end in sight
            writer.write(chunk)
            await writer.drain()
        assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
        assert json.loads(await reader.readuntil(b"}"))["code"] == "body_too_large"


@ends
async def test_all_bodies_together_are_limited_too(serve: Serve) -> None:
    """Eight bodies that stop just short of their end; the ninth finds no room."""
    port = serve(FakeService(), image=ImageSettings(max_bytes=300_000))
    size = 300_000 * 4 // 3
    async with httpx2.AsyncClient(timeout=60) as client:
        senders: list[asyncio.StreamWriter] = []
        try:
            for _ in range(9):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                senders.append(writer)
                writer.write(post(PATHS[0], bytes(size - 1), length=size))
                await writer.drain()
            content = json.dumps({"image": b64(bytes(290_000))})
            kind = {"content-type": "application/json"}
            url = f"http://127.0.0.1:{port}{PATHS[0]}"
            # The server reads the nine at its own pace: ask until they fill the room.
            while (answer := await client.post(url, content=content, headers=kind)).status_code != 503:
                pass
            assert answer.json()["code"] == "busy"
        finally:
            for writer in senders:
                writer.close()
        while (answer := await client.post(url, content=content, headers=kind)).status_code == 503:
            pass
        assert answer.json()["code"] == "invalid_image", "room again"
