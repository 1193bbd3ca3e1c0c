"""Runs a caption chain for one request, and stops it when the client goes.

One task of its own iterates the chain from its first event to its last, whoever reads: time limits and task groups
inside the chain belong to the task that entered them, and a request is read by several tasks in turn (first the
dependency that waits for the first event, then the response). Leaving `caption_events` cancels that task, which closes
the chain, which closes the call to the model.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, closing, suppress
from typing import Any, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import Request

from serving.drain import CLOSE_S, Drain, shutting_down
from serving.http.errors import ClientLeft
from trendrag.errors import TrendragError
from trendrag.types import CaptionEvent, Done, Failed

log = logging.getLogger(__name__)

INTERNAL = Failed(code="internal", message="Something went wrong on the server. Its log says more.")
_BUFFERED_EVENTS = 16
T = TypeVar("T")


@asynccontextmanager
async def caption_events(
    chain: AsyncGenerator[CaptionEvent, None], observe: Callable[[CaptionEvent], None], drain: Drain
) -> AsyncIterator[MemoryObjectReceiveStream[CaptionEvent]]:
    """The chain's events. The last one is always `Done` or `Failed`, also where the chain breaks its promises, or the
    server ends in between."""
    send, receive = anyio.create_memory_object_stream[CaptionEvent](_BUFFERED_EVENTS)
    task = asyncio.create_task(_pump(chain, observe, send, drain))
    with receive:
        try:
            yield receive
        finally:
            task.cancel()
            await asyncio.wait({task})


async def _pump(
    chain: AsyncGenerator[CaptionEvent, None],
    observe: Callable[[CaptionEvent], None],
    send: MemoryObjectSendStream[CaptionEvent],
    drain: Drain,
) -> None:
    async with send:
        last: CaptionEvent
        try:
            with drain.stream():
                last = await _sent(chain, observe, send)
        except asyncio.CancelledError:
            if not drain.cutting:
                raise
            error = shutting_down()
            last = Failed(code=error.code, message=str(error), retry_after=error.retry_after)
        except TrendragError as error:
            last = Failed(code=error.code, message=str(error), retry_after=error.retry_after)
        except Exception:
            log.exception("the caption chain broke")
            last = INTERNAL
        observe(last)
        with suppress(TimeoutError):  # a server that ends does not wait for a client that does not read
            async with asyncio.timeout(CLOSE_S if drain.cutting else None):
                await send.send(last)


async def _sent(
    chain: AsyncGenerator[CaptionEvent, None],
    observe: Callable[[CaptionEvent], None],
    send: MemoryObjectSendStream[CaptionEvent],
) -> CaptionEvent:
    """Sends the chain's events on, and returns the last, unsent."""
    async with aclosing(chain):
        async for event in chain:
            if isinstance(event, Done | Failed):
                return event
            observe(event)
            await send.send(event)
    log.error("the caption chain ended without saying how")
    return INTERNAL


async def unless_client_leaves(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled where the client closes the connection first.

    Only for use after the body was read: what is waited for is the server's message that the connection is gone.

    Raises:
        ClientLeft: it did.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientLeft
    finally:
        for task in (doing, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def unless_cut(drain: Drain, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled where the server ends and its time is over.

    Raises:
        ShuttingDown: it was.
    """
    try:
        with closing(work), drain.stream():  # closed, for it may be too late to begin it
            return await work
    except asyncio.CancelledError:
        if drain.cutting:
            raise shutting_down() from None
        raise


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
