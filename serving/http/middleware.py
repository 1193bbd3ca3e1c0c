"""What holds for every request, as plain ASGI: its id, its line in the log, its headers, and a limit on its body.

Plain ASGI, because Starlette's BaseHTTPMiddleware puts a task between server and route, and a stream has to notice at
once that its client left.
"""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import HttpError, error_response
from serving.http.metrics import Metrics
from serving.http.stream import INTERNAL

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"


class RequestContext:
    """Outermost: sees every answer, and turns an exception that nobody expected into a 500 without a stack trace."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
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
                if "Content-Security-Policy" not in headers:  # the page and its files bring their own
                    headers["Content-Security-Policy"] = _API_POLICY
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:
            log.exception("unexpected error, request %s", request_id)
            if status:
                raise  # the answer has begun: only the server can break it off
            await error_response(500, INTERNAL.code, INTERNAL.message)(scope, receive, send_marked)
        finally:
            seconds = time.perf_counter() - started
            # The template and not the path: paths hold whatever a client sends, line ends too.
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            self._metrics.request(scope["method"], route, status, seconds)
            log.info("%s %s %d %.3f s, request %s", scope["method"], route, status, seconds, request_id)


class BodyLimit:
    """Refuses a body over ``max_bytes`` (413) from its Content-Length, or while it arrives, without keeping it.

    At most ``max_total`` bytes of bodies are held at once, over all requests; more answer 503. The answer goes out
    while the client may still be sending. The server then reads on and throws away, so that the client gets to the
    answer; closing at once would reset the connection and lose it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_total: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total = max_total
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
        mine = 0

        async def receive_counted() -> Message:
            nonlocal mine
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                mine += size
                self._held += size
                if mine > self._max_bytes:
                    raise self._too_large()
                if self._held > self._max_total:
                    raise HttpError(503, "busy", "Too many uploads at once. Try again in a moment.", retry_after=2)
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._held -= mine

    def _too_large(self) -> HttpError:
        limit = f"{self._max_bytes / 2**20:.0f} MiB" if self._max_bytes >= 2**20 else f"{self._max_bytes} bytes"
        return HttpError(413, "body_too_large", f"The request is over {limit}. Send a smaller image.")


def body_limits(max_image_bytes: int) -> tuple[int, int]:
    """(largest body, all bodies at once) in bytes: base64 takes 4 bytes for 3, and a note comes along."""
    largest = max_image_bytes * 4 // 3 + 64 * 1024
    return largest, 8 * largest
