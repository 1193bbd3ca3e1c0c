"""The line in front of the model: so many calls at once, so many requests that wait, and none for too long.

A request takes as many places as it makes model calls at once, all of them together and at the door: what has begun is
never refused half-way, and two requests never wait for each other's places. First come, first served.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from trendrag.errors import Busy

FIRST_GUESS_S = 5.0
"""How long a request is thought to take before any has been seen."""

LONGEST_RETRY_S = 60.0
_WEIGHT = 0.2
"""Of the newest request in the running mean of how long requests take."""


class ModelQueue:
    """One for each event loop.

    Args:
        places: model calls at once. A request that makes more takes all of them, and so runs alone.
        longest: requests that wait at most.
        longest_wait_s: seconds; who has waited for so long is refused.
        now: seconds on a clock that never goes back.
        waited: told of each wait that ended in a turn, in seconds.

    ``refused`` counts since the start.
    """

    def __init__(
        self,
        places: int,
        longest: int,
        longest_wait_s: float,
        now: Callable[[], float],
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._places = places
        self._longest = longest
        self._longest_wait_s = longest_wait_s
        self._now = now
        self._waited = waited
        self._taken = 0
        self._line: deque[_Waiting] = deque()
        self._held_s = FIRST_GUESS_S
        self.refused = 0

    @property
    def taken(self) -> int:
        """Places taken now."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return len(self._line)

    def refuse_when_full(self) -> None:
        """For the door, before a request costs anything.

        Raises:
            Busy: a request would find no place in the line either.
        """
        if (self._line or self._taken >= self._places) and self._no_more_wait():
            raise self._busy()

    @asynccontextmanager
    async def turn(self, calls: int) -> AsyncIterator[None]:
        """Waits for ``calls`` places and holds them. Whoever is cancelled while waiting leaves the line.

        Raises:
            Busy: the line is full, or the wait took too long; with an estimate of when to ask again.
        """
        calls = min(calls, self._places)
        began = self._now()
        if self._line or self._taken + calls > self._places:
            await self._wait(calls)
        else:
            self._taken += calls
        began, waited = self._now(), self._now() - began
        self._waited(waited)
        try:
            yield
        finally:
            self._held_s += _WEIGHT * (self._now() - began - self._held_s)
            self._give_back(calls)

    async def _wait(self, calls: int) -> None:
        if self._no_more_wait():
            raise self._busy()
        waiting = _Waiting(calls)
        self._line.append(waiting)
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await waiting.turn
        except TimeoutError:
            self._leave(waiting)
            raise self._busy() from None
        except BaseException:
            self._leave(waiting)
            raise

    def _leave(self, waiting: "_Waiting") -> None:
        if waiting.turn.done() and not waiting.turn.cancelled():  # its turn came in the same moment
            self._give_back(waiting.calls)
            return
        if waiting in self._line:
            self._line.remove(waiting)
        self._admit()

    def _give_back(self, calls: int) -> None:
        self._taken -= calls
        self._admit()

    def _admit(self) -> None:
        while self._line and self._taken + self._line[0].calls <= self._places:
            first = self._line.popleft()
            if not first.turn.done():  # else it is just leaving
                self._taken += first.calls
                first.turn.set_result(None)

    def _no_more_wait(self) -> bool:
        return len(self._line) >= self._longest

    def _busy(self) -> Busy:
        self.refused += 1
        ahead = sum(waiting.calls for waiting in self._line)
        return Busy(
            "More captions are asked for than can be written now. Try again in a moment.",
            retry_after=retry_after(self._held_s, ahead, self._places),
        )


class _Waiting:
    __slots__ = ("calls", "turn")

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def retry_after(held_s: float, ahead: int, places: int) -> int:
    """Whole seconds, from 1 to 60, until the ``ahead`` calls that wait now will have begun, where a place is held for
    ``held_s`` seconds: each round of that length lets ``places`` of them in."""
    return math.ceil(min(LONGEST_RETRY_S, max(1.0, held_s * max(1, ahead) / places)))
