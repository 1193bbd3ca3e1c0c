"""Runs of the real command that are killed, stopped, or have no server to ask; and how they go on."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.serving.faulty_server import Fault, FaultyServer, serving

ENOUGH_S = 120


class HangsAt(FaultyServer):
    """Takes the request number ``at``, from 1, and is silent; answers all others."""

    at = 3
    reached: asyncio.Event

    def _fault_now(self) -> Fault:
        if len(self.requests) != self.at:
            return "none"
        self.reached.set()
        return "hang"


async def command(tmp_path: Path, server: FaultyServer, *more: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRENDRAG_", "INSPECT_"))}
    environment |= {
        "TRENDRAG_DATA_DIR": str(tmp_path / "var"),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": server.base_url,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    options = ("--model", "server/tiny", "--limit", "5", "--concurrency", "1", "--json", *more)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trendrag", "evals", "run", "tagging", *options),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[dict[str, Any], str]:
    out, errors = await asyncio.wait_for(process.communicate(), ENOUGH_S)
    assert process.returncode == 0, errors.decode()
    return json.loads(out), errors.decode()


def photos(server: FaultyServer) -> list[str]:
    return [request["messages"][0]["content"][0]["image_url"]["url"] for request in server.requests]


async def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(tmp_path: Path) -> None:
    server = HangsAt(words=('{"tags": ["cup"]}',))
    server.reached = asyncio.Event()
    async with serving(server):
        killed = await command(tmp_path, server)
        await asyncio.wait_for(server.reached.wait(), ENOUGH_S)
        killed.send_signal(signal.SIGKILL)
        await killed.communicate()
        assert not list((tmp_path / "var" / "evals").glob("runs/*"))  # what is not finished is no run

        told, errors = await ended(await command(tmp_path, server, "--resume"))
        assert "Going on with" in errors
        assert "2 of 5 answers were kept" in " ".join(told["run"]["notes"])
        assert [item["output"] for item in told["items"]] == ['{"tags": ["cup"]}'] * 5
        asked = photos(server)
        assert len(asked) == 6
        assert asked[2] == asked[3]  # the one that was under way
        assert len(set(asked)) == 5
        assert not list((tmp_path / "var" / "evals" / "unfinished").iterdir())

        nothing = await command(tmp_path, server, "--resume")
        _, errors_ = await asyncio.wait_for(nothing.communicate(), ENOUGH_S)
        assert nothing.returncode == 1
        assert b"No unfinished run of tagging" in errors_


async def test_ctrl_c_stops_it_and_says_how_to_go_on(tmp_path: Path) -> None:
    server = HangsAt(words=('{"tags": ["cup"]}',))
    server.reached = asyncio.Event()
    async with serving(server):
        stopped = await command(tmp_path, server)
        await asyncio.wait_for(server.reached.wait(), ENOUGH_S)
        stopped.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(stopped.communicate(), ENOUGH_S)
        assert stopped.returncode == 130, errors.decode()
        assert b"--resume" in errors
        assert b"Traceback" not in errors
        told, _ = await ended(await command(tmp_path, server, "--resume"))
        assert len(told["items"]) == 5
        assert len(server.requests) == 6


async def test_where_nothing_was_answered_there_is_no_run_and_one_may_go_on(tmp_path: Path) -> None:
    async with serving(FaultyServer(fault="status", status=400, words=('{"tags": ["cup"]}',))) as server:
        failed = await command(tmp_path, server)
        _, errors = await asyncio.wait_for(failed.communicate(), ENOUGH_S)
        assert failed.returncode == 1
        assert b"answered nothing" in errors
        assert b"--resume" in errors
        assert not list((tmp_path / "var" / "evals").glob("runs/*"))
        server.fault = "none"
        told, _ = await ended(await command(tmp_path, server, "--resume"))
        assert [item.get("error") for item in told["items"]] == [None] * 5
