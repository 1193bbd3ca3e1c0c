"""Sends a stream of events, and stops whoever makes them when the client goes.

For streams where every event counts: no queue between the maker and the connection, no task but one that makes and one
that waits for the client to leave. A slow reader slows the maker down.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from fastapi import Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from serving.drain import Drain, shutting_down
from serving.http.errors import STATUS, ClientLeft, HttpError
from serving.http.openai_errors import error_object
from serving.http.stream import INTERNAL
from trendrag.errors import TrendragError

log = logging.getLogger(__name__)

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """The bytes of ``events``, each whole server-sent events, and `[DONE]` at the end.

    The answer begins with the first of them: what is raised until then is an answer of its own. A TrendragError or an
    HttpError later is told as an error inside the stream.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], drain: Drain) -> None:
        super().__init__(media_type="text/event-stream")
        self._events = events
        self._drain = drain
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - Starlette's signature
        making = asyncio.ensure_future(self._make(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((making, leaving), return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                making.result()
            elif not self._begun:
                raise ClientLeft
        finally:
            leaving.cancel()
            if not making.done():
                making.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await making

    async def _make(self, send: Send) -> None:
        try:
            with self._drain.stream():
                async with aclosing(self._events) as events:
                    async for data in events:
                        if not self._begun:
                            self._begun = True
                            # A new one each time: middlewares write their headers, which are of one request, into it.
                            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
                        await send({"type": "http.response.body", "body": data, "more_body": True})
            last = DONE
        except asyncio.CancelledError:
            if not self._drain.cutting:
                raise
            error = shutting_down()
            if not self._begun:
                raise error from None
            last = error_event(error.code, str(error))
        except (TrendragError, HttpError) as error:
            if not self._begun:
                raise
            last = error_event(error.code, error.detail if isinstance(error, HttpError) else str(error))
        except Exception:
            if not self._begun:
                raise
            log.exception("a stream of chat events broke")
            last = error_event(INTERNAL.code, INTERNAL.message)
        await send({"type": "http.response.body", "body": last})


def error_event(code: str, message: str) -> bytes:
    """What ends a stream that can't go on."""
    return b"data: %b\n\n%b" % (to_json(error_object(STATUS.get(code, 500), code, message)), DONE)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
