"""`Idempotency-Key`: a caption request that is sent again is answered again, and not written again.

A route class, so that it stands around the whole of a route: who asks is known, and what goes out is what is kept. Only
successes are: an error is for the caller to mend, or for the next attempt to miss. A stream is kept whole and sent at
once to who repeats it.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from serving.http.callers import identify
from serving.http.errors import HttpError
from serving.http.limits import admitted
from serving.http.state import AppState, app_state
from serving.store.idempotency import Kept, UnderWay
from trendrag.errors import StorageError

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
CLAIM_S = 30.0
MAX_KEPT_BYTES = 2 * 2**20
_KEY = re.compile(r"[\x21-\x7e]{1,200}")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        min_length=1,
        max_length=200,
        pattern=rf"^{_KEY.pattern}$",
        description="chosen by you, another one for each request that you mean: a request that comes again with its "
        "key is not done again",
    ),
]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


async def documented_key(key: IdempotencyKey = None) -> None:
    """For the ``dependencies`` of an `IdempotentRoute`, which reads the header itself: puts it into the document."""


class IdempotentRoute(APIRoute):
    """Answers a request with a key that was answered before as it was then."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            key = request.headers.get(HEADER)
            return await answer(request) if key is None else await _once(request, key, answer)

        return handle


async def _once(request: Request, key: str, answer: Handler) -> Response:
    if not _KEY.fullmatch(key):
        raise HttpError(422, "invalid_request", f"{HEADER}: send 1 to 200 visible ASCII characters.")
    state = app_state(request)
    who = await identify(request, state)
    await admitted(request, who)  # the route's own asking comes too late for what is answered here
    owner = who.owner
    fingerprint = _fingerprint(request, await request.body())
    now = state.now()
    try:
        found = await state.idempotency.claim(owner, key, fingerprint, now, now + timedelta(seconds=CLAIM_S))
    except StorageError as error:
        log.warning("a request's %s is not minded: %s", HEADER, error)
        return await answer(request)
    if isinstance(found, UnderWay):
        message = "The first request with this Idempotency-Key is still being answered. Wait, then send this one again."
        raise HttpError(409, "in_progress", message, retry_after=2)
    if found is not None:
        return Response(found.body, found.status, {**found.headers, REPLAYED: "true"}, found.kind)
    claim = _Claim(state, owner, key)
    try:
        async with claim.held():
            response = await answer(request)
    except BaseException:
        await claim.give_up()
        raise
    if isinstance(response, StreamingResponse):
        response.body_iterator = claim.recorded(response, response.body_iterator)
    else:
        await claim.conclude(response.status_code, response, bytes(response.body))
    return response


class _Claim:
    def __init__(self, state: AppState, owner: str, key: str) -> None:
        self._state = state
        self._owner = owner
        self._key = key

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Kept alive for as long as the context is open."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_S / 3)
            with suppress(StorageError):
                until = self._state.now() + timedelta(seconds=CLAIM_S)
                await self._state.idempotency.renew(self._owner, self._key, until)

    async def recorded(self, response: StreamingResponse, stream: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """The stream as it is, kept where it was sent to its good end."""
        parts: list[bytes] = []
        size = 0
        try:
            async with self.held():
                async for part in stream:
                    data = part.encode() if isinstance(part, str) else bytes(part)
                    size += len(data)
                    if size <= MAX_KEPT_BYTES:
                        parts.append(data)
                    yield part
        except BaseException:
            await asyncio.shield(self.give_up())
            raise
        body = b"".join(parts)
        await self.conclude(response.status_code if size <= MAX_KEPT_BYTES and _good(body) else 500, response, body)

    async def conclude(self, status: int, response: Response, body: bytes) -> None:
        if not 200 <= status < 300:
            await self.give_up()
            return
        with suppress(StorageError):  # the answer is there all the same
            kept = Kept(status, _kind(response), body, _others(response))
            await self._state.idempotency.keep(self._owner, self._key, kept)

    async def give_up(self) -> None:
        with suppress(StorageError):  # the claim runs out
            await self._state.idempotency.give_up(self._owner, self._key)


def _good(stream: bytes) -> bool:
    """Whether a stream of events ended with success."""
    return b"event: done\n" in stream


def _kind(response: Response) -> str:
    return response.headers.get("content-type", "application/json")


def _others(response: Response) -> dict[str, str]:
    """Headers that the routes gave the answer, such as the id that the history has it under; what every answer gets
    comes later. Those of the body are made anew with it."""
    return {name: value for name, value in response.headers.items() if name not in {"content-type", "content-length"}}


def _fingerprint(request: Request, body: bytes) -> str:
    """Of method, address and body. A form's boundary is made anew for each sending, and does not count."""
    kind = request.headers.get("content-type", "")
    boundary = re.search(r'boundary="?([^";,\s]+)', kind)
    if boundary:
        body = body.replace(boundary[1].encode(), b"")
        kind = kind[: boundary.start()]
    address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    said = f"{request.method} {address} {kind.strip().lower()}\n".encode()
    return hashlib.sha256(said + body).hexdigest()
