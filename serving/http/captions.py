"""The two ways to ask for captions: all at once (JSON) and as they are written (SSE).

What can be refused is refused before an answer begins, with its own status: a bad body, a bad image, no free slot. The
stream's answer begins with the chain's first event, so a model that can't be reached for the first thing asked of it
answers 503 like any other error. That holds back nothing but the headers. A model that fails later (a note stood
alone, the trends were found, and the writer is away) is told by a `failed` event inside the stream.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

from anyio.streams.memory import MemoryObjectReceiveStream
from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from serving.http.errors import ClientLeft, HttpError
from serving.http.schemas import (
    CaptionAnswer,
    CaptionBody,
    CaptionsAnswer,
    ErrorAnswer,
    HighlightAnswer,
)
from serving.http.state import AppState, State
from serving.http.stream import INTERNAL, caption_events, unless_client_leaves
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Described,
    Done,
    Failed,
    Highlight,
    TrendsRetrieved,
)

_ERRORS = {
    400: "the body is not JSON",
    413: "the body or the image is too large",
    415: "the body is not sent as application/json",
    422: "a field or the image can't be used",
    500: "a fault of the server",
    501: "not taken yet",
    502: "the model server refused, or broke off",
    503: "too many captions at once, or the model server can't be reached; see Retry-After",
    504: "the model server took too long",
}
# By reference and not by `model`, which FastAPI would file under the route's own media type: errors are always JSON,
# those of the stream's route too.
_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
router = APIRouter(
    prefix="/api/v1",
    tags=["captions"],
    responses={status: {"content": _ERROR_CONTENT, "description": words} for status, words in _ERRORS.items()},
)


async def _slot(state: State) -> AsyncIterator[None]:
    """Held until the answer's last byte. Refused before the image costs anything."""
    with state.slots.taken(), state.metrics.in_flight.track_inprogress():
        yield


async def _caption_request(body: CaptionBody, state: State) -> CaptionRequest:
    if body.image is None:
        raise HttpError(501, "not_implemented", "image_url: addresses are not fetched yet. Send the image in `image`.")
    return body.caption_request(await state.prepare(body.image_bytes))


Prepared = Annotated[CaptionRequest, Depends(_caption_request)]


@dataclass(slots=True)
class _Stream:
    first: CaptionEvent
    rest: MemoryObjectReceiveStream[CaptionEvent]


async def _opened(request: Request, caption: Prepared, state: State) -> AsyncIterator[_Stream]:
    """The stream, its first event in hand. Closed when the answer is over, however it ends."""
    last: CaptionEvent | None = None

    def observe(event: CaptionEvent) -> None:
        nonlocal last
        last = event
        state.metrics.event(event)

    try:
        async with caption_events(state.service.stream(caption), observe) as events:
            first = await unless_client_leaves(request, events.receive())
            if isinstance(first, Failed):
                raise HttpError.of(first.code, first.message)
            yield _Stream(first, events)
    finally:
        if not isinstance(last, Done | Failed):
            state.metrics.client_left()


# `model` here is what brings ErrorAnswer into the document, for all the references to it.
@router.post(
    "/caption",
    dependencies=[Depends(_slot)],
    responses={400: {"model": ErrorAnswer, "description": _ERRORS[400]}},
)
async def caption(request: Request, asked: Prepared, state: State) -> CaptionsAnswer:
    """Writes captions for an image and answers when all of them are finished."""
    try:
        return await unless_client_leaves(request, _written(asked, state))
    except ClientLeft:
        state.metrics.client_left()
        raise


async def _written(asked: CaptionRequest, state: AppState) -> CaptionsAnswer:
    collected = _Collected()
    async with caption_events(state.service.stream(asked), state.metrics.event) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise HttpError.of(event.code, event.message)
            if isinstance(event, Done):
                return collected.answer(event)
            collected.add(event)
    raise HttpError.of(INTERNAL.code, INTERNAL.message)


@router.post("/caption/stream", response_class=EventSourceResponse, dependencies=[Depends(_slot)])
async def caption_stream(stream: Annotated[_Stream, Depends(_opened)]) -> AsyncIterator[CaptionEvent]:
    """Writes captions and sends each event as it happens (SSE): the event's name is its `type`, its data the JSON.

    The order: `described`, `trends`, then `delta`, `highlight` and `candidate_done` of all candidates mixed, and at
    the end either `done` or `failed`.
    """
    # FastAPI documents the items' type and sends a ServerSentEvent as it is, so that events get their names.
    yield _named(stream.first)  # type: ignore[misc]
    async for event in stream.rest:
        yield _named(event)  # type: ignore[misc]


def _named(event: CaptionEvent) -> ServerSentEvent:
    return ServerSentEvent(event=event.type, raw_data=event.model_dump_json())


@dataclass(slots=True)
class _Collected:
    """Events put together into one answer."""

    description: str = ""
    trends: TrendsRetrieved | None = None
    highlights: dict[int, list[Highlight]] = field(default_factory=dict)
    finished: dict[int, CandidateDone] = field(default_factory=dict)

    def add(self, event: CaptionEvent) -> None:
        match event:
            case Described():
                self.description = event.text
            case TrendsRetrieved():
                self.trends = event
            case Highlight():
                self.highlights.setdefault(event.candidate, []).append(event)
            case CandidateDone():
                self.finished[event.candidate] = event
            case _:
                pass

    def answer(self, done: Done) -> CaptionsAnswer:
        retrieved = self.trends.trends if self.trends else ()
        by_id = {found.trend.id: found.trend for found in retrieved}
        return CaptionsAnswer(
            captions=[
                CaptionAnswer(
                    text=candidate.text,
                    confidence=candidate.confidence,
                    highlights=[
                        HighlightAnswer(start=mark.start, end=mark.end, trend_id=mark.trend_id)
                        for mark in sorted(self.highlights.get(number, []), key=lambda mark: mark.start)
                    ],
                    trends=[by_id[trend_id] for trend_id in candidate.trend_ids if trend_id in by_id],
                )
                for number, candidate in sorted(self.finished.items())
            ],
            description=self.description,
            retrieved=list(retrieved),
            reason=self.trends.reason if self.trends else None,
            judged=self.trends.judged if self.trends else None,
            snapshot=self.trends.snapshot if self.trends else None,
            model=done.model,
            draft=done.draft,
            usage=done.usage,
            timings=done.timings,
        )
