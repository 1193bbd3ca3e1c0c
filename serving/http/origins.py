"""Which requests of browsers are taken: those of pages that were meant to make them.

A browser sends a page's request to any address, this machine's too, and only keeps the answer from the page. Two tricks
make use of that. *DNS rebinding*: a page's own name is made to point to 127.0.0.1, and its requests are then of the
same origin; only the Host header still has that name. *Forgery*: a form or a fetch that needs no permission
(multipart/form-data, text/plain) is carried out before anybody asks; Sec-Fetch-Site or Origin tell where it came from.
Programs other than browsers send neither, and are let through.
"""

import ipaddress
from collections.abc import Collection
from functools import lru_cache

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.errors import error_response

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
RESPONSES: dict[int | str, dict[str, object]] = {
    403: {"content": _ERROR, "description": "sent by a page of an origin that may not"},
    421: {"content": _ERROR, "description": "sent to a name that is none of this server's"},
}
"""Of every route in the OpenAPI document, for `FastAPI(responses=...)`."""

_READ_ONLY = {"GET", "HEAD", "OPTIONS"}
_SENT = ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-API-Key", "X-Request-ID"]
_READ = [
    "ETag", "Idempotency-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Caption-Id",
    "X-History", "X-Request-ID",
]  # fmt: skip
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class TrustedOrigins:
    """Refuses other names than ours in Host (421), and requests that change or cost something from pages of other
    origins than ours and ``origins`` (403). ``*`` among the latter takes all; among ``hosts``, all names."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {"localhost", *hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not self._ours(headers.get("host", "")):
                message = (
                    "This server does not go by the name in the Host header. Its operator lists the names that it is "
                    "reached by in TRENDRAG_SERVER__HOSTS."
                )
                await error_response(421, "unknown_host", message)(scope, receive, send)
                return
            if scope["method"] not in _READ_ONLY and not self._meant(headers):
                message = (
                    "This request came from a page of another origin. The operator lists the origins that may send "
                    "some in TRENDRAG_SERVER__CORS_ORIGINS."
                )
                await error_response(403, "cross_origin", message)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _ours(self, host: str) -> bool:
        name = host_name(host)
        if name is None:
            return False
        return name in self._hosts or "*" in self._hosts or name.endswith(".localhost") or _is_address(name)

    def _meant(self, headers: Headers) -> bool:
        origin = headers.get("origin", "")
        if "*" in self._origins or (origin and origin in self._origins):
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        if not origin:
            return True
        # Older browsers, and connections without TLS. The scheme is not compared: a proxy may have taken TLS off.
        scheme, _, authority = origin.partition("://")
        host = headers.get("host", "").lower()
        port = _DEFAULT_PORTS.get(scheme, "")
        return authority.removesuffix(port) == host.removesuffix(port) if port else False


def allow_cors(app: FastAPI, origins: Collection[str]) -> None:
    """Lets scripts of these origins read answers; without any, nothing is said and browsers keep answers from them.
    Cookies go along only where origins are named."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_credentials="*" not in origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_SENT,
            expose_headers=_READ,
            max_age=600,
        )


def host_name(host: str) -> str | None:
    """The name or address of a Host header, lower case, without port, brackets and final dot; None where it is none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") else port and "x"
    else:
        name, _, port = host.partition(":")
        bracket = "]"
    if not name or not bracket or (port and not port.isdecimal()):
        return None
    return name.lower().removesuffix(".")


@lru_cache(maxsize=1_024)
def _is_address(name: str) -> bool:
    """An address can't be rebound: only a page that we served has it for its origin."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
