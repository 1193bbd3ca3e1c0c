"""Keeps finished captions beside the requests, so that no answer waits for the database.

What is finished is put into a bounded queue and written by one task. While the database is away that task tries again,
so that a short absence costs nothing; what comes while the queue is full is lost, and said to be. Whoever asks for his
captions right after an answer waits for those of his that are still in the queue.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, StatementError

from serving.records.history import History, NewEntry
from serving.records.thumbnail import thumbnail
from trendrag.errors import StorageError, TrendragError
from trendrag.settings import HistorySettings
from trendrag.types import CaptionRequest

log = logging.getLogger(__name__)

MAX_WAITING = 64
"""Finished captions that wait to be written; each holds its image, up to some 500 kB."""
BATCH = 16
"""How many are written in one transaction at most."""
RETRY_S = 2.0
PRUNED_AT_ONCE = 500
"""Rows removed in one transaction: others write in between."""
SETTLE_S = 5.0
"""Longest that a reader waits for what is in the queue."""
CLOSE_S = 3.0
"""Longest that the end of the server waits for it."""

Status = Literal["on", "off", "unavailable"]
Pause = Callable[[float], Awaitable[None]]
Outcome = Callable[[Literal["kept", "lost"]], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    id: str
    owner: str
    created_at: datetime
    parent: str | None
    request: CaptionRequest
    answer: BaseModel
    # Written, or found to be impossible for now.
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def entry(self) -> NewEntry:
        """CPU work, for the pool."""
        return NewEntry(
            id=self.id,
            owner=self.owner,
            created_at=self.created_at,
            parent=self.parent,
            image_sha256=self.request.image.sha256,
            thumbnail=thumbnail(self.request.image.data),
            request=self.request.model_dump(mode="json", exclude={"image"}),
            answer=self.answer.model_dump(mode="json"),
        )


class Keeper:
    """For one event loop. ``pool`` makes the thumbnails, ``outcome`` is told of each caption what became of it."""

    def __init__(
        self,
        history: History,
        settings: HistorySettings,
        pool: Executor,
        now: Callable[[], datetime],
        outcome: Outcome = lambda _: None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._history = history
        self._settings = settings
        self._pool = pool
        self._now = now
        self._outcome = outcome
        self._pause = pause
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._unsettled: dict[str, _Waiting] = {}
        self._away = False

    @property
    def status(self) -> Status:
        """``unavailable``: the last try to write failed, or the queue is full. A caption finished now may be lost."""
        if not self._settings.keep_days:
            return "off"
        return "unavailable" if self._away or self._queue.full() else "on"

    def new_id(self) -> str | None:
        """The id of a caption that is about to be written, 32 hexadecimal digits; None where nothing is kept."""
        return uuid.uuid4().hex if self._settings.keep_days else None

    def keep(
        self, caption: str, owner: str, request: CaptionRequest, answer: BaseModel, parent: str | None = None
    ) -> None:
        """Takes in a finished request and returns at once. ``caption`` is from ``new_id``; ``answer`` is what the API
        answers, of which ``captions`` have a ``text`` each."""
        waiting = _Waiting(caption, owner, self._now(), parent, request, answer)
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            log.warning("a caption is not kept: %d wait already for the service database", MAX_WAITING)
            self._outcome("lost")
            return
        self._unsettled[caption] = waiting

    async def settled(self, owner: str) -> None:
        """Waits until the owner's captions so far are written; not for long, and not while the database is away."""
        mine = [asyncio.ensure_future(each.settled.wait()) for each in self._unsettled.values() if each.owner == owner]
        if mine and not self._away:
            await asyncio.wait(mine, timeout=SETTLE_S)
        for each in mine:
            each.cancel()

    async def prune(self, now: datetime) -> int:
        """Removes some of what is too old, then of what is too much, for all owners; how many captions these were.

        Raises:
            StorageError: the database can't be used now.
        """
        oldest = now - timedelta(days=self._settings.keep_days)
        return await self._history.remove_older(oldest, PRUNED_AT_ONCE) or await self._history.remove_beyond(
            self._settings.max_per_owner, PRUNED_AT_ONCE
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Keeper"]:
        """Writes for as long as the context is open, and writes what waits at its end."""
        writing = asyncio.create_task(self._write_all())
        try:
            yield self
        finally:
            if not self._away:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._queue.join(), CLOSE_S)
            writing.cancel()
            await asyncio.wait({writing})
            if self._unsettled:
                log.warning("%d captions are not kept: the service database did not take them", len(self._unsettled))

    async def _write_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                loop = asyncio.get_running_loop()
                entries = [await loop.run_in_executor(self._pool, each.entry) for each in batch]
                kept = await self._write(entries)
            except Exception:  # the task must live: there is no other
                log.exception("captions could not be kept")
                kept = 0
            for number, each in enumerate(batch):
                self._outcome("kept" if number < kept else "lost")
                self._unsettled.pop(each.id, None)
                each.settled.set()
                self._queue.task_done()

    async def _write(self, entries: list[NewEntry]) -> int:
        """How many were written: all, unless the database takes some for impossible."""
        while True:
            try:
                await self._history.add(entries)
            except TrendragError as error:
                if _is_refused(error):
                    if len(entries) > 1:
                        return sum([await self._write([entry]) for entry in entries])
                    log.error("a caption can't be kept: %s", error)
                    return 0
                if not self._away:
                    log.warning("captions wait to be kept: %s", error)
                self._away = True
                for each in self._unsettled.values():  # nobody waits for what may take hours
                    each.settled.set()
                await self._pause(RETRY_S)
            else:
                if self._away:
                    log.info("captions are kept again")
                self._away = False
                return len(entries)


def _is_refused(error: TrendragError) -> bool:
    """Whether the database was there and did not take the values: trying again would change nothing."""
    cause = error.__cause__
    if not isinstance(error, StorageError) or not isinstance(cause, StatementError):
        return False
    return type(cause) is StatementError or isinstance(cause, DataError | IntegrityError | ProgrammingError)
