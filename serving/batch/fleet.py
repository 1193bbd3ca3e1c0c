"""The servers of a run, seen as one that has patience.

A row is given up only for its own sake. A server that is away is waited for, one that is overloaded is asked less, and
a row whose server fails while it answers others is tried again some times. What nobody can wait for (every server is
away for longer than ``patience_s``, or every request is refused) ends the run, not the rows.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from serving.batch.captions import Captioner, Fault, Wishes, Written, open_captioner
from serving.batch.pace import Pace, metrics_url
from trendrag.errors import ConfigurationError, ModelError, ModelRejected, ModelUnavailable
from trendrag.settings import Settings
from trendrag.types import PreparedImage

TRIES = 4
"""Of one row, with a server that answers others."""
TRIES_WHEN_BUSY = 30
INCIDENTS = 4
"""How often servers may go away while they write one row, before it is taken for the cause."""
REFUSED_IN_A_ROW = 100
LOST_IN_A_ROW = 20
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0


@dataclass(slots=True, eq=False)
class Server:
    captioner: Captioner
    pace: Pace
    metrics: str | None = None
    away: "asyncio.Task[None] | None" = None
    looking: "asyncio.Task[bool] | None" = None


class Fleet:
    """Use as ``async with open_fleet(...) as fleet``."""

    def __init__(self, servers: Sequence[Server], patience_s: float) -> None:
        self.servers = servers
        self._patience_s = patience_s
        self._refused = 0
        self._lost = 0

    @property
    def model(self) -> str:
        return self.servers[0].captioner.name

    @property
    def width(self) -> int:
        """How many captions may be under way now."""
        return sum(server.pace.gate.limit for server in self.servers)

    async def caption(self, image: PreparedImage, note: str | None) -> Written:
        """
        Raises:
            Fault: there is no caption for this row.
            ModelError: there is none for any: the run has to end.
        """
        tries = busy = incidents = 0
        # All servers have one model, and are asked in the same words.
        asked = self.servers[0].captioner.asked(image, note)
        del image
        while True:
            server = await self._present()
            async with server.pace.gate:
                if server.away is not None:  # it went while this row stood in line
                    continue
                try:
                    written = await server.captioner.caption(asked)
                except Fault as fault:
                    self._judge(fault)
                    failed = fault
                else:
                    self._refused = self._lost = 0
                    return written
            if not failed.of_server:
                raise failed
            if await self._is_away(server):
                incidents += 1
                if incidents >= INCIDENTS:
                    raise self._given_up(failed)
                continue
            tries, busy = tries + 1, busy + (failed.retry_after is not None)
            if failed.retry_after is not None:
                server.pace.overloaded()
            if tries >= (TRIES_WHEN_BUSY if busy == tries else TRIES):
                raise self._given_up(failed)
            longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**tries)
            least = min(_LONGEST_WAIT_S, failed.retry_after or 0.0)
            await asyncio.sleep(least + longest * random.random())  # noqa: S311  (no secret)

    def _given_up(self, fault: Fault) -> Fault | ModelError:
        """What to raise for a row that the servers could not write; the end of the run where they can write none."""
        self._lost += 1
        if self._lost < LOST_IN_A_ROW:
            return fault
        return ModelUnavailable(
            f"The model server is there, and failed at {self._lost} rows one after the other, the last with: {fault} "
            "Mend that, and go on with --retry-failed."
        )

    def _judge(self, fault: Fault) -> None:
        if fault.code != "model_rejected":
            return
        self._refused += 1
        if self._refused >= REFUSED_IN_A_ROW:
            raise ModelRejected(
                f"The model server refused {self._refused} rows one after the other, the last with: {fault} Mend that, "
                "and go on with --retry-failed."
            ) from fault

    async def _present(self) -> Server:
        """The one with the most room among those that are there; waits where none is."""
        while not (there := [server for server in self.servers if server.away is None]):
            waiting = [server.away for server in self.servers if server.away is not None]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises ModelUnavailable where the patience is over
            await asyncio.sleep(0)
        return min(there, key=lambda server: server.pace.gate.inside / server.pace.gate.limit)

    async def _is_away(self, server: Server) -> bool:
        """Asks it, once for all who want to know at the same time."""
        if server.away is not None:
            return True
        if server.looking is None:
            server.looking = asyncio.ensure_future(_answers(server))
            server.looking.add_done_callback(lambda _: setattr(server, "looking", None))
        if await asyncio.shield(server.looking):
            return False
        if server.away is None:
            server.away = asyncio.ensure_future(self._until_back(server))
        return True

    async def _until_back(self, server: Server) -> None:
        began = asyncio.get_running_loop().time()
        wait = 0.5
        while True:
            await asyncio.sleep(wait)
            wait = min(10.0, wait * 1.5)
            if await _answers(server):
                server.away = None
                return
            if asyncio.get_running_loop().time() - began > self._patience_s:
                raise ModelUnavailable(
                    f"The model server has been away for {self._patience_s:g} s. Nothing is lost: start it, and go on "
                    "with --resume."
                )


async def _answers(server: Server) -> bool:
    try:
        await server.captioner.check()
    except ModelError as error:
        return isinstance(error, ModelRejected)  # it says no, but it is there
    return True


@asynccontextmanager
async def open_fleet(
    settings: Settings,
    wishes: Wishes,
    urls: Sequence[str] = (),
    concurrency: int | None = None,
    patience_s: float = 600.0,
) -> AsyncIterator[Fleet]:
    """The server of the settings, or those at ``urls``. ``concurrency`` captions at once of each; None: as many as
    keep it busy.

    Raises:
        ConfigurationError, WeightsError, SnapshotError: what is set can't work.
        ModelError: a server can't be reached.
    """
    if settings.model.provider == "embedded":
        from serving.models.embedded import SLOTS  # noqa: PLC0415  heavy

        if urls:
            raise ConfigurationError("--server goes with TRENDRAG_MODEL__PROVIDER=openai.")
        concurrency = min(concurrency or SLOTS, SLOTS)
    async with AsyncExitStack() as stack:
        servers: list[Server] = []
        for url in urls or (settings.model.base_url,):
            model = settings.model.model_copy(update={"base_url": url})
            captioner = await stack.enter_async_context(
                open_captioner(settings.model_copy(update={"model": model}), wishes)
            )
            await captioner.check()
            server = Server(captioner, Pace(concurrency), metrics_url(url) if model.provider == "openai" else None)
            servers.append(server)
        if len({server.captioner.name for server in servers}) > 1:
            raise ConfigurationError("The servers have different models. Set TRENDRAG_MODEL__NAME to one all have.")
        watching = [asyncio.ensure_future(server.pace.keep(server.metrics)) for server in servers]
        try:
            yield Fleet(servers, patience_s)
        finally:
            tasks = [*watching, *(task for server in servers for task in (server.away, server.looking) if task)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
