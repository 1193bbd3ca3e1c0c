"""Composition of the HTTP service: settings in, an ASGI application out.

Knows which parts there are and hands each what it needs. What is behind a caption (models, trends) is composed by the
opener it is given, and open for as long as the server runs.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from fastapi import Depends, FastAPI
from opentelemetry.trace import Tracer

from serving.child import Child
from serving.drain import Drain
from serving.fetching import ImageFetcher
from serving.http import captions, health, history, jobs, openai_chat, page, platforms, training, trends
from serving.http.callers import Gate
from serving.http.clients import TrustedProxies
from serving.http.errors import install_error_handlers
from serving.http.limits import RateLimits, admitted
from serving.http.metrics import Metrics, Reading
from serving.http.middleware import BodyLimit, RequestContext, body_limits
from serving.http.openai_errors import OpenAIErrors
from serving.http.openai_schemas import ChatBody
from serving.http.origins import RESPONSES, TrustedOrigins, allow_cors
from serving.http.schemas import CaptionBody
from serving.http.state import STATE_KEY, AppState, ServicePort
from serving.http.uploads import describe_bodies
from serving.identity.door import open_door
from serving.identity.store import KeyStore
from serving.image_pool import ImagePool, cores_for_images
from serving.jobs.store import JobStore
from serving.jobs.worker import JobWorker
from serving.limits import open_limits
from serving.models.queue import ModelQueue
from serving.models.resilience import Upstream
from serving.records.history import History
from serving.records.keeper import Keeper
from serving.service import open_service
from serving.store.database import Database
from serving.store.housekeeping import housekeeping
from serving.store.idempotency import Idempotency
from serving.watched import WatchedService
from trendrag.platforms import read_platforms
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
    tracer: Tracer | None = None,
    drain: Drain | None = None,
    built_page: Path = page.BUILT,
) -> FastAPI:
    """The application. Its state lives from start-up to shut-down of the server (ASGI lifespan), and so does the
    process ``schedule``, where one is to run beside it. ``tracer`` is told of each request, where there is one;
    ``drain`` is the server's, where it drains; ``built_page`` is the folder that the page is in, once it is built.

    Raises:
        ConfigurationError: the service database can't be what the settings say.
    """
    database = Database.of(settings)
    drain = drain or Drain()
    metrics = Metrics(now, schedule)
    metrics.at_most.set(settings.server.max_concurrent)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AppState]]:
        with ImagePool.open(cores_for_images(), settings.image.max_waiting) as pool:
            async with (
                open_limits(settings) as limits,
                opener(settings) as opened,
                aclosing(database),
                open_door(settings, database, now) as door,
                ImageFetcher.open(settings.fetch, settings.image) as fetcher,
                Keeper(History(database), settings.history, pool.executor, now, metrics.history).running() as keeper,
                schedule.running() if schedule else nullcontext(),
            ):
                server = settings.server
                queue = ModelQueue(
                    server.max_concurrent, server.max_waiting, server.max_wait_s, time.monotonic, metrics.waited.observe
                )
                service = WatchedService(opened, metrics, queue, tracer)
                metrics.snapshot = service.snapshot
                metrics.redis_up = lambda: limits.redis_up
                store = JobStore(
                    database, max_open=settings.jobs.max_open, keep=timedelta(days=settings.jobs.keep_days)
                )
                idempotency = Idempotency(database)
                worker = JobWorker(
                    store,
                    jobs.writing(service, drain, keeper, door),
                    now,
                    concurrency=settings.jobs.concurrency,
                    attempts=settings.jobs.attempts,
                    lease_s=settings.jobs.lease_s,
                )
                counting: dict[str, Callable[[], Reading]] = {
                    "trendrag_queue_length": lambda: queue.waiting,
                    "trendrag_queue_capacity": lambda: server.max_waiting,
                    "trendrag_rate_limited": lambda: limits.refused,
                    "trendrag_jobs": lambda: worker.counts,
                }
                state = AppState(
                    service=service,
                    metrics=metrics,
                    queue=queue,
                    drain=drain,
                    limits=limits,
                    platforms=read_platforms(settings.own_platforms_file),
                    image_settings=settings.image,
                    image_pool=pool,
                    fetcher=fetcher,
                    now=now,
                    database=database,
                    door=door,
                    keeper=keeper,
                    idempotency=idempotency,
                    jobs=store,
                    worker=worker,
                    page=built_page,
                    schedule=schedule,
                )
                prunes = [store.prune, idempotency.prune, keeper.prune, KeyStore(database).prune]
                async with worker.running(), housekeeping(prunes, now):
                    with _watched(metrics, counting | _of_upstream(service.upstream)):
                        yield {STATE_KEY: state}

    # FastAPI's /docs and /redoc load scripts from a CDN, so they are off; /openapi.json feeds any local viewer.
    app = FastAPI(
        title="TrendRAG",
        version=version("trendrag"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=RESPONSES,
    )
    for counted in (captions, platforms, openai_chat, jobs, history, training, trends):
        app.include_router(counted.router, dependencies=[Depends(admitted)])
    for free in (health, page):
        app.include_router(free.router)
    describe_bodies(app, CaptionBody, json_only=[ChatBody])
    install_error_handlers(app)
    max_body, max_bodies = body_limits(settings.image.max_bytes)
    origins = settings.server.cors_origins or ()
    # The last one added is the outermost.
    app.add_middleware(Gate)
    app.add_middleware(BodyLimit, max_bytes=max_body, max_total=max_bodies)
    app.add_middleware(RateLimits)
    allow_cors(app, origins)
    app.add_middleware(TrustedOrigins, hosts=settings.server.hosts or (), origins=origins)
    app.add_middleware(RequestContext, metrics=metrics, tracer=tracer)
    app.add_middleware(OpenAIErrors)
    app.add_middleware(TrustedProxies, trusted=settings.server.trusted_proxies or ())
    return app


@contextmanager
def _watched(metrics: Metrics, parts: Mapping[str, Callable[[], Reading]]) -> Iterator[None]:
    """What parts count for themselves is at /metrics for as long as they are there."""
    with ExitStack() as stack:
        for name, read in parts.items():
            stack.callback(metrics.watch(name, read))
        yield


def _of_upstream(upstream: Upstream | None) -> dict[str, Callable[[], Reading]]:
    if upstream is None:
        return {}
    return {"trendrag_breaker": lambda: upstream.circuit, "trendrag_model_retries": lambda: upstream.counts.retries}
