"""The service as everyone in front of it sees it: each request waits for its turn, and is counted, traced and logged,
whoever asks and however it ends.

Here and not in the routes, so that the API, the OpenAI-compatible one and jobs are watched alike.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from opentelemetry.trace import Tracer

from indexes.listing import Listing
from serving.http.metrics import Metrics
from serving.http.state import ServicePort
from serving.models.queue import ModelQueue
from serving.models.resilience import Upstream
from serving.ports import Gateway
from serving.telemetry import CLIENT_LEFT, DONE, CaptionSpan, within
from trendrag.errors import TrendragError
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    SnapshotInfo,
    TrendsRetrieved,
)

log = logging.getLogger(__name__)


class Watch(Protocol):
    """Follows one request."""

    def event(self, event: CaptionEvent) -> None:
        """Each event but deltas: most events are, and none of them tells more than that it came."""

    def end(self, outcome: str) -> None:
        """Once, at the end: ``DONE``, ``CLIENT_LEFT`` or a code of ``trendrag.errors``."""


class WatchedService:
    """``ServicePort`` that changes nothing of what passes, and lets no more pass at once than ``queue`` allows.
    ``metrics`` and ``tracer`` get to know of each request."""

    def __init__(self, service: ServicePort, metrics: Metrics, queue: ModelQueue, tracer: Tracer | None = None) -> None:
        self._service = service
        self._queue = queue
        self._metrics = metrics
        self._tracer = tracer

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        watches: list[Watch] = [self._metrics.caption(request), CaptionLine()]
        events = self._in_turn(request)
        if self._tracer:
            traced = CaptionSpan(self._tracer, request)
            watches.append(traced)
            events = within(traced.span, events)
        outcome: str | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    if not isinstance(event, Delta):
                        outcome = _outcome(event)
                        for watch in watches:
                            watch.event(event)
                    yield event
            outcome = outcome or TrendragError.code  # it ended without saying how
        except Exception as error:
            outcome = outcome or (error.code if isinstance(error, TrendragError) else TrendragError.code)
            raise
        finally:
            for watch in watches:
                watch.end(outcome or CLIENT_LEFT)

    async def _in_turn(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """The service's events, once the request's turn has come; it keeps its places until the generator is closed.

        Raises:
            Busy: its turn does not come.
        """
        async with self._queue.turn(len(request.numbers)):
            with self._metrics.in_flight.track_inprogress():
                async with aclosing(self._service.stream(request)) as events:
                    async for event in events:
                        yield event

    @property
    def upstream(self) -> Upstream | None:
        return self._service.upstream

    async def check_model(self) -> None:
        await self._service.check_model()

    async def listing(self) -> Listing:
        return await self._service.listing()

    def snapshot(self) -> SnapshotInfo | None:
        return self._service.snapshot()

    @property
    def model_name(self) -> str:
        return self._service.model_name

    @property
    def fallback(self) -> str | None:
        return self._service.fallback

    @property
    def gateway(self) -> Gateway | None:
        return self._service.gateway

    @property
    def draft(self) -> bool:
        return self._service.draft


def _outcome(event: CaptionEvent) -> str | None:
    """How the request has ended with this event, None where it goes on."""
    if isinstance(event, Failed):
        return event.code
    return DONE if isinstance(event, Done) else None


class CaptionLine:
    """A line in the log for each request: what an operator asks first, and nothing that was said in it."""

    def __init__(self) -> None:
        self._candidates = 0
        self._used = 0
        self._fields: dict[str, object] = {}

    def event(self, event: CaptionEvent) -> None:
        match event:
            case Described():
                self._fields["description"] = event.source
            case TrendsRetrieved():
                self._fields["trends_offered"] = len(event.trends)
            case CandidateDone():
                self._candidates += 1
                self._used += len(event.trend_ids)
            case Done():
                self._fields |= {
                    f"{step}_s": round(seconds, 4) for step, seconds in event.timings if seconds is not None
                }
                self._fields |= dict(event.usage)
                self._fields |= {"model": event.model, "draft": event.draft, "snapshot": event.snapshot_id}
            case _:
                pass

    def end(self, outcome: str) -> None:
        level = logging.INFO if outcome in (DONE, CLIENT_LEFT) else logging.WARNING
        fields = {"outcome": outcome, **self._fields, "candidates": self._candidates, "trends_used": self._used}
        log.log(level, "caption: %s", outcome, extra={"fields": fields})
