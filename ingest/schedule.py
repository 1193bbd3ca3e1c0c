"""Refreshes one after the other, for as long as nobody stops it: when the next one is, and what a failed one means.

When a source is asked is decided by ``policy`` and kept in the database, so that timers survive restarts and several
replicas share them. What is left for here: to wake when the next source is due, to run one refresh at a time, in one
process at a time (``lead``), and to go on whatever happens. What a refresh does is left to ``run``; knows no settings.

APScheduler keeps the time. Its job has a heartbeat of ``LONGEST_WAIT`` on a grid that restarts don't move, runs once
however many beats were missed (suspend, downtime), and never beside itself. Each run then brings the next one forward.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from ingest.read import SourceReport
from ingest.refresh import RefreshReport, Shelved
from trendrag.errors import TrendragError
from trendrag.text import clean_line

SHORTEST_WAIT = timedelta(minutes=1)
"""Between two refreshes: sources that become due one soon after the other are asked together."""

LONGEST_WAIT = timedelta(minutes=5)
"""Scores decay also where no source is due, and an edited list of sources takes effect within this time."""

LONGEST_BACKOFF = timedelta(minutes=30)
"""After refreshes that failed as a whole, where the wait doubles from ``SHORTEST_WAIT`` on."""

FOLLOW_EVERY = timedelta(seconds=2)
"""How often a replica that waits looks whether the leader is gone."""

_GRID = datetime(2026, 1, 1, tzinfo=UTC)
_MAX_EXPONENT = 20

log = logging.getLogger("trendrag.schedule")


def next_wake(dues: Iterable[datetime | None], now: datetime) -> datetime:
    """When the next refresh begins, from when each source may be asked again (None: never, or nobody knows).

    Args:
        now: when the last refresh ended. The answer is from ``SHORTEST_WAIT`` to ``LONGEST_WAIT`` after it.
    """
    earliest = min((due for due in dues if due is not None), default=now + LONGEST_WAIT)
    return min(max(earliest, now + SHORTEST_WAIT), now + LONGEST_WAIT)


def backoff(failures: int) -> timedelta:
    """The wait after so many failed refreshes in a row, at least one."""
    return min(SHORTEST_WAIT * (1 << min(failures - 1, _MAX_EXPONENT)), LONGEST_BACKOFF)


class Lead(Protocol):
    """What one replica holds at a time; ``ingest.leader.NamedLock`` is one. Synchronous, and may touch the network.

    Raises:
        TrendragError: whether it is held can't be found out.
    """

    def acquire(self) -> bool: ...

    def held(self) -> bool: ...

    def release(self) -> None: ...


class Watch(Protocol):
    """Is told what happens, on the event loop; ``ingest.metrics.ScheduleMetrics`` is one."""

    def leads(self, leading: bool) -> None: ...

    def ran(self, outcome: str, seconds: float, ended: datetime, wake: datetime) -> None:
        """``outcome`` is "published", "unchanged", "nothing" (no source or no trend could be used), "busy"
        (another process was refreshing) or "error"."""


class Schedule:
    """Made once a process; ``serve`` runs it.

    Args:
        run: one refresh. May raise anything; cancelling it must leave nothing half done.
    """

    def __init__(
        self,
        run: Callable[[], Awaitable[RefreshReport]],
        lead: Lead,
        watch: Watch,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run = run
        self._lead = lead
        self._watch = watch
        self._clock = clock
        self._failures = 0
        self._said: dict[str, str] = {}
        self._said_of_shelf = ""

    async def serve(self, stop: asyncio.Event) -> None:
        """Refreshes whenever it leads, until ``stop`` is set; a refresh that is under way then is cancelled.

        Cancelling a refresh ends its waiting, not a thread of it that computes or writes: that ends by itself.
        """
        try:
            while await self._leadership(stop):
                self._watch.leads(True)
                try:
                    await self._beat(stop)
                finally:
                    self._watch.leads(False)
        finally:
            await asyncio.to_thread(self._lead.release)

    async def _leadership(self, stop: asyncio.Event) -> bool:
        """Waits for it. False where ``stop`` came first."""
        said = ""
        while not stop.is_set():
            try:
                if await asyncio.to_thread(self._lead.acquire):
                    log.info("This replica leads and refreshes.")
                    return True
                level, why = logging.INFO, "Another replica leads. This one waits."
            except TrendragError as error:
                level, why = logging.WARNING, f"Can't find out whether another replica leads: {_quoted(str(error))}"
            if why != said:
                log.log(level, "%s", said := why)
            await _either(stop, timeout=FOLLOW_EVERY)
        return False

    async def _beat(self, stop: asyncio.Event) -> None:
        """Refreshes until ``stop`` is set or leadership is lost."""
        lost = asyncio.Event()
        scheduler = AsyncIOScheduler(timezone=UTC)
        running: set[asyncio.Task[Any]] = set()

        async def turn() -> datetime | None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  (the scheduler runs this as a task)
            running.add(task)
            try:
                if await asyncio.to_thread(self._lead.held):
                    return await self.turn()
                lost.set()
            except asyncio.CancelledError:
                pass  # by the shutdown below; the scheduler would log it as an error
            finally:
                running.discard(task)
            return None

        def bring_forward(event: JobExecutionEvent) -> None:
            """Once the job has ended: before, one that is due at once would be skipped as running already."""
            if event.retval is not None:
                job.modify(next_run_time=event.retval)

        scheduler.add_listener(bring_forward, EVENT_JOB_EXECUTED)
        job = scheduler.add_job(
            turn,
            IntervalTrigger(seconds=round(LONGEST_WAIT.total_seconds()), start_date=_GRID, timezone=UTC),
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
        scheduler.start()
        try:
            await _either(stop, lost)
        finally:
            pending = list(running)
            scheduler.shutdown()  # cancels them
            await asyncio.gather(*pending, return_exceptions=True)
        if lost.is_set():
            log.warning("Leadership is lost: the database has ended our session. Trying to get it back.")

    async def turn(self) -> datetime:
        """One refresh and its line in the log. Raises nothing but a cancellation; says when the next one is."""
        started = time.monotonic()
        outcome, fields, dues = await self._refreshed()
        seconds, ended = time.monotonic() - started, self._clock()
        self._failures = self._failures + 1 if outcome == "error" else 0
        wake = ended + backoff(self._failures) if self._failures else next_wake(dues, ended)
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        level = {"error": logging.ERROR, "nothing": logging.WARNING}.get(outcome, logging.INFO)
        log.log(level, "refresh outcome=%s seconds=%.1f next=%s %s", outcome, seconds, _stamp(wake), said)
        self._watch.ran(outcome, seconds, ended, wake)
        return wake

    async def _refreshed(self) -> tuple[str, dict[str, object], list[datetime | None]]:
        """(outcome, what to log, when each source is due)."""
        try:
            report = await self._run()
        except TrendragError as error:
            return "error", {"code": error.code, "message": _quoted(str(error))}, []
        except OSError as error:
            why = f"{error.strerror or error}. Is there space on the disk, is the data directory writable?"
            return "error", {"code": "system", "message": _quoted(why)}, []
        except Exception as error:
            log.exception("A refresh failed for a reason that should not be; please report it.")
            return "error", {"code": "internal", "message": _quoted(type(error).__name__)}, []
        if report.busy:  # somebody has called `trendrag refresh`, which will soon be over
            return "busy", {}, [self._clock()]
        self._tell_sources(report.sources)
        self._tell_shelf(report.shelved)
        asked = [each for each in report.sources if each.status in ("ok", "unchanged", "failed")]
        fields: dict[str, object] = {
            "sources": len(report.sources),
            "asked": len(asked),
            "failed": sum(each.status == "failed" for each in asked),
            "new": sum(each.new for each in asked),
            "trends": report.trends,
        }
        if report.snapshot:
            fields["snapshot"] = report.snapshot.id
        if report.note:
            fields["note"] = _quoted(report.note)
        outcome = "published" if report.published else "unchanged" if report.snapshot else "nothing"
        return outcome, fields, [each.next_due for each in report.sources]

    def _tell_sources(self, reports: Iterable[SourceReport]) -> None:
        """A line for each source that has got worse or well; none for what was said before."""
        for each in reports:
            before = self._said.get(each.source)
            if each.status in ("failed", "muted") and each.says != before:
                self._said[each.source] = each.says
                log.warning("source=%s status=%s message=%s", each.source, each.status, _quoted(each.says))
            elif each.status in ("ok", "unchanged") and before is not None:
                del self._said[each.source]
                log.info("source=%s status=%s message=%s", each.source, each.status, _quoted("well again"))

    def _tell_shelf(self, shelved: Shelved | None) -> None:
        """Likewise: a line when it fails, or fails for another reason, and one when it is well again."""
        if shelved is None:
            return
        why = shelved.error or ""
        if why and why != self._said_of_shelf:
            log.warning(
                "shelf=%s status=failed message=%s", shelved.label, _quoted(f"{why}. The next refresh tries again.")
            )
        elif not why and self._said_of_shelf:
            log.info("shelf=%s status=ok message=%s", shelved.label, _quoted("well again"))
        self._said_of_shelf = why


async def _either(*events: asyncio.Event, timeout: timedelta | None = None) -> None:  # noqa: ASYNC109  (no error at its end)
    """Returns once one of ``events`` is set, or after ``timeout``."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(
            tasks,
            timeout=None if timeout is None else timeout.total_seconds(),
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        for task in tasks:
            task.cancel()


def _quoted(text: str) -> str:
    """One value of a line of key=value pairs; what comes from outside can't begin another line or value."""
    return '"' + clean_line(text, 500).replace('"', "'") + '"'


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
