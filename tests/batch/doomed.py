"""A process that is killed: ``trendrag batch`` as a user starts it. Nothing here knows of its death."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.batch.archive import environment
from tests.batch.model_server import ModelServer


async def start(folder: Path, server: ModelServer, *options: str) -> asyncio.subprocess.Process:
    places = str(folder / "in.jsonl"), str(folder / "out.jsonl")
    return await start_at(places, environment(folder, server), *options)


async def start_at(places: tuple[str, str], settings: dict[str, str], *options: str) -> asyncio.subprocess.Process:
    """From the first place to the second, with ``settings`` from the environment alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from trendrag.cli import main; main()", "batch"),
        *places,
        *options,
        env=clean | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit status, and what it said."""
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def killed_at(process: asyncio.subprocess.Process, moment: Coroutine[Any, Any, None]) -> bool:
    """False where it had come to its end by then."""
    ending, waiting = asyncio.create_task(process.communicate()), asyncio.create_task(moment)
    await asyncio.wait([ending, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if process.returncode is None:
        process.kill()
    await ending
    return process.returncode == -signal.SIGKILL
