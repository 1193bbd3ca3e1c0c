"""The two ways to ask for captions: all at once (JSON) and as they are written (SSE).

What can be refused is refused before an answer begins, with its own status: a bad body, a bad image, a full line. The
stream's answer begins with the chain's first event, so a model that can't be reached for the first thing asked of it
answers 503 like any other error. That holds back nothing but the headers. A model that fails later (a note stood
alone, the trends were found, and the writer is away) is told by a `failed` event inside the stream.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated

from anyio.streams.memory import MemoryObjectReceiveStream
from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from serving.drain import Drain
from serving.http.callers import REFUSALS, CallerDep, counted, needs
from serving.http.collected import Collected
from serving.http.errors import HttpError, error_responses
from serving.http.idempotency import IdempotentRoute, documented_key
from serving.http.keeping import KeepingDep
from serving.http.limits import TOO_MANY, Admitted
from serving.http.schemas import (
    CaptionAnswer,
    CaptionBody,
    CaptionsAnswer,
    ErrorAnswer,
    FailedAnswer,
    HighlightAnswer,
)
from serving.http.state import ServicePort, State
from serving.http.stream import INTERNAL, caption_events, unless_client_leaves
from serving.http.uploads import CaptionUpload, either_body
from serving.identity.quota import Use
from trendrag.types import (
    CaptionEvent,
    CaptionRequest,
    Done,
    Failed,
)

_ERRORS = {
    400: "the body is not JSON, or not a form",
    408: "the body took too long to arrive",
    409: "the first request with this Idempotency-Key is still being answered",
    413: "the body or the image is too large",
    415: "the body is neither JSON nor a form",
    422: "a field or the image can't be used",
    429: TOO_MANY,
    500: "a fault of the server",
    502: "the model server, or that of an image's address, refused or broke off",
    503: "too many captions or images at once, the model server can't be used, or this server is ending; see "
    "Retry-After",
    504: "the model server, or that of an image's address, took too long",
}
router = APIRouter(
    prefix="/api/v1",
    tags=["captions"],
    route_class=IdempotentRoute,
    dependencies=[needs("captions"), Depends(documented_key)],
    responses=error_responses({**REFUSALS, **_ERRORS}),
)


async def through_the_door(state: State, admission: Admitted) -> AsyncIterator[None]:
    """For every route that asks the model: refused before the image costs anything, where the server is ending or the
    line in front of the model is full. Under way until the answer's last byte."""
    state.queue.refuse_when_full()
    with admission.running(), state.drain.request():
        yield


async def _caption_request(request: Request, upload: CaptionUpload, state: State) -> CaptionRequest:
    return upload.body.caption_request(await upload.image(request, state))


Prepared = Annotated[CaptionRequest, Depends(_caption_request)]


async def _counted(asked: Prepared, who: CallerDep, admission: Admitted, state: State) -> AsyncIterator[Use]:
    await admission.captions(len(asked.numbers))
    async with counted(state, who, len(asked.numbers)) as use:
        yield use


Counted = Annotated[Use, Depends(_counted)]


@dataclass(slots=True)
class _Stream:
    first: CaptionEvent
    rest: MemoryObjectReceiveStream[CaptionEvent]


async def _opened(
    request: Request, caption: Prepared, use: Counted, state: State, keeping: KeepingDep
) -> AsyncIterator[_Stream]:
    """The stream, its first event in hand. Closed when the answer is over, however it ends."""
    collected = Collected()

    def observe(event: CaptionEvent) -> None:
        use.event(event)
        collected.add(event)
        if isinstance(event, Done):  # here, so that who has read `done` finds it kept
            keeping.keep(caption, _answer(collected, event))

    async with caption_events(state.service.stream(caption), observe, state.drain) as events:
        first = await unless_client_leaves(request, events.receive())
        if isinstance(first, Failed):
            raise HttpError.of(first.code, first.message, first.retry_after)
        yield _Stream(first, events)


# `model` here is what brings ErrorAnswer into the document, for all the references to it.
@router.post(
    "/caption",
    dependencies=[Depends(through_the_door)],
    openapi_extra=either_body(CaptionBody),
    responses={400: {"model": ErrorAnswer, "description": _ERRORS[400]}},
)
async def caption(request: Request, asked: Prepared, use: Counted, state: State, keeping: KeepingDep) -> CaptionsAnswer:
    """Writes captions for an image and answers when all of them are finished."""
    written = write_captions(asked, state.service, state.drain, use.event)
    return keeping.keep(asked, await unless_client_leaves(request, written))


async def write_captions(
    asked: CaptionRequest, service: ServicePort, drain: Drain, observe: Callable[[CaptionEvent], None]
) -> CaptionsAnswer:
    """Raises HttpError where no caption could be written."""
    collected = Collected()
    async with caption_events(service.stream(asked), observe, drain) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise HttpError.of(event.code, event.message, event.retry_after)
            if isinstance(event, Done):
                return _answer(collected, event)
            collected.add(event)
    raise HttpError.of(INTERNAL.code, INTERNAL.message)


@router.post(
    "/caption/stream",
    response_class=EventSourceResponse,
    dependencies=[Depends(through_the_door)],
    openapi_extra=either_body(CaptionBody),
)
async def caption_stream(stream: Annotated[_Stream, Depends(_opened)]) -> AsyncIterator[CaptionEvent]:
    """Writes captions and sends each event as it happens (SSE): the event's name is its `type`, its data the JSON.

    The order: `described`, `trends`, then `delta`, `highlight` and a `candidate_done` or `candidate_failed` of all
    candidates mixed, and at the end either `done` or, where no candidate was finished, `failed`.
    """
    # FastAPI documents the items' type and sends a ServerSentEvent as it is, so that events get their names.
    yield _named(stream.first)  # type: ignore[misc]
    async for event in stream.rest:
        yield _named(event)  # type: ignore[misc]


def _named(event: CaptionEvent) -> ServerSentEvent:
    return ServerSentEvent(event=event.type, raw_data=event.model_dump_json())


def _answer(collected: Collected, done: Done) -> CaptionsAnswer:
    retrieved = collected.trends.trends if collected.trends else ()
    by_id = {found.trend.id: found.trend for found in retrieved}
    return CaptionsAnswer(
        captions=[
            CaptionAnswer(
                candidate=number,
                text=candidate.text,
                confidence=candidate.confidence,
                highlights=[
                    HighlightAnswer(start=mark.start, end=mark.end, trend_id=mark.trend_id)
                    for mark in sorted(collected.highlights.get(number, []), key=lambda mark: mark.start)
                ],
                trends=[by_id[trend_id] for trend_id in candidate.trend_ids if trend_id in by_id],
                cut=candidate.cut,
                missing=list(candidate.missing),
                unwanted=list(candidate.unwanted),
                degraded=candidate.degraded,
            )
            for number, candidate in sorted(collected.finished.items())
        ],
        failed=[
            FailedAnswer(candidate=one.candidate, code=one.code, message=one.message)
            for one in sorted(collected.failed, key=lambda one: one.candidate)
        ],
        description=collected.description,
        retrieved=list(retrieved),
        reason=collected.trends.reason if collected.trends else None,
        judged=collected.trends.judged if collected.trends else None,
        snapshot=collected.trends.snapshot if collected.trends else None,
        snapshot_age_s=done.snapshot_age_s,
        model=done.model,
        draft=done.draft,
        degraded=done.degraded,
        usage=done.usage,
        timings=done.timings,
    )
