"""Who is charged for a request, how a refusal is told, and how the rest of an allowance is.

A caller without a key is counted by address, before anything of the body is read; one with a key by the key, as soon as
it is known to be good. A visitor's cookie is charged to no one: whoever deletes it gets another. Programs on this
machine are not counted where nothing stands between them and us.

The headers are those of the IETF's draft-ietf-httpapi-ratelimit-headers-11:

    RateLimit-Policy: "requests";q=120;w=60, "captions";q=2000;w=86400
    RateLimit: "requests";r=119;t=1, "captions";r=1997;t=44
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.callers import CallerDep
from serving.http.clients import counted_as, is_local
from serving.http.errors import HttpError, error_response
from serving.http.state import STATE_KEY, AppState
from serving.limits import Allowance, Busy, Limits, MemoryCounters, Standing, Window, used

COUNTED = ("/api/", "/v1/")
"""What costs something. The page's files and what operators ask are not counted."""

WRONG_KEYS = 20
"""Keys that nobody has, a minute and an address; more are refused before they are looked up."""

_SCOPE_KEY = "trendrag.admission"
_AT_ONCE_RETRY_S = 2


@dataclass(slots=True)
class Admission:
    """What one request may do, and what it has been charged. ``caller`` is None where nothing is counted."""

    limits: Limits
    allowance: Allowance
    caller: str | None
    standings: dict[str, Standing] = field(default_factory=dict)

    async def request(self) -> None:
        """Charges the request, once.

        Raises:
            HttpError: 429, the caller made too many within a minute.
        """
        if self.caller is None or "requests" in self.standings:
            return
        standing = await self.limits.request(self.caller, self.allowance)
        if standing is not None:
            self.standings[standing.name] = standing
            if standing.refused is not None:
                self.limits.refused["rate"] += 1
                message = f"Too many requests: {standing.quota} a minute are allowed. Wait as Retry-After says."
                raise HttpError(429, "rate_limited", message, standing.refused)

    async def captions(self, candidates: int) -> None:
        """Charges captions that are about to be written, whatever becomes of them.

        Raises:
            HttpError: 429, these would be more than the caller may have in a day.
        """
        if self.caller is None:
            return
        standing = await self.limits.captions(self.caller, self.allowance, candidates)
        if standing is not None:
            self.standings[standing.name] = standing
            if standing.refused is not None:
                self.limits.refused["quota"] += 1
                message = f"{standing.quota} captions in 24 hours are allowed, and {standing.remaining} are left."
                # More than a whole day's are never granted, however long one waits.
                retry_after = standing.refused if candidates <= standing.quota else None
                raise HttpError(429, "quota_exceeded", message, retry_after)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Held while captions are written.

        Raises:
            HttpError: 429, as many as the caller may have at a time are being written.
        """
        with ExitStack() as held:
            if self.caller is not None:
                try:
                    held.enter_context(self.limits.running(self.caller, self.allowance))
                except Busy:
                    self.limits.refused["concurrency"] += 1
                    message = (
                        f"{self.allowance.concurrent} caption requests at a time are allowed. Wait for one to end."
                    )
                    raise HttpError(429, "too_many_at_once", message, _AT_ONCE_RETRY_S) from None
            yield

    def headers(self) -> dict[str, str]:
        if not self.standings:
            return {}
        told = self.standings.values()
        return {
            "RateLimit-Policy": ", ".join(f'"{each.name}";q={each.quota};w={each.window_s}' for each in told),
            "RateLimit": ", ".join(f'"{each.name}";r={each.remaining};t={each.reset_s}' for each in told),
        }


class RateLimits:
    """Counts requests without a key by address, before their body is read, and writes the headers for all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._wrong_keys = MemoryCounters(capacity=10_000)  # this server's own: a guess need not wait for Redis

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(COUNTED):
            await self._app(scope, receive, send)
            return
        state: AppState = scope["state"][STATE_KEY]
        address = counted_as(scope)
        local = is_local(scope)
        caller = None if local else f"address:{address}"
        admission = scope[_SCOPE_KEY] = Admission(state.limits, state.limits.allowance, caller)
        guesses = not local and _presents_key(Headers(scope=scope))

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(admission.headers())
                if guesses and message["status"] == 401:
                    await self._wrong_keys.acquire_sliding_window_entry(address, WRONG_KEYS, 60)
            await send(message)

        try:
            if guesses:
                await self._refuse_guesses(address)
            else:
                await admission.request()
        except HttpError as error:
            await error_response(error.status_code, error.code, error.detail, error.headers)(scope, receive, send_told)
            return
        await self._app(scope, receive, send_told)

    async def _refuse_guesses(self, address: str) -> None:
        window = Window(*await self._wrong_keys.get_sliding_window(address, 60))
        if used(window, 60) >= WRONG_KEYS:
            message = "Too many wrong keys came from this address. Check the key, and try again in a minute."
            raise HttpError(429, "rate_limited", message, 60)


def _presents_key(headers: Headers) -> bool:
    return "x-api-key" in headers or "authorization" in headers


async def admitted(request: Request, caller: CallerDep) -> Admission:
    """The request's admission, charged to its key where it has a good one. For every route under ``COUNTED``.

    Raises:
        HttpError: 429.
    """
    admission: Admission = request.scope[_SCOPE_KEY]
    if caller.kind == "key":
        admission.caller = caller.owner
        if caller.key is not None and caller.key.captions_per_day is not None:  # its own, counted with the key
            admission.allowance = admission.allowance._replace(captions_per_day=0)
    await admission.request()  # nothing, where it was charged before the body was read
    return admission


Admitted = Annotated[Admission, Depends(admitted)]

TOO_MANY = "too many requests, captions a day or captions at a time; see Retry-After and RateLimit"
"""For the responses of counted routes in the OpenAPI document."""
