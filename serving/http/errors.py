"""The one place where errors get an HTTP status, and the one shape in which they are told.

    {"status": "error", "code": "invalid_image", "message": "..."}

``code`` is that of ``trendrag.errors``, or one of HTTP's own below. Messages are plain words, name the field, and never
repeat what was sent (it may be a secret, or 20 MB).
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from serving.http.schemas import CaptionBody, ErrorAnswer
from trendrag.errors import TrendragError
from trendrag.text import clean_line

RETRY_AFTER_S = 5
"""What a client is told to wait when the model server is away."""

STATUS: Mapping[str, int] = {
    "internal": 500,
    "configuration": 500,
    "invalid_request": 422,
    "not_supported": 422,
    # 422 and not 415: the request is JSON as asked; it is the picture inside that can't be used.
    "invalid_image": 422,
    "image_too_large": 413,
    "address_refused": 422,
    "remote_image_failed": 502,
    "remote_image_timeout": 504,
    "busy": 503,
    # Captions work without trends, so these surface only where trends themselves are asked for.
    "snapshot": 503,
    "no_snapshot": 503,
    "corrupt_snapshot": 503,
    "shelf": 503,
    "model_error": 502,
    "model_unavailable": 503,
    "model_timeout": 504,
    "model_rejected": 502,
    "model_interrupted": 502,
    "storage_unavailable": 503,
    "idempotency_key_reused": 422,
    "too_many_jobs": 429,
    "shutting_down": 503,
    "source_error": 502,
    "fetch_failed": 502,
    "parse_failed": 502,
    "weights": 503,
}

_HTTP_CODES = {
    400: ("bad_request", "The request can't be read. Send JSON in UTF-8."),
    404: ("not_found", "There is nothing at this address. /openapi.json lists what there is."),
    405: ("method_not_allowed", "This address does not take this method; the Allow header says which it takes."),
    413: ("body_too_large", "The request is too large."),
}


class HttpError(HTTPException):
    """An answer other than success that we decided on. An HTTPException, so that FastAPI lets it pass unchanged where
    it is raised while a body is read."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        waiting = {"Retry-After": str(retry_after)} if retry_after else {}
        super().__init__(status, message, {**(headers or {}), **waiting} or None)
        self.code = code

    @classmethod
    def of(cls, code: str, message: str, retry_after: float | None = None) -> "HttpError":
        """For a code of ``trendrag.errors``; unknown codes are our fault and 500. ``retry_after`` in seconds, where it
        is known: it goes with a 503 only."""
        status = STATUS.get(code, 500)
        if status != HTTPStatus.SERVICE_UNAVAILABLE:
            return cls(status, code, message)
        return cls(status, code, message, RETRY_AFTER_S if retry_after is None else max(1, math.ceil(retry_after)))


class ClientLeft(Exception):
    """The client closed the connection. Nobody reads the answer; 499 is for the log and the metrics."""


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorAnswer(code=code, message=message).model_dump(), status, headers)


def error_responses(words: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: which statuses it may answer besides success, and when.

    By reference and not by ``model``, which FastAPI would file under the route's own media type: errors are JSON.
    """
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    return {status: {"content": content, "description": said} for status, said in words.items()}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HttpError, _http_error)
    app.add_exception_handler(TrendragError, _trendrag_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StarletteHTTPException, _framework_error)
    app.add_exception_handler(ClientLeft, _client_left)


# Starlette types every handler as taking any Exception; each of these is registered for one kind only.


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)  # noqa: S101 - narrows the type, see above
    return error_response(error.status_code, error.code, error.detail, error.headers)


async def _trendrag_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrendragError)  # noqa: S101 - narrows the type, see above
    return await _http_error(request, HttpError.of(error.code, str(error), error.retry_after))


async def _client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - narrows the type, see above
    code, message = _HTTP_CODES.get(error.status_code, ("http_error", HTTPStatus(error.status_code).phrase))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    return error_response(error.status_code, code, message, headers)


def _methods(request: Request) -> list[str]:
    """Of all routes at this address; the framework names those of the first one only."""
    found: set[str] = set()
    for part in request.app.routes:
        router = getattr(part, "original_router", None)  # FastAPI keeps what was included as it was
        for route in router.routes if router else [part]:
            if route.matches(request.scope)[0] is not Match.NONE:
                found |= getattr(route, "methods", None) or set()
    return sorted(found)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - narrows the type, see above
    faults = error.errors()
    first = faults[0] if faults else {"type": "", "loc": (), "msg": "The request can't be used"}
    if first["type"] == "json_invalid":
        return error_response(400, "invalid_json", f"The body is not valid JSON (at character {first['loc'][-1]}).")
    if tuple(first["loc"]) == ("body",) and first["type"] != "value_error" and not is_json(request):
        message = "Send the request as JSON, with the header Content-Type: application/json."
        return error_response(415, "unsupported_media_type", message)
    message = " ".join(dict.fromkeys(_in_words(fault) for fault in faults[:5]))
    return error_response(422, "invalid_request", message)


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(request: Request) -> bool:
    kind = media_type(request)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _in_words(fault: Mapping[str, Any]) -> str:
    """One sentence on one fault. Only names of fields and our own limits get in, no values that were sent."""
    kind = fault["type"]
    path = [str(part) for part in fault["loc"] if part not in ("body", "query", "path", "header")]
    field = clean_line(".".join(path), 60)
    if not field and kind != "extra_forbidden":
        if kind == "value_error":  # raised in schemas.py with a sentence of ours
            return str(fault["ctx"]["error"])
        return "The body must be a JSON object." if kind != "missing" else "The body is empty; send a JSON object."
    if kind == "extra_forbidden":
        return (
            f"{field or 'A name of yours'}: there is no such field. Fields are {', '.join(CaptionBody.model_fields)}."
        )
    if kind == "missing":
        return f"{field}: this field is needed."
    told = str(fault["ctx"]["error"]) if kind == "value_error" else str(fault["msg"])
    _, should, rest = told.partition(" should ")  # "Input should be", "String should have"
    told = f"should {rest}" if should else told
    return f"{field}: {told.rstrip('.')}."
