"""Who asks: whose history a caption goes to, whose limits count, and whether they may.

A caller is known by an API key, by the page's cookie, or as ``local`` where nobody is asked. Every route that is not
for everybody has ``needs(scope)`` among its dependencies, or takes the caller itself (``CallerDep``).

A refusal says what is wrong with a key only to who holds it: of one that is unknown or was damaged nothing is told.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer, SecurityScopes
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import serving.identity.keys
from serving.http.errors import ClientLeft, HttpError
from serving.http.state import AppState, app_state
from serving.identity.door import Door
from serving.identity.headers import claimed
from serving.identity.keyring import Fault
from serving.identity.keys import SCOPES, ApiKey
from serving.identity.quota import QuotaExceeded, Use
from serving.identity.visitors import COOKIE, MAX_AGE_S, SECURE_COOKIE
from trendrag.errors import StorageError

LOCAL = "local"
_KNOWN = "trendrag.caller"
"""Where a request's scope keeps its caller once it is known."""

_VISITORS_MAY = frozenset({"captions", "history"})
REFUSALS: Mapping[int, str] = {
    401: "an API key is needed, or this one is no good",
    403: "the API key lacks the scope that is needed",
}
"""For the API's description, of every route that ``needs`` something."""
_FAULTS: Mapping[Fault | Literal["malformed"], tuple[str, str]] = {
    "unknown": ("key_invalid", "This API key is not known here. Send it whole, as it was shown when it was created."),
    "malformed": ("key_invalid", "This API key is not known here. Send it whole, as it was shown when it was created."),
    "expired": ("key_expired", "This API key has expired. Ask whoever gave it to you for a new one."),
    "revoked": ("key_revoked", "This API key was revoked. Ask whoever gave it to you for a new one."),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """``owner`` is what rows in the service database are kept under, at most 80 characters: ``key:ID`` of an API key,
    ``visitor:ID`` of a signed cookie, ``local`` where neither is asked for. ``key`` is there for callers with one.
    ``scopes`` is what they may: everything where nobody is asked for a key."""

    owner: str
    kind: Literal["key", "visitor", "local"]
    key: ApiKey | None = None
    scopes: frozenset[str] = frozenset(SCOPES)


async def identify(request: Request, state: AppState) -> Caller:
    """Who sent the request. Found out once, however often it is asked for.

    Raises:
        HttpError: 401, it takes a key that did not come, or the one that came is no good; 503, it can't be checked now.
    """
    known: Caller | None = request.scope.get(_KNOWN)
    if known is None:
        known = request.scope[_KNOWN] = await _identified(request, state)
    return known


async def _identified(request: Request, state: AppState) -> Caller:
    door = state.door
    client = request.client.host if request.client else None
    asked = door.asks(client)
    claim = claimed(request.scope["headers"], required=asked)
    if claim == "malformed":
        raise _refused("malformed")
    if claim is not None:
        try:
            key = await door.keyring.check(claim)
        except StorageError as error:  # as an HttpError FastAPI lets it pass while a body is read
            raise HttpError.of(error.code, str(error)) from error
        if not isinstance(key, ApiKey):
            raise _refused(key)
        return Caller(f"key:{key.id}", "key", key, key.scopes)
    if door.knows_visitors(client) and (visitor := door.visitors.read(request.cookies.get(_cookie_name(request)))):
        return Caller(f"visitor:{visitor}", "visitor", scopes=_VISITORS_MAY if asked else frozenset(SCOPES))
    if asked:
        message = "This server needs an API key. Send it as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`."
        raise HttpError(401, "key_missing", message, headers={"WWW-Authenticate": 'Bearer realm="TrendRAG"'})
    return Caller(LOCAL, "local")


def _refused(fault: Fault | Literal["malformed"]) -> HttpError:
    code, message = _FAULTS[fault]
    challenge = 'Bearer realm="TrendRAG", error="invalid_token"'  # RFC 6750, section 3
    return HttpError(401, code, message, headers={"WWW-Authenticate": challenge})


# These three are for the API's description alone; `identify` reads the request itself.
_ANY_SCOPE = "Scopes: " + "; ".join(f"`{name}`: {what}" for name, what in SCOPES.items()) + "."
_HEADER = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", description=_ANY_SCOPE, auto_error=False)
_BEARER = HTTPBearer(scheme_name="Bearer", description="An API key, as for `ApiKey`.", auto_error=False)
_VISITOR = APIKeyCookie(
    name=COOKIE,
    scheme_name="Visitor",
    description=f"Set by the page; over HTTPS its name is `{SECURE_COOKIE}`. Where keys are needed it opens something "
    "only if the operator lets visitors in.",
    auto_error=False,
)


async def caller(
    request: Request,
    _header: Annotated[object, Security(_HEADER)],
    _bearer: Annotated[object, Security(_BEARER)],
    _visitor: Annotated[object, Security(_VISITOR)],
) -> Caller:
    """As ``identify``."""
    return await identify(request, app_state(request))


CallerDep = Annotated[Caller, Depends(caller)]


def allow(who: Caller, scope: serving.identity.keys.Scope) -> None:
    """Returns where the caller may do this.

    Raises:
        HttpError: 403, and names the scope.
    """
    if scope not in who.scopes:
        challenge = f'Bearer realm="TrendRAG", error="insufficient_scope", scope="{scope}"'
        message = f"This needs an API key with the scope `{scope}`: {SCOPES[scope]}."
        raise HttpError(403, "scope_missing", message, headers={"WWW-Authenticate": challenge})


async def _allowed(scopes: SecurityScopes, who: CallerDep) -> None:
    for scope in SCOPES:
        if scope in scopes.scopes:
            allow(who, scope)


def needs(scope: serving.identity.keys.Scope) -> Any:
    """A dependency: the caller may do this, else 401 or 403. Who is asked for no key may everything; visitors who are
    let in without one may write, and see what they wrote."""
    return Security(_allowed, scopes=[scope])


async def may(request: Request, state: AppState, scope: serving.identity.keys.Scope) -> bool:
    """The same as a question, for an answer that tells some more than others."""
    try:
        return scope in (await identify(request, state)).scopes
    except HttpError:
        return False


@asynccontextmanager
async def counted(state: AppState, who: Caller, captions: int) -> AsyncIterator[Use]:
    """Captions that count against the caller's quota while they are written: tell the `Use` every event. An error that
    leaves this is the end of them, unless it is the client who left.

    Raises:
        HttpError: 429, so many are not left today.
    """
    async with AsyncExitStack() as stack:
        try:
            use = await stack.enter_async_context(state.door.quota.counted(who.key, captions))
        except QuotaExceeded as error:
            raise exceeded(error) from None
        try:
            yield use
        except ClientLeft:
            raise
        except Exception:
            use.failed()
            raise
        except asyncio.CancelledError:
            if state.drain.cutting:
                use.failed()
            raise


def exceeded(error: QuotaExceeded) -> HttpError:
    message = (
        f"This API key has {error.limit} captions a day, and fewer are left than this asks for. The next day begins at "
        "midnight UTC."
    )
    return HttpError(429, "quota_exceeded", message, retry_after=error.retry_after)


def welcome(request: Request, state: AppState, answer: Response) -> None:
    """Gives the page's visitor the cookie, for as long again as the last time. Never called for answers to programs."""
    door = state.door
    if not door.knows_visitors(request.client.host if request.client else None):
        return
    visitor = door.visitors.read(request.cookies.get(_cookie_name(request))) or door.visitors.new()
    secure = _is_secure(request)
    # Lax: with Strict a visitor who follows a link to the page would come without it, and be given another one.
    answer.set_cookie(
        _cookie_name(request),
        door.visitors.signed(visitor),
        max_age=MAX_AGE_S,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )
    answer.headers["Cache-Control"] = "private, no-cache"


def _cookie_name(request: Request) -> str:
    return SECURE_COOKIE if _is_secure(request) else COOKIE


def _is_secure(request: Request) -> bool:
    """Of the way to the visitor: the server takes X-Forwarded-Proto from proxies that it trusts."""
    return request.url.scheme == "https"


async def still_good(door: Door, owner: str) -> None:
    """Returns where what ``owner`` asked for before may be done now: a key that was revoked leaves nothing behind that
    goes on. Where nobody can say, it may.

    Raises:
        HttpError: 401, the key is no good any more.
    """
    kind, _, key_id = owner.partition(":")
    if kind == "key":
        with suppress(StorageError):
            if fault := await door.keyring.fault(key_id):
                raise _refused(fault)


class Gate:
    """Nobody's body is read before they are known: FastAPI would read all of it before it asks any dependency, and an
    upload of a stranger would take the room of a caller's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return

        async def receive_of_known() -> Message:
            request = Request(scope)
            await identify(request, app_state(request))
            return await receive()

        await self._app(scope, receive_of_known, send)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
