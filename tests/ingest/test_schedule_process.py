"""`trendrag schedule`, and the server with a schedule beside it: processes of their own that end in every way."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from indexes.manifest import current_id
from tests.ingest.server import serving
from trendrag.settings import Settings, default_data_dir

TRENDRAG = Path(sys.executable).parent / "trendrag"
LIMIT_S = 60.0
"""Far beyond what anything here takes."""


@pytest.fixture
async def asked(settings: Settings) -> AsyncIterator[asyncio.Event]:
    """A list of one source, which hangs and so holds a refresh up for 20 s; set once it is asked. Weights are there."""
    settings.data_dir.mkdir()
    (settings.data_dir / "models").symlink_to(default_data_dir() / "models")
    event = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        event.set()
        await asyncio.Event().wait()

    async with serving() as server:
        server.handlers["/hang"] = hang
        settings.own_sources_file.write_text(f'[[source]]\nid = "slow"\ntype = "rss"\nurl = "{server.url("/hang")}"\n')
        yield event


@asynccontextmanager
async def trendrag(settings: Settings, *args: str) -> AsyncIterator[Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
    own = {"TRENDRAG_DATA_DIR": str(settings.data_dir), "TRENDRAG_INGEST__ALLOW_PRIVATE": "1"}
    process = await asyncio.create_subprocess_exec(TRENDRAG, *args, env=clean | own, stderr=PIPE, stdin=PIPE)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(process: Process, text: str) -> str:
    """The first line on stderr that has ``text``."""
    assert process.stderr is not None
    seen = []
    while line := (await process.stderr.readline()).decode():
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}: {''.join(seen)}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_it_stops_in_mid_refresh_and_publishes_nothing(
    asked: asyncio.Event, settings: Settings, number: signal.Signals, code: int
) -> None:
    async with trendrag(settings, "schedule") as process:
        await asked.wait()
        process.send_signal(number)
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
        assert await process.wait() == code
    assert "Traceback" not in said
    assert current_id(settings.snapshots_dir) is None


async def test_when_the_leader_is_killed_another_takes_over(asked: asyncio.Event, settings: Settings) -> None:
    async with trendrag(settings, "schedule") as leader:
        await until(leader, "This replica leads")
        async with trendrag(settings, "schedule") as other:
            await until(other, "Another replica leads")
            leader.kill()
            await until(other, "This replica leads")


async def test_a_list_that_can_not_be_used_is_told_at_once(asked: asyncio.Event, settings: Settings) -> None:
    settings.own_sources_file.write_text("[[source]]\n")
    async with trendrag(settings, "schedule") as process:
        line = await until(process, "Error: ")
        assert "entry 1" in line
        assert await process.wait() == 1


async def test_a_server_that_is_killed_takes_its_schedule_with_it(asked: asyncio.Event, settings: Settings) -> None:
    async with trendrag(settings, "serve", "--port", "0", "--with-schedule") as process:
        await until(process, "This replica leads")
        process.kill()
        assert process.stderr is not None
        await process.stderr.read()  # ends with the last process that writes to it


async def test_a_server_that_is_stopped_stops_its_schedule(asked: asyncio.Event, settings: Settings) -> None:
    async with trendrag(settings, "serve", "--port", "0", "--with-schedule") as process:
        await asked.wait()
        process.terminate()
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
    assert "has ended" not in said  # it was not taken for a crash
