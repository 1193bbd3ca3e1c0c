"""A process of its own that is kept running beside the server: started, started again when it ends, stopped with it.

Knows nothing of what the process does. Whatever becomes of it, the server goes on: a crash or a lack of memory there is
a line in the log and a number here.
"""

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE

SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
LONG_LIFE_S = 600.0
"""A process that ran for so long did not fail at once: the wait begins anew."""

STOP_WITHIN_S = 8.0
_MAX_EXPONENT = 20

log = logging.getLogger("trendrag.child")


class Child:
    """Made once; ``running`` is the whole of its life.

    The process stops when its stdin ends. So it does when we are killed, where nobody is left to send it a signal. It
    is in a session of its own: Ctrl-C in a terminal reaches it through us only.

    Args:
        name: what the log calls it.
        sleep: for tests, which don't wait.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.up = False
        self.restarts = 0
        self._name = name
        self._command = command
        self._sleep = sleep

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            ended = await self._once()
            failures = 1 if loop.time() - began >= LONG_LIFE_S else failures + 1
            wait = min(SHORTEST_WAIT_S * (1 << min(failures - 1, _MAX_EXPONENT)), LONGEST_WAIT_S)
            log.error(
                "%s has ended (%s). Captions are served on; it is started again in %g s.", self._name, ended, wait
            )
            await self._sleep(wait)
            self.restarts += 1

    async def _once(self) -> str:
        """Runs it to its end, and says what that was. Cancelling stops it."""
        try:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, start_new_session=True)
        except OSError as error:
            return f"it can't be started: {error.strerror or error}"
        self.up = True
        try:
            return f"exit code {await process.wait()}"
        finally:
            self.up = False
            if process.returncode is None:
                await _stop(process)


async def _stop(process: Process) -> None:
    assert process.stdin is not None  # noqa: S101  (it was started with one)
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
