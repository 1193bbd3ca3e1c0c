"""How many captions are asked for at once: so many that the server's queue is never empty, and never long.

vLLM says in its metrics how many requests it runs and how many wait. More than a few that wait bring nothing: they hold
photos here and there. Of servers that say nothing only their refusals are known.
"""

import asyncio
import re
from collections import deque
from dataclasses import dataclass

import httpx2

FIRST = 8
MOST = 256
EVERY_S = 0.5
WITHOUT_METRICS = 16

_SAMPLE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? ([0-9.eE+]+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that a server runs, and those that wait in its queue, whoever sent them."""

    running: float
    waiting: float


def next_limit(limit: int, in_flight: int, load: Load, most: int = MOST, *, filled: bool = False) -> int:
    """How many to have under way from now on.

    Grows while the server asks for more (nothing waits, and the limit is what holds us): twofold, or by a few where its
    queue was ``filled`` before and how much it takes is about known. Shrinks where many wait, by a quarter of those: a
    queue that is too long for seconds costs nothing, and many that came together wait for their turn to be read only.
    "A few" is an eighth of what is run, at least 2: the queue then outlasts the time until a new request can be there.
    """
    few = max(2, round(load.running / 8))
    if load.waiting > 2 * few:
        return max(1, min(limit, in_flight) - round((load.waiting - few) / 4))
    if load.waiting < few / 2 and in_flight >= limit:
        return min(most, limit + few if filled else 2 * limit)
    return limit


def read_load(metrics: str) -> Load | None:
    """From the text of vLLM's /metrics, over all its engines; None where it says nothing of requests."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(metrics):
        found[name] = found.get(name, 0.0) + float(value)
    return Load(found["running"], found["waiting"]) if len(found) == 2 else None


class Gate:
    """Lets ``limit`` at a time through, first come, first served. The limit may change at any time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def enter(self) -> None:
        if self.inside < self.limit and not self._line:
            self.inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                self.inside -= 1
            elif turn in self._line:
                self._line.remove(turn)
            self._admit()
            raise

    def leave(self) -> None:
        self.inside -= 1
        self._admit()

    def change(self, limit: int) -> None:
        self.limit = limit
        self._admit()

    def _admit(self) -> None:
        while self._line and self.inside < self.limit:
            turn = self._line.popleft()
            if not turn.done():
                self.inside += 1
                turn.set_result(None)


class Pace:
    """Holds a gate for each server at the right width, for as long as ``keep`` runs.

    ``fixed``: that many, whatever the metrics say, unless the server refuses for overload.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._most = fixed or MOST
        self._fixed = fixed
        self._filled = False
        self.gate = Gate(fixed or FIRST)

    def overloaded(self) -> None:
        """The server said that it has too much: half as many from now on."""
        self.gate.change(max(1, min(self.gate.limit, self.gate.inside) // 2))
        self._fixed = None

    def seen(self, load: Load | None) -> None:
        if self._fixed is not None:
            return
        if load is None:
            self.gate.change(min(self._most, max(self.gate.limit, WITHOUT_METRICS)))
            return
        limit = next_limit(self.gate.limit, self.gate.inside, load, self._most, filled=self._filled)
        self._filled = self._filled or limit < self.gate.limit
        self.gate.change(limit)

    async def keep(self, url: str | None) -> None:
        """Looks at the metrics at ``url`` twice a second, until it is cancelled. Not where the number is fixed:
        that page costs the server time in which it would caption."""
        async with httpx2.AsyncClient(timeout=3, trust_env=False) as client:
            while True:
                self.seen(await self._ask(client, url) if url and self._fixed is None else None)
                await asyncio.sleep(EVERY_S)

    async def _ask(self, client: httpx2.AsyncClient, url: str) -> Load | None:
        try:
            answer = await client.get(url)
            return read_load(answer.text[: 2**20]) if answer.is_success else None
        except (httpx2.HTTPError, ValueError):
            return None


def metrics_url(base_url: str | None) -> str | None:
    """vLLM has its metrics beside /v1."""
    if not base_url:
        return None
    return base_url.rstrip("/").removesuffix("/v1") + "/metrics"
