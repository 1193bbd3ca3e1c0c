"""One request to an OpenAI-compatible server: bytes of JSON out, whole events or a whole answer back.

Knows HTTP, the framing of events and what a server says when it refuses; what is inside an event is the business of
``lean`` (a LangChain model) and ``gateway`` (which passes events on). Nothing is ever sent twice.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import SecretStr
from pydantic_core import from_json

from serving.models.sse import EventParser, EventTooLong
from trendrag.errors import ModelInterrupted

DONE = b"[DONE]"
MAX_ANSWER_BYTES = 16 * 2**20
"""Longest answer taken that is not streamed."""
MAX_REFUSAL_BYTES = 64 * 1024
SILENCE_S = 60.0
CUT_OFF = "The model server ended its answer before the model had finished. Try again."
MALFORMED = "The model server sent something that is no event of a chat answer. Try again."


class ServerError(Exception):
    """The server refused (``status_code``), or broke off with an error inside its stream (None).

    ``body`` is its error object as far as it could be read, ``response`` what it answered, ``request`` what was sent:
    what ``serving.models.chat.model_error`` makes its sentence of.
    """

    def __init__(self, status_code: int | None, body: object, response: httpx2.Response | None = None) -> None:
        super().__init__("the model server refused" if status_code else "the model server broke off")
        self.status_code = status_code
        self.body = body
        self.response = response
        self.request = response.request if response else None


@dataclass(frozen=True, slots=True)
class Wire:
    """Where a server is, its key, and the connections to it. ``base_url`` ends without a slash, as in ``…/v1``."""

    client: httpx2.AsyncClient
    base_url: str
    key: SecretStr

    async def events(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The data of the events of a streamed chat answer: those that came together in one list, none of it empty.

        Ends at ``[DONE]``. Closing it closes the connection, upon which the server stops generating.

        Raises:
            ServerError: it refused.
            ModelInterrupted: its stream ended without ``[DONE]``, or holds what is no event.
            httpx2.HTTPError: it can't be reached, or the connection broke.
        """
        parser = EventParser()
        async with self._asked(body) as response:
            # We ask for no compression; where a server does it all the same, httpx2 undoes it, at a price.
            coded = "content-encoding" in response.headers
            async with aclosing(response.aiter_bytes() if coded else response.aiter_raw()) as pieces:
                async for piece in pieces:
                    try:
                        events = parser.feed(piece)
                    except EventTooLong as error:
                        raise ModelInterrupted(MALFORMED) from error
                    if DONE in events:
                        if events := events[: events.index(DONE)]:
                            yield events
                        # Read to its end, the connection serves the next request too.
                        with suppress(httpx2.HTTPError):
                            async for _ in pieces:
                                pass
                        return
                    if events:
                        yield events
        raise ModelInterrupted(CUT_OFF)

    async def answer(self, body: bytes) -> bytes:
        """A whole chat answer, of at most MAX_ANSWER_BYTES. Raises as ``events`` does."""
        async with self._asked(body) as response:
            answer = await _start_of(response, MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            raise ModelInterrupted(MALFORMED)
        return answer

    async def check(self) -> None:
        """Returns where the server answers when it is asked for its models, whatever it lists. Raises as ``events``."""
        response = await self.client.get(f"{self.base_url}/models", headers=_headers(self.key))
        if not response.is_success:
            raise ServerError(response.status_code, _error_object(response.content), response)

    @asynccontextmanager
    async def _asked(self, body: bytes) -> AsyncIterator[httpx2.Response]:
        request = self.client.build_request(
            "POST", f"{self.base_url}/chat/completions", content=body, headers=_headers(self.key)
        )
        response = await self.client.send(request, stream=True)
        try:
            if response.status_code != 200:
                said = await _start_of(response, MAX_REFUSAL_BYTES)
                raise ServerError(response.status_code, _error_object(said), response)
            yield response
        finally:
            await response.aclose()


def events_of_a_new_connection(base_url: str, key: SecretStr, body: bytes) -> Iterator[bytes]:
    """As ``Wire.events``, one by one, for a caller without an event loop; a minute's silence ends it."""
    parser = EventParser()
    with httpx2.stream(
        "POST", f"{base_url}/chat/completions", content=body, headers=_headers(key), timeout=SILENCE_S
    ) as response:
        if response.status_code != 200:
            raise ServerError(response.status_code, _error_object(response.read()), response)
        for piece in response.iter_bytes():
            for event in parser.feed(piece):
                if event == DONE:
                    return
                yield event
    raise ModelInterrupted(CUT_OFF)


def _headers(key: SecretStr) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {key.get_secret_value()}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


async def _start_of(response: httpx2.Response, size: int) -> bytes:
    """The first ``size`` bytes of an answer, all of it where it is shorter."""
    read = bytearray()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            read += piece
            if len(read) >= size:
                break
    return bytes(read[:size])


def _error_object(said: bytes) -> object:
    """What OpenAI's protocol puts under ``error``; the whole where there is no such thing; None for no JSON."""
    try:
        told = json.loads(said)
    except (ValueError, RecursionError):
        return None
    return told.get("error", told) if isinstance(told, dict) else told


def event_object(data: bytes) -> dict[str, Any]:
    """What an event, or a whole answer, holds.

    Raises:
        ModelInterrupted: it is no object of JSON.
        ServerError: it is an error.
    """
    try:
        told = from_json(data)
    except ValueError as error:
        raise ModelInterrupted(MALFORMED) from error
    if not isinstance(told, dict):
        raise ModelInterrupted(MALFORMED)
    if refused := told.get("error"):
        raise ServerError(None, refused)
    return told
