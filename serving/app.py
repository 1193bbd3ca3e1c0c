"""Composition of the HTTP service: settings in, an ASGI application out.

Knows which parts there are and hands each what it needs. What is behind a caption (models, trends) is composed by the
opener it is given, and open for as long as the server runs.
"""

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import FastAPI

from serving.child import Child
from serving.http import captions, health, page
from serving.http.errors import install_error_handlers
from serving.http.metrics import Metrics
from serving.http.middleware import BodyLimit, RequestContext, body_limits
from serving.http.state import STATE_KEY, AppState, ServicePort, Slots
from serving.service import open_service
from trendrag.settings import Settings

ServiceOpener = Callable[[Settings], AbstractAsyncContextManager[ServicePort]]

_DESCRIPTION = """Captions for a photo that weave in what people talk about right now.

Errors have one shape: `{"status": "error", "code": ..., "message": ...}`."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings,
    opener: ServiceOpener = open_service,
    now: Callable[[], datetime] = utc_now,
    schedule: Child | None = None,
) -> FastAPI:
    """The application. Its state lives from start-up to shut-down of the server (ASGI lifespan), and so does the
    process ``schedule``, where one is to run beside it."""
    metrics = Metrics(now, schedule)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AppState]]:
        # Decoding is CPU work: more threads than cores would only hold more pictures in memory.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="image") as pool:
            async with opener(settings) as service, schedule.running() if schedule else nullcontext():
                metrics.snapshot = service.snapshot
                slots = Slots(settings.server.max_concurrent)
                yield {STATE_KEY: AppState(service, metrics, slots, settings.image, pool, schedule)}

    # FastAPI's /docs and /redoc load scripts from a CDN, so they are off; /openapi.json feeds any local viewer.
    app = FastAPI(
        title="TrendRAG",
        version=version("trendrag"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for part in (captions, health, page):
        app.include_router(part.router)
    install_error_handlers(app)
    max_body, max_bodies = body_limits(settings.image.max_bytes)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=max_body, max_total=max_bodies)
    app.add_middleware(RequestContext, metrics=metrics)
    return app
