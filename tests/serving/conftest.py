"""The application around a fake service: through Starlette's client for what is said, and behind a real server on
loopback for how it is sent."""

import asyncio
import io
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.testclient import TestClient

from serving.app import create_app
from serving.store.database import Database
from tests.databases import DATABASES, database_of
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.pages import TINY_PAGE
from trendrag.logs import OURS, set_up_logging
from trendrag.settings import ImageSettings, LogSettings, ServerSettings, Settings

MakeClient = Callable[..., TestClient]
Serve = Callable[..., int]
LogLines = Callable[[], list[dict[str, Any]]]

SMALL = {
    "image": ImageSettings(max_bytes=300_000, max_pixels=4_000_000),
    "server": ServerSettings(max_concurrent=2, max_waiting=0, hosts=("test", "testserver")),
}


@pytest.fixture(params=DATABASES)
def service_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Default settings with a data directory of the test's own and an empty service database, of each kind in turn."""
    made = Settings(data_dir=tmp_path / "var", server=ServerSettings(hosts=("test", "testserver")))
    with database_of(request.param, made) as settings:
        yield settings


@pytest.fixture
async def database(service_settings: Settings) -> AsyncIterator[Database]:
    """The service database of ``service_settings``."""
    opened = Database.of(service_settings)
    yield opened
    await opened.aclose()


@pytest.fixture
def make_client(settings: Settings) -> Iterator[MakeClient]:
    """A client of the application with small limits, its lifespan entered."""
    with ExitStack() as stack:

        def make(service: FakeService) -> TestClient:
            app = create_app(settings.model_copy(update=SMALL), service.open, lambda: NOW, built_page=TINY_PAGE)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(make_client: MakeClient, service: FakeService) -> TestClient:
    return make_client(service)


@asynccontextmanager
async def serving_app(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application as it is composed, under a real server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_app(settings), lifespan="on", log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listening]))
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx2.AsyncClient(base_url=origin, timeout=60, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            await running


@pytest.fixture
async def serve(settings: Settings) -> AsyncIterator[Serve]:
    """Starts a real server on loopback for a service and returns its port. Connections queue until it is up."""
    async with AsyncExitStack() as stack:

        def start(service: FakeService, **changes: object) -> int:
            app = create_app(
                settings.model_copy(update=SMALL | changes), service.open, lambda: NOW, built_page=TINY_PAGE
            )
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = uvicorn.Server(
                uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=5, server_header=False)
            )
            running = asyncio.create_task(server.serve([listening]))

            async def stop() -> None:
                server.should_exit = True
                await running

            stack.push_async_callback(stop)
            port: int = listening.getsockname()[1]
            return port

        yield start


@pytest.fixture
def log_lines(settings: Settings) -> Iterator[LogLines]:
    """What `trendrag serve` would have logged so far, as JSON at DEBUG."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in (*OURS, "uvicorn"))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    stream = io.StringIO()
    # Taken off first: setting up closes what it replaces, and these are pytest's.
    for handler in handlers:
        root.removeHandler(handler)
    set_up_logging(LogSettings(level="debug", format="json"), settings, stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
