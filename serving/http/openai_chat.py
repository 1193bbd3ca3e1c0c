"""TrendRAG as a model for OpenAI's clients: `/v1/models` and `/v1/chat/completions`.

Two kinds of model. `trendrag` is the caption chain: a photo and a note in, captions out, with trends; what OpenAI's
protocol has no place for (trends, highlights, confidence) is in an extra field, `trendrag`, that other clients ignore.
`trendrag-plain`, and the model server's model by its own name, are that server behind our limits, deadlines and image
checks: the caller's messages go there as they are, and its events come back as they are.

What a model can't take is refused by name. No answer begins before there is a first piece of text, so that what fails
until then has a status of its own; what fails later is an error inside the stream, as vLLM sends it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from serving.http.callers import REFUSALS, Caller, CallerDep, counted, needs
from serving.http.captions import through_the_door
from serving.http.collected import Collected
from serving.http.errors import HttpError, error_responses
from serving.http.limits import TOO_MANY, Admission, Admitted
from serving.http.openai_answers import Chunks, whole_answer
from serving.http.openai_images import data_url_bytes, is_data_url, replace, strip_data_urls
from serving.http.openai_requests import Asked, asked_of, read_body, refused
from serving.http.openai_schemas import ChatBody
from serving.http.openai_stream import EventStream
from serving.http.state import AppState, State
from serving.http.stream import INTERNAL, unless_client_leaves, unless_cut
from serving.ports import Gateway
from trendrag.errors import ModelError, ShuttingDown
from trendrag.types import CaptionRequest, Delta, Done, Failed

TRENDS = "trendrag"
PLAIN = "trendrag-plain"
INLINE_BYTES = 256 * 1024
"""Images up to this are checked where the request is; larger ones beside the event loop, so that no stream waits."""

_WORDS = {
    400: "a field or an image can't be used",
    404: "there is no such model",
    413: "the request or an image is too large",
    415: "the body is not sent as application/json",
    429: TOO_MANY,
    500: "a fault of the server",
    502: "the model server refused, or broke off",
    503: "too many requests at once, or the model server can't be reached; see Retry-After",
    504: "the model server took too long",
}
router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[needs("captions")], responses=error_responses(REFUSALS))


@router.get("/models")
async def models(state: State) -> dict[str, Any]:
    """Lists the models: `trendrag`, and where the model server speaks this protocol, that server's own."""
    return {"object": "list", "data": [_model(name) for name in _names(state)]}


@router.get("/models/{name:path}", responses=error_responses({404: _WORDS[404], 422: "never: on `/v1` it is 400"}))
async def model(name: str, state: State) -> dict[str, Any]:
    """One of them."""
    if name not in _names(state):
        raise _no_such_model(state)
    return _model(name)


@router.post(
    "/chat/completions",
    dependencies=[Depends(through_the_door)],
    responses=error_responses(_WORDS),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
        }
    },
)
async def chat_completions(request: Request, who: CallerDep, admission: Admitted, state: State) -> Response:
    """OpenAI's chat completions, streamed or not.

    With the model `trendrag` the text of the message that holds the photo is the note, and later messages refine: a
    caption (assistant), then what to change (user). System messages have no effect: the field `trendrag` is the place
    for platform, tone and language.
    """
    body = await read_body(request)
    if body.model == TRENDS:
        asked = asked_of(body)
        if body.stream:
            return EventStream(_caption_stream(body, asked, who, admission, state), state.drain)
        return await _whole(request, state, _caption_answer(asked, who, admission, state))
    gateway = state.service.gateway
    if gateway is None or body.model not in (PLAIN, gateway.name):
        raise _no_such_model(state)
    if body.trendrag is not None:
        raise refused(f"trendrag: this field is for the model {TRENDS}.")
    if body.stream:
        return EventStream(_plain_stream(body, gateway, who, admission, state), state.drain)
    return await _whole(request, state, _plain_answer(body, gateway, who, admission, state))


async def _plain_stream(
    body: ChatBody, gateway: Gateway, who: Caller, admission: Admission, state: AppState
) -> AsyncGenerator[bytes, None]:
    async with _turn(body, who, admission, state):
        sent = await _for_server(body, gateway, state)
        async with aclosing(gateway.stream(sent)) as events:
            async for together in events:
                yield b"".join([b"data: %b\n\n" % event for event in together])


