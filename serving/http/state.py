"""What a request needs from the application, in one typed value that the lifespan makes.

Knows the service behind the routes by its Protocol only; which models and trends are behind it is composed elsewhere.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends, Request

from indexes.listing import Listing
from serving.child import Child
from serving.drain import Drain
from serving.fetching import ImageFetcher
from serving.http.metrics import Metrics
from serving.identity.door import Door
from serving.image_pool import ImagePool
from serving.images import prepare_image
from serving.jobs.store import JobStore
from serving.jobs.worker import JobWorker
from serving.limits import Limits
from serving.models.queue import ModelQueue
from serving.models.resilience import Upstream
from serving.ports import Gateway
from serving.records.keeper import Keeper
from serving.store.database import Database
from serving.store.idempotency import Idempotency
from trendrag.platforms import Platforms
from trendrag.settings import ImageSettings
from trendrag.types import CaptionEvent, CaptionRequest, PreparedImage, SnapshotInfo

STATE_KEY = "trendrag"
"""Name of the state in the lifespan's mapping."""


class ServicePort(Protocol):
    """The composed caption chain and what is known about its parts."""

    def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """Ends with `Done` or `Failed`; closing the stream stops the model."""

    @property
    def model_name(self) -> str: ...

    @property
    def draft(self) -> bool:
        """True where the small embedded engine writes."""

    @property
    def fallback(self) -> str | None:
        """The model that writes drafts while the model server is away; None where nobody does."""

    @property
    def upstream(self) -> Upstream | None:
        """The model server, None where the embedded engine is the model."""

    @property
    def gateway(self) -> Gateway | None:
        """The model server itself, where it speaks OpenAI's protocol."""

    def snapshot(self) -> SnapshotInfo | None:
        """The trends in use now, None where there are none. Cheap: it is asked at every scrape."""

    def listing(self) -> Awaitable[Listing]:
        """The trends in use now, for looking through. Raises NoSnapshot where there are none."""

    def check_model(self) -> Awaitable[None]:
        """Returns where the model can be reached. Raises ModelError, with a message that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppState:
    """``page`` is the folder that the page is in, once it is built."""

    service: ServicePort
    metrics: Metrics
    queue: ModelQueue
    drain: Drain
    limits: Limits
    platforms: Platforms
    image_settings: ImageSettings
    image_pool: ImagePool
    fetcher: ImageFetcher
    now: Callable[[], datetime]
    database: Database
    idempotency: Idempotency
    jobs: JobStore
    worker: JobWorker
    keeper: Keeper
    door: Door
    page: Path
    schedule: Child | None = None

    async def prepare(self, read: Callable[[], bytes]) -> PreparedImage:
        """Reads and prepares an image in the pool, so that the event loop keeps serving.

        Raises InvalidImage, ImageTooLarge and Busy, and whatever ``read`` raises.
        """

        def work() -> PreparedImage:
            return prepare_image(read(), self.image_settings)

        # With the request's context, so that what is logged there has its id.
        return await self.image_pool.run(partial(copy_context().run, work))


def app_state(request: Request) -> AppState:
    # `request.state` is untyped; the lifespan in serving.app is the only writer of this key.
    state: AppState = getattr(request.state, STATE_KEY)
    return state


async def _state(request: Request) -> AppState:
    return app_state(request)  # FastAPI would call a plain function in a thread: ten times the cost


State = Annotated[AppState, Depends(_state)]
