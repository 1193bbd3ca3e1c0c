"""How a server ends: it says so, takes nothing new, finishes what is under way, and at the deadline cuts the rest.

Readiness turns first, while the address still answers, so that a load balancer looks elsewhere before connections are
refused. A stream that is cut is told so by its last event.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from trendrag.errors import ShuttingDown

RETRY_AFTER_S = 5.0
"""What clients are told to wait: another replica, or this server's successor, answers then."""

CLOSE_S = 3
"""Longest time, once all work has ended or was cut, for its last bytes to go out."""

log = logging.getLogger(__name__)


class Drain:
    """What is under way in one server, and whether it is ending. For one event loop."""

    def __init__(self) -> None:
        self.began = False
        self.cutting = False
        self._requests = 0
        self._streams: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def under_way(self) -> int:
        """Requests taken and not yet answered to their end."""
        return self._requests

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request, from the door to the last byte of its answer.

        Raises:
            ShuttingDown: the server takes no more.
        """
        if self.began:
            raise shutting_down()
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Work of the current task that may be cut: the task is then cancelled, and ``cutting`` says why."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs)
        self._streams.add(task)
        try:
            if self.cutting:
                raise asyncio.CancelledError
            yield
        finally:
            self._streams.discard(task)

    async def idle(self) -> None:
        """Returns once no request is under way."""
        await self._idle.wait()

    def begin(self) -> None:
        self.began = True

    def cut(self) -> None:
        """Ends all streams now. Each tells its client."""
        self.began = self.cutting = True
        for task in self._streams:
            task.cancel()


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is being stopped. Try again in a moment.", retry_after=RETRY_AFTER_S)


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT it drains for ``drain_s`` seconds at most, and for ``notice_s`` at least. The second signal
    cuts what is under way and ends the process at once; the third kills it, should even that hang.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_s: float, notice_s: float) -> None:
        config.timeout_graceful_shutdown = CLOSE_S
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._notice_s = notice_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn's signal handlers, in the middle of anything: the loop does the rest. The signal is not
        raised again at the end, as uvicorn would: it would kill the process before its parts are closed."""
        del sig, frame
        assert self._loop is not None  # noqa: S101  (handlers are installed by `serve`)
        self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
            return
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        log.warning("told to stop again: cutting %d requests", self._drain.under_way)
        self._drain.cut()
        self.should_exit = True

    async def _end(self) -> None:
        self._drain.begin()
        log.info("told to stop: %d requests have %g s to finish", self._drain.under_way, self._drain_s)
        await asyncio.gather(asyncio.sleep(self._notice_s), self._finish())
        self.should_exit = True

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(self._drain_s):
                await self._drain.idle()
        except TimeoutError:
            log.warning("%d requests did not finish in time and are cut", self._drain.under_way)
            self._drain.cut()
