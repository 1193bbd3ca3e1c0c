"""The HTTP service under a real uvicorn on loopback, and its event streams read."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from serving.app import create_app
from tests.vllm.conftest import model_settings, unseen_photo
from tests.vllm.server import Vllm
from trendrag.settings import Settings


@contextlib.asynccontextmanager
async def http_service(vllm: Vllm, data_dir: Path, **model: object) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service that writes with this vLLM server."""
    app = create_app(Settings(data_dir=data_dir, model=model_settings(vllm, **model)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=5))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:  # polled: uvicorn offers no event
                assert not serving.done()
                await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


def body(**fields: object) -> dict[str, object]:
    return {"image": base64.b64encode(unseen_photo()).decode()} | fields


async def events(answer: httpx2.Response) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """(name, data) of each server-sent event."""
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
