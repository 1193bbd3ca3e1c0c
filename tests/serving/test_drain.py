"""`trendrag serve` told to stop: a real process, with a model server behind it that holds its words back."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving.drain import Drain
from tests.serving.faulty_server import WORDS, FaultyServer, serving
from tests.serving.test_http_captions import LONG_NOTE, PATHS, body
from trendrag.errors import ShuttingDown
from trendrag.settings import default_data_dir

TRENDRAG = Path(sys.executable).parent / "trendrag"
LIMIT_S = 180
"""Safety net of a test that would otherwise hang; no test measures time."""


class Ours:
    """The process, a client of it, and the model server behind it."""

    def __init__(self, process: Process, client: httpx2.AsyncClient, upstream: FaultyServer) -> None:
        self.process = process
        self.client = client
        self.upstream = upstream

    async def stopping(self) -> None:
        """Tells it to stop, and returns once it says that it does."""
        self.process.send_signal(signal.SIGTERM)
        while (await self.client.get("/readyz")).status_code != 503:
            pass

    async def ended(self) -> int:
        return await self.process.wait()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "models").symlink_to(default_data_dir() / "models")
    return tmp_path


@asynccontextmanager
async def ours(data_dir: Path, **server: float) -> AsyncIterator[Ours]:
    upstream = FaultyServer(next_word=asyncio.Event())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
    async with asyncio.timeout(LIMIT_S), serving(upstream):
        settings = {
            "TRENDRAG_DATA_DIR": str(data_dir),
            "TRENDRAG_MODEL__PROVIDER": "openai",
            "TRENDRAG_MODEL__BASE_URL": upstream.base_url,
            "TRENDRAG_MODEL__NAME": "tiny",
            "TRENDRAG_MODEL__CONNECT_TIMEOUT_S": "60",
        } | {f"TRENDRAG_SERVER__{name.upper()}": str(value) for name, value in server.items()}
        process = await asyncio.create_subprocess_exec(
            TRENDRAG, "serve", "--port", "0", env=clean | settings, stderr=PIPE
        )
        assert process.stderr is not None
        try:
            while b"TrendRAG is at" not in (line := await process.stderr.readline()):
                assert line, "it did not start"
            origin = line.decode().split(" at ")[1].split()[0]
            reading = asyncio.create_task(process.stderr.read())
            async with httpx2.AsyncClient(base_url=origin, timeout=LIMIT_S, trust_env=False) as client:
                yield Ours(process, client, upstream)
            assert b"Traceback" not in await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


class Stream:
    """One caption stream that has begun: the first word is there."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._lines = answer.aiter_lines()

    async def event(self, *names: str) -> dict[str, Any]:
        """The next event of one of these names."""
        async for line in self._lines:
            if line.startswith("data: ") and (told := json.loads(line[6:]))["type"] in names:
                event: dict[str, Any] = told
                return event
        raise AssertionError(f"the stream ended without {names}")


@asynccontextmanager
async def stream(at: Ours) -> AsyncIterator[Stream]:
    async with at.client.stream("POST", PATHS[1], json=body(note=LONG_NOTE, trends=False)) as answer:
        begun = Stream(answer)
        assert (await begun.event("delta"))["text"] == WORDS[0].rstrip()
        yield begun


async def test_what_is_under_way_is_finished_and_nothing_new_is_taken(data_dir: Path) -> None:
    async with ours(data_dir) as at, stream(at) as begun:
        await at.stopping()
        told = (await at.client.get("/readyz")).json()
        assert (told["status"], told["message"]) == ("not_ready", "The server is being stopped.")
        for path in PATHS:
            answer = await at.client.post(path, json=body(note=LONG_NOTE))
            assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
            assert int(answer.headers["retry-after"]) > 0
        assert (await at.client.get("/healthz")).status_code == 200
        assert at.upstream.next_word is not None
        at.upstream.next_word.set()
        assert (await begun.event("candidate_done"))["text"] == "".join(WORDS)
        assert await begun.event("done")
        assert await at.ended() == 0


async def test_at_the_deadline_the_rest_is_cut_and_told_so(data_dir: Path) -> None:
    async with ours(data_dir, drain_s=0.5) as at, stream(at) as begun:
        whole = asyncio.create_task(at.client.post(PATHS[0], json=body(note=LONG_NOTE, trends=False)))
        while len(at.upstream.requests) < 2:
            at.upstream.asked.clear()
            await at.upstream.asked.wait()
        at.process.send_signal(signal.SIGTERM)
        assert (await begun.event("done", "failed"))["code"] == "shutting_down"
        answer = await whole
        assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
        assert int(answer.headers["retry-after"]) > 0
        assert await at.ended() == 0


async def test_the_second_signal_cuts_at_once(data_dir: Path) -> None:
    async with ours(data_dir, drain_s=100_000) as at, stream(at) as begun:
        await at.stopping()
        at.process.send_signal(signal.SIGTERM)
        assert (await begun.event("done", "failed"))["code"] == "shutting_down"
        assert await at.ended() == 0


async def test_with_nothing_under_way_it_ends_after_the_notice(data_dir: Path) -> None:
    async with ours(data_dir, drain_notice_s=5) as at:
        await at.stopping()  # it answers still, and says that it ends
        assert at.process.returncode is None
        assert await at.ended() == 0


async def test_only_requests_that_came_before_are_waited_for() -> None:
    drain = Drain()
    await drain.idle()
    with drain.request(), drain.request():
        assert drain.under_way == 2
        drain.begin()
        with pytest.raises(ShuttingDown), drain.request():
            pass
        waiting = asyncio.create_task(drain.idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_a_stream_that_begins_after_the_cut_is_cut_too() -> None:
    drain = Drain()
    drain.cut()
    with pytest.raises(asyncio.CancelledError), drain.stream():
        pass