async def _plain_answer(body: ChatBody, gateway: Gateway, who: Caller, admission: Admission, state: AppState) -> bytes:
    async with _turn(body, who, admission, state):
        return await gateway.complete(await _for_server(body, gateway, state))


async def _for_server(body: ChatBody, gateway: Gateway, state: AppState) -> bytes:
    """What the model server is sent: its images checked, without metadata, none of them an address."""
    if sum(len(image.url) for image in body.images()) <= INLINE_BYTES:
        longer = strip_data_urls(body, state.image_settings)
    else:
        longer = await asyncio.to_thread(strip_data_urls, body, state.image_settings)
    for image in longer:
        await replace(image, state.fetcher.fetch, state.image_pool, state.image_settings)
    return body.for_server(gateway.name)


async def _caption_stream(
    body: ChatBody, asked: Asked, who: Caller, admission: Admission, state: AppState
) -> AsyncGenerator[bytes, None]:
    request = await _caption_request(asked, state)
    await admission.captions(request.candidates)
    chunks = Chunks(_identity(), int(time.time()), TRENDS, request.candidates)
    held = b""
    begun = False
    async with (
        counted(state, who, request.candidates) as use,
        aclosing(state.service.stream(request)) as events,
    ):
        async for event in events:
            use.event(event)
            if isinstance(event, Failed):
                raise HttpError.of(event.code, event.message, event.retry_after)
            held += chunks.of(event)
            begun = begun or isinstance(event, Delta)
            if isinstance(event, Done):
                yield held + (chunks.usage(event.usage) if body.include_usage else b"")
                return
            if begun:
                yield held
                held = b""
    raise HttpError.of(INTERNAL.code, INTERNAL.message)


async def _caption_answer(asked: Asked, who: Caller, admission: Admission, state: AppState) -> bytes:
    collected = Collected()
    request = await _caption_request(asked, state)
    await admission.captions(request.candidates)
    async with (
        counted(state, who, request.candidates) as use,
        aclosing(state.service.stream(request)) as events,
    ):
        async for event in events:
            use.event(event)
            if isinstance(event, Failed):
                raise HttpError.of(event.code, event.message, event.retry_after)
            if isinstance(event, Done):
                return whole_answer(collected, _identity(), int(time.time()), TRENDS, event)
            collected.add(event)
    raise HttpError.of(INTERNAL.code, INTERNAL.message)


async def _caption_request(asked: Asked, state: AppState) -> CaptionRequest:
    photo = asked.photo
    if is_data_url(photo):
        return asked.request(await state.prepare(lambda: data_url_bytes(photo)))
    image = await state.fetcher.fetch(photo)
    return asked.request(await state.prepare(lambda: image))


@asynccontextmanager
async def _turn(body: ChatBody, who: Caller, admission: Admission, state: AppState) -> AsyncIterator[None]:
    """What ``serving.watched`` does for captions: charged, in its turn, and counted how it ends."""
    answers = body.n or 1
    await admission.captions(answers)
    async with counted(state, who, answers), state.queue.turn(answers):
        with _watched(state), state.metrics.in_flight.track_inprogress():
            yield


@contextmanager
def _watched(state: AppState) -> Iterator[None]:
    """Counts how a passed-on answer ends badly; captions are counted by ``serving.watched``."""
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        if state.drain.cutting:
            state.metrics.failed(ShuttingDown.code)
        else:
            state.metrics.client_left()
        raise
    except ModelError as error:
        state.metrics.failed(error.code)
        raise


async def _whole(request: Request, state: AppState, making: Coroutine[Any, Any, bytes]) -> Response:
    made = await unless_client_leaves(request, unless_cut(state.drain, making))
    return Response(made, media_type="application/json")


def _names(state: AppState) -> list[str]:
    gateway = state.service.gateway
    return list(dict.fromkeys([TRENDS, PLAIN, gateway.name] if gateway else [TRENDS]))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "trendrag"}


def _no_such_model(state: AppState) -> HttpError:
    return HttpError(404, "model_not_found", f"model: there is no such model. There is {', '.join(_names(state))}.")


def _identity() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"
