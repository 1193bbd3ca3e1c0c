"""Does the jobs of the store, some at a time, in the server's own process.

It is told of new jobs by ``wake`` and looks by itself every few seconds, for those that other servers took in or lost.
A message broker would come in at ``wake`` alone: what is to be done stays in the store.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Literal

from serving.jobs.store import JobStore, Leased, backoff
from trendrag.errors import StorageError, TrendragError
from trendrag.types import CaptionRequest

log = logging.getLogger(__name__)

POLL_S = 5.0
INTERNAL = ("internal", "Something went wrong on the server. Its log says more.")
UNREADABLE = ("job_unreadable", "Another version of TrendRAG took this job in. Submit it again.")

_MAY_PASS = {"model_unavailable", "model_timeout", "model_interrupted"}
"""Codes of what another attempt may not meet again."""
_NOT_BEGUN = {"busy", "shutting_down", "storage_unavailable"}
"""Codes of what does not count as an attempt."""


class NotWritten(Exception):
    """The captions of a request could not be written; ``code`` is one of those that HTTP answers carry."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Write = Callable[[CaptionRequest, str], Awaitable[dict[str, Any]]]
"""Writes the captions of a request for its owner: the answer, as the API gives it, its ``captions`` among it. Raises
NotWritten."""


class JobWorker:
    """``running`` works for as long as its context is open. For one event loop."""

    def __init__(
        self,
        store: JobStore,
        write: Write,
        now: Callable[[], datetime],
        *,
        concurrency: int,
        attempts: int,
        lease_s: float,
        poll_s: float = POLL_S,
    ) -> None:
        """``attempts``: how often a job is begun at most."""
        self._store = store
        self._write = write
        self._now = now
        self._concurrency = concurrency
        self._attempts = attempts
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._name = secrets.token_hex(8)
        self._news = asyncio.Event()
        self._doing: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._away = False
        self.counts: dict[str, int] = {}
        """Jobs by state, as of the last look; for metrics."""

    def wake(self) -> None:
        """There is a new job."""
        self._news.set()

    def cancelled(self, job: str) -> None:
        """The store was told so. Without this call it is noticed at the next renewal of the lease."""
        if job in self._doing:
            self._doing[job][1].set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end, jobs under way are stopped and queued again."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            tasks = [looking, *(task for task, _ in self._doing.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._news.clear()
            try:
                while len(self._doing) < self._concurrency and (leased := await self._next()):
                    self._begin(leased)
                self.counts = await self._store.counts()
                self._away = False
            except TrendragError as error:
                if not self._away:  # once, not every few seconds until it is cured
                    log.warning("jobs wait: %s", error)
                self._away = True
            except Exception:
                log.exception("looking for jobs failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._news.wait()

    async def _next(self) -> Leased | None:
        return await self._store.lease(self._name, self._now(), self._until(), self._attempts, self._doing.keys())

    def _until(self) -> datetime:
        return self._now() + timedelta(seconds=self._lease_s)

    def _begin(self, leased: Leased) -> None:
        asked = asyncio.Event()
        task = asyncio.create_task(self._do(leased, asked))
        self._doing[leased.id] = task, asked

        def over(_: asyncio.Task[None]) -> None:
            del self._doing[leased.id]
            self._news.set()

        task.add_done_callback(over)

    async def _do(self, job: Leased, asked: asyncio.Event) -> None:
        """One job, to its end or to the loss of its lease. Raises nothing but a cancellation."""
        if job.request is None:
            await self._finish(job, "failed", error=UNREADABLE)
            return
        writing = asyncio.ensure_future(self._write(job.request, job.owner))
        try:
            verdict = await self._hold(job, writing, asked)
            if verdict == "held":
                await self._conclude(job, writing)
                return
            await _stopped(writing)
            if verdict == "cancel":
                await self._finish(job, "cancelled")
        except asyncio.CancelledError:
            await _stopped(writing)
            with suppress(TrendragError):  # where this can't be written, the lease runs out
                await self._store.give_back(job.id, self._name, self._now(), counts=False)
            raise

    async def _hold(self, job: Leased, writing: "asyncio.Future[dict[str, Any]]", asked: asyncio.Event) -> str:
        """Keeps the lease: "held" once the captions are written, else why they no longer matter."""
        while True:
            told = asyncio.ensure_future(asked.wait())
            either: set[asyncio.Future[Any]] = {writing, told}
            try:
                await asyncio.wait(either, timeout=self._lease_s / 3, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
            asked.clear()
            if writing.done():
                return "held"
            with suppress(StorageError):  # it may be back before the lease is over
                verdict = await self._store.renew(job.id, self._name, self._until())
                if verdict != "held":
                    return verdict

    async def _conclude(self, job: Leased, writing: "asyncio.Future[dict[str, Any]]") -> None:
        try:
            answer = writing.result()
        except NotWritten as error:
            counts = error.code not in _NOT_BEGUN
            if not counts or (error.code in _MAY_PASS and job.attempts < self._attempts):
                ready = self._now() + backoff(job.attempts)
                await self._keep_trying(lambda: self._store.give_back(job.id, self._name, ready, counts=counts))
            else:
                await self._finish(job, "failed", error=(error.code, str(error)))
        except Exception:
            log.exception("job %s failed", job.id)
            await self._finish(job, "failed", error=INTERNAL)
        else:
            await self._finish(job, "done", answer=answer, written=len(answer["captions"]))

    async def _finish(
        self,
        job: Leased,
        state: Literal["done", "failed", "cancelled"],
        *,
        answer: dict[str, Any] | None = None,
        error: tuple[str, str] | None = None,
        written: int = 0,
    ) -> None:
        at = self._now()
        await self._keep_trying(
            lambda: self._store.finish(job.id, self._name, state, at, answer=answer, error=error, written=written)
        )

    async def _keep_trying(self, write: Callable[[], Awaitable[bool]]) -> None:
        """Writes an outcome down as soon as the database is there. The captions are paid for; if another worker has
        taken the job meanwhile, its outcome counts."""
        while True:
            try:
                await write()
            except StorageError:
                await asyncio.sleep(self._poll_s)
            else:
                return


async def _stopped(writing: "asyncio.Future[dict[str, Any]]") -> None:
    """The call to the model is closed when this returns."""
    writing.cancel()
    await asyncio.wait({writing})
