"""A server that is killed in the middle of a job, and the next one."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.databases import environment
from tests.serving.faulty_server import FaultyServer, serving
from tests.serving.test_http_captions import body
from trendrag.settings import Settings


def with_weights(settings: Settings) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not settings.models_dir.exists():
        settings.models_dir.symlink_to(Settings().models_dir.resolve())


@asynccontextmanager
async def server(settings: Settings, upstream: FaultyServer) -> AsyncIterator[tuple[httpx2.AsyncClient, Any]]:
    """A real `trendrag serve` and a client of it; killed at the end, if it is still there."""
    variables = {
        **environment(settings),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": upstream.base_url,
        "TRENDRAG_MODEL__NAME": "tiny",
        "TRENDRAG_MODEL__CONNECT_TIMEOUT_S": "60",
        "TRENDRAG_JOBS__LEASE_S": "0.5",
    }
    with_weights(settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trendrag", "serve", "--port", "0", env={**os.environ, **variables}, stderr=-1
    )
    assert process.stderr
    reading: asyncio.Task[bytes] | None = None
    try:
        while b"TrendRAG is at" not in (line := await process.stderr.readline()):
            assert line, "the server ended"
        reading = asyncio.create_task(process.stderr.read())  # a full pipe would stop it
        async with httpx2.AsyncClient(base_url=line.decode().split()[3], timeout=60) as client:
            yield client, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading:
            await reading


async def test_a_job_survives_kill_9_and_is_told_once(settings: Settings) -> None:
    async with asyncio.timeout(180), serving(FaultyServer(fault="hang")) as upstream:
        async with server(settings, upstream) as (client, process):
            asked = await client.post("/api/v1/jobs", json=body(trends=False), headers={"Idempotency-Key": "k"})
            await upstream.asked.wait()
            process.kill()
            await process.wait()
        upstream.fault = "none"
        async with server(settings, upstream) as (client, _):
            repeated = await client.post("/api/v1/jobs", json=body(trends=False), headers={"Idempotency-Key": "k"})
            assert repeated.json()["job"]["id"] == asked.json()["job"]["id"]
            while (job := (await client.get(asked.headers["location"])).json()["job"])["state"] != "done":
                assert job["state"] in ("queued", "running")
            assert job["attempts"] == 2
            assert job["result"]["captions"][0]["text"] == "Morning light, slow coffee."
            listed = (await client.get("/api/v1/jobs")).json()["items"]
            assert [each["id"] for each in listed] == [job["id"]]
