"""What a request needs from the application, in one typed value that the lifespan makes.

Knows the service behind the routes by its Protocol only; which models and trends are behind it is composed elsewhere.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from serving.child import Child
from serving.http.errors import HttpError
from serving.http.metrics import Metrics
from serving.images import prepare_image
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

    def snapshot(self) -> SnapshotInfo | None:
        """The trends in use now, None where there are none. Cheap: it is asked at every scrape."""

    def check_model(self) -> Awaitable[None]:
        """Returns where the model can be reached. Raises ModelError, with a message that says what to do."""


@dataclass(slots=True)
class Slots:
    """How many captions may be written at once. One event loop only, so a plain counter is enough."""

    free: int

    @contextmanager
    def taken(self) -> Iterator[None]:
        if self.free <= 0:
            raise HttpError(503, "busy", "Too many captions are being written. Try again in a moment.", retry_after=2)
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1


@dataclass(frozen=True, slots=True)
class AppState:
    service: ServicePort
    metrics: Metrics
    slots: Slots
    image_settings: ImageSettings
    image_pool: ThreadPoolExecutor
    schedule: Child | None = None

    async def prepare(self, read: Callable[[], bytes]) -> PreparedImage:
        """Reads and prepares an image in the pool, so that the event loop keeps serving.

        Raises InvalidImage and ImageTooLarge, and whatever ``read`` raises.
        """

        def work() -> PreparedImage:
            return prepare_image(read(), self.image_settings)

        return await asyncio.get_running_loop().run_in_executor(self.image_pool, work)


def app_state(request: Request) -> AppState:
    # `request.state` is untyped; the lifespan in serving.app is the only writer of this key.
    state: AppState = getattr(request.state, STATE_KEY)
    return state


State = Annotated[AppState, Depends(app_state)]
