"""Removes what was kept long enough, some rows at a time, beside the requests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from trendrag.errors import TrendragError

log = logging.getLogger(__name__)

FIRST_S = 60.0
EVERY_S = 3600.0

Prune = Callable[[datetime], Awaitable[int]]
"""Removes some of what is too old at a moment; answers how many rows, 0 where none are left. Raises TrendragError."""


Pause = Callable[[float], Awaitable[None]]


@asynccontextmanager
async def housekeeping(
    prunes: Sequence[Prune], now: Callable[[], datetime], pause: Pause = asyncio.sleep
) -> AsyncIterator[None]:
    """``FIRST_S`` seconds after the beginning, when a server has other things to do no more, and then every
    ``EVERY_S``, for as long as the context is open."""
    task = asyncio.create_task(_keep_house(prunes, now, pause))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_house(prunes: Sequence[Prune], now: Callable[[], datetime], pause: Pause) -> None:
    await pause(FIRST_S)
    while True:
        for prune in prunes:
            try:
                while await prune(now()):
                    pass
            except TrendragError as error:
                log.warning("old rows stay for now: %s", error)
            except Exception:  # the task must live: there is no other
                log.exception("removing old rows failed")
        await pause(EVERY_S)
