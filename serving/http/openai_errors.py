"""Errors of `/v1` in the words of both sides: ours, and the object that OpenAI's clients read.

{"status": "error", "code": "...", "message": "...", "error": {"message", "type", "code", "param"}}
"""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/v1/"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_object(status: int, code: str, message: str) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    # `error` comes first: clients and proxies know an error inside a stream by how its data begins.
    return {
        "error": {"message": message, "type": kind, "code": code, "param": None},
        "status": "error",
        "code": code,
        "message": message,
    }


class OpenAIErrors:
    """Outermost of all, so that whoever refuses a request to `/v1` (limits, keys, a route, nobody) is understood.

    What is wrong with a request itself is 400 there, and not 422 as elsewhere: it is what OpenAI's clients know.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        refusal: Message | None = None
        told = b""

        async def send_understood(message: Message) -> None:
            nonlocal refusal, told
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refusal = message
            elif refusal is None:
                await send(message)
            elif message["type"] == "http.response.body":
                told += message.get("body", b"")
                if not message.get("more_body"):
                    start, body = _understood(refusal, told)
                    await send(start)
                    await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, send_understood)


def _understood(start: Message, told: bytes) -> tuple[Message, bytes]:
    """An answer that is not our JSON (a 499 nobody reads) stays as it is."""
    try:
        ours = json.loads(told)
        code, message = ours["code"], ours["message"]
    except (ValueError, KeyError, TypeError):
        return start, told
    status = 400 if start["status"] == 422 else start["status"]
    body = json.dumps(error_object(status, code, message), ensure_ascii=False).encode()
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    return {**start, "status": status, "headers": headers}, body
