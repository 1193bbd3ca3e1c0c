"""The application around a fake service: through Starlette's client for what is said, and behind a real server on
loopback for how it is sent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
import uvicorn
from starlette.testclient import TestClient

from serving.app import create_app
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from trendrag.settings import ImageSettings, ServerSettings, Settings

MakeClient = Callable[..., TestClient]
Serve = Callable[..., int]

SMALL = {
    "image": ImageSettings(max_bytes=300_000, max_pixels=4_000_000),
    "server": ServerSettings(max_concurrent=2),
}


@pytest.fixture
def make_client(settings: Settings) -> Iterator[MakeClient]:
    """A client of the application with small limits, its lifespan entered."""
    with ExitStack() as stack:

        def make(service: FakeService) -> TestClient:
            app = create_app(settings.model_copy(update=SMALL), service.open, lambda: NOW)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(make_client: MakeClient, service: FakeService) -> TestClient:
    return make_client(service)


@pytest.fixture
async def serve(settings: Settings) -> AsyncIterator[Serve]:
    """Starts a real server on loopback for a service and returns its port. Connections queue until it is up."""
    async with AsyncExitStack() as stack:

        def start(service: FakeService, **changes: object) -> int:
            app = create_app(settings.model_copy(update=SMALL | changes), service.open, lambda: NOW)
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
