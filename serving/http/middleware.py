"""What holds for every request, as plain ASGI: its id, its line in the log, its headers, and a limit on its body.

Plain ASGI, because Starlette's BaseHTTPMiddleware puts a task between server and route, and a stream has to notice at
once that its client left.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass

from opentelemetry.trace import Span, Tracer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.conditional import POLICY
from serving.http.errors import HttpError, error_response
from serving.http.metrics import Metrics
from serving.http.stream import INTERNAL
from serving.telemetry import METHODS, PROBES, answered, server_span, trace_id
from trendrag.logs import bound

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The page chooses photos and needs nothing of the device.
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_RELEASE = "trendrag.release_body"  # in the ASGI scope
# A browser that came by TLS once comes by nothing else for a year; not for other names below ours, which we don't know.
_HSTS = "max-age=31536000"


class RequestContext:
    """Sees every answer, and turns an exception that nobody expected into a 500 without a stack trace."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        about = {"trendrag.request_id": request_id}
        with server_span(self._tracer, scope["method"], scope["path"], headers, about) as span:
            traced = {"trace_id": number} if (number := trace_id(span)) else {}
            with bound(request_id=request_id, **traced):
                await self._answer(scope, receive, send, request_id, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Span) -> None:
        started = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = _HSTS
                if "Content-Security-Policy" not in headers:  # the page and its files bring their own
                    headers["Content-Security-Policy"] = POLICY
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:
            log.exception("unexpected error")
            if status:
                raise  # the answer has begun: only the server can break it off
            await error_response(500, INTERNAL.code, INTERNAL.message)(scope, receive, send_marked)
        finally:
            seconds = time.perf_counter() - started
            # The template and not the path: paths hold whatever a client sends, line ends too.
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.request(method, route, status, seconds)
            answered(span, method, route, status)
            fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
            level = logging.DEBUG if route in PROBES and status < 500 else logging.INFO
            log.log(level, "%s %s %d %.3f s", method, route, status, seconds, extra={"fields": fields})


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may arrive: at first within ``grace_s`` seconds, and then longer by what has arrived, at
    ``bytes_per_s``. The defaults let a phone on a bad network send a large photo, and end a byte a second."""

    grace_s: float = 20.0
    bytes_per_s: float = 32 * 1024


class BodyLimit:
    """Refuses a body over ``max_bytes`` (413) from its Content-Length, or while it arrives, without keeping it, and one
    that arrives more slowly than ``pace`` (408).

    At most ``max_total`` bytes of bodies are held at once, over all requests; more answer 503. A route that is done
    with its body before its answer is says so with ``release_body``. The answer goes out while the client may still be
    sending. The server then reads on and throws away, so that the client gets to the answer; closing at once would
    reset the connection and lose it. After a 408 it does close: nobody is to be waited for any more.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_total: int, pace: Pace | None = None) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total = max_total
        self._pace = pace or Pace()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            refusal = self._too_large()
            await error_response(refusal.status_code, refusal.code, refusal.detail)(scope, receive, send)
            return
        read = held = 0
        arriving = True
        deadline = asyncio.get_running_loop().time() + self._pace.grace_s

        async def receive_counted() -> Message:
            nonlocal read, held, arriving
            if not arriving:  # what still comes is only that the client has left
                return await receive()
            try:
                async with asyncio.timeout_at(deadline + read / self._pace.bytes_per_s):
                    message = await receive()
            except TimeoutError as error:
                raise _too_slow() from error
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                arriving = message.get("more_body", False)
                read += size
                held += size
                self._held += size
                if read > self._max_bytes:
                    raise self._too_large()
                if self._held > self._max_total:
                    raise HttpError(503, "busy", "Too many uploads at once. Try again in a moment.", retry_after=2)
            return message

        def release() -> None:
            nonlocal held
            self._held -= held
            held = 0

        scope[_RELEASE] = release
        try:
            await self._app(scope, receive_counted, send)
        finally:
            release()

    def _too_large(self) -> HttpError:
        limit = f"{self._max_bytes / 2**20:.0f} MiB" if self._max_bytes >= 2**20 else f"{self._max_bytes} bytes"
        return HttpError(413, "body_too_large", f"The request is over {limit}. Send a smaller image.")


def _too_slow() -> HttpError:
    error = HttpError(408, "body_too_slow", "The request took too long to arrive. Send it again, or a smaller image.")
    error.headers = {"Connection": "close"}
    return error


def release_body(scope: Scope) -> None:
    """Says that a request's body is no longer held, so that others may be: a caption streams long after its image."""
    if release := scope.get(_RELEASE):
        release()


def body_limits(max_image_bytes: int) -> tuple[int, int]:
    """(largest body, all bodies at once) in bytes: base64 takes 4 bytes for 3, and a note comes along."""
    largest = max_image_bytes * 4 // 3 + 64 * 1024
    return largest, 8 * largest
