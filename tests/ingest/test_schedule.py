"""When refreshes follow each other, what a failed one costs, and who runs them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ingest.schedule
from ingest.database import engine_of
from ingest.leader import named_lock
from ingest.read import SourceReport
from ingest.refresh import RefreshReport, Shelved
from ingest.schedule import LONGEST_BACKOFF, LONGEST_WAIT, SHORTEST_WAIT, Lead, Schedule, backoff, next_wake
from ingest.store import ObservationStore
from tests.ingest.fakes import HOUR, NOW, source
from tests.ingest.test_due import LATTE, RAIN, TAGS_URL, Site
from trendrag.errors import ConfigurationError, WeightsError
from trendrag.settings import Settings

MINUTE = timedelta(minutes=1)
FEED = source('id = "feed"\ntype = "rss"\nurl = "https://paper.example/feed"')
moments = st.none() | st.timedeltas(-400 * HOUR, 400 * HOUR).map(lambda ahead: NOW + ahead)


@given(st.lists(moments))
def test_the_next_wake_is_never_too_soon_nor_too_late(dues: list[datetime | None]) -> None:
    wake = next_wake(dues, NOW)
    assert NOW + SHORTEST_WAIT <= wake <= NOW + LONGEST_WAIT
    known = [due for due in dues if due is not None]
    if known and SHORTEST_WAIT <= min(known) - NOW <= LONGEST_WAIT:
        assert wake == min(known)


def test_the_wait_after_failures_doubles_up_to_a_limit() -> None:
    assert [backoff(failures) for failures in (1, 2, 3)] == [MINUTE, 2 * MINUTE, 4 * MINUTE]
    assert backoff(10_000) == LONGEST_BACKOFF


class Free:
    """``Lead`` of who is alone; ``ends`` says after how many checks it is lost."""

    def __init__(self, ends: int | None = None) -> None:
        self.checks = self.acquired = self.released = 0
        self._ends = ends

    def acquire(self) -> bool:
        self.acquired += 1
        return True

    def held(self) -> bool:
        self.checks += 1
        return self.checks != self._ends

    def release(self) -> None:
        self.released += 1


class Watched:
    def __init__(self) -> None:
        self.leading: list[bool] = []
        self.runs: list[tuple[str, datetime]] = []

    def leads(self, leading: bool) -> None:
        self.leading.append(leading)

    def ran(self, outcome: str, seconds: float, ended: datetime, wake: datetime) -> None:
        self.runs.append((outcome, wake))


def report(*sources: SourceReport, **fields: object) -> RefreshReport:
    return RefreshReport(sources, **fields)  # type: ignore[arg-type]


def scheduled(
    run: Callable[[], Awaitable[RefreshReport]], lead: Lead | None = None, *, at: Callable[[], datetime] = lambda: NOW
) -> tuple[Schedule, Watched]:
    watched = Watched()
    return Schedule(run, lead or Free(), watched, clock=at), watched


@contextlib.asynccontextmanager
async def serving(schedule: Schedule) -> AsyncIterator[asyncio.Task[None]]:
    """The schedule at work; stopped at the end, unless it has been."""
    stop = asyncio.Event()
    task = asyncio.create_task(schedule.serve(stop))
    try:
        async with asyncio.timeout(60):
            yield task
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConfigurationError("The trend database can't be used. Is its server up?"), "Is its server up?"),
        (WeightsError("Run: trendrag models fetch"), "trendrag models fetch"),
        (OSError(28, "No space left on device"), "Is there space on the disk"),
        (KeyError("a bug"), "should not be"),
    ],
)
async def test_a_refresh_that_fails_is_told_and_tried_again_later(
    error: Exception, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    ends: Iterator[Exception | None] = iter([error, error, None, error])

    async def run() -> RefreshReport:
        if (each := next(ends)) is not None:
            raise each
        return report()

    schedule, watched = scheduled(run)
    wakes = [await schedule.turn() for _ in range(4)]
    assert [wake - NOW for wake in wakes] == [MINUTE, 2 * MINUTE, LONGEST_WAIT, MINUTE]
    assert [outcome for outcome, _ in watched.runs] == ["error", "error", "nothing", "error"]
    assert says in caplog.text
    lines = [line for line in caplog.messages if "outcome=error" in line]
    assert lines[0].startswith("refresh outcome=error seconds=0.0 next=2026-11-20T09:01:00Z code=")


async def test_a_refresh_of_somebody_else_is_no_failure_and_soon_over() -> None:
    async def run() -> RefreshReport:
        return report(busy=True, note="Another refresh is under way")

    schedule, watched = scheduled(run)
    assert [await schedule.turn() - NOW for _ in range(3)] == [MINUTE] * 3
    assert [outcome for outcome, _ in watched.runs] == ["busy"] * 3


async def test_a_shelf_that_fails_is_told_once_and_when_it_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    states = iter(["is away", "is away", None, None])

    async def run() -> RefreshReport:
        return report(shelved=Shelved("s3://bucket/trends", error=next(states)))

    caplog.set_level(logging.INFO)
    schedule, _ = scheduled(run)
    for _ in range(4):
        await schedule.turn()
    told = [line for line in caplog.messages if line.startswith("shelf=")]
    assert len(told) == 2
    assert told[0].startswith('shelf=s3://bucket/trends status=failed message="is away. The next refresh tries again')
    assert "well again" in told[1]


async def test_a_source_that_fails_is_told_once_and_when_it_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    bad = SourceReport("a", error="status 500\ninjected=1", status="failed", next_due=NOW + 3 * MINUTE)
    waiting = SourceReport("a", error="500", status="waiting", next_due=NOW + 2 * MINUTE)
    gone = SourceReport("b", error="410 (gone for good)", status="muted")
    rounds = iter([[bad, gone], [waiting, gone], [bad, gone], [SourceReport("a", items=3, new=2), gone]])

    async def run() -> RefreshReport:
        return report(*next(rounds), trends=7)

    caplog.set_level(logging.INFO)
    schedule, watched = scheduled(run)
    for _ in range(4):
        await schedule.turn()
    assert [wake - NOW for _, wake in watched.runs] == [3 * MINUTE, 2 * MINUTE, 3 * MINUTE, LONGEST_WAIT]
    told = [line for line in caplog.messages if line.startswith("source=")]
    assert [line.split(" message")[0] for line in told] == [
        "source=a status=failed", "source=b status=muted", "source=a status=ok",
    ]  # fmt: skip
    assert 'message="status 500 injected=1"' in told[0]
    assert "sources=2 asked=1 failed=0 new=2 trends=7" in caplog.messages[-1]


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    store = ObservationStore.in_memory()
    yield Site(settings, store)
    store.close()


async def test_it_publishes_only_when_something_has_changed(site: Site) -> None:
    now = NOW
    site.web.bodies = {TAGS_URL: LATTE}
    site.web.headers = {"cache-control": "max-age=80000"}
    schedule, watched = scheduled(lambda: site.refresh(now), at=lambda: now)
    wakes = [now := await schedule.turn() for _ in range(3)]
    assert [outcome for outcome, _ in watched.runs] == ["published", "unchanged", "unchanged"]
    assert wakes == [NOW + n * LONGEST_WAIT for n in (1, 2, 3)]
    assert len(site.web.asked) == 1
    site.web.bodies = {TAGS_URL: RAIN}
    now = NOW + 23 * HOUR
    await schedule.turn()
    assert watched.runs[-1][0] == "published"
    assert len(list(site.settings.snapshots_dir.glob("2*"))) == 2


async def test_it_wakes_when_the_next_source_is_due_and_a_restart_asks_nobody_early(site: Site) -> None:
    now = NOW
    quick = source('id = "tags"\ntype = "mastodon"\nhost = "m.example"\nevery = "7m"')
    site.web.bodies = {TAGS_URL: LATTE}

    async def run() -> RefreshReport:
        return await site.refresh(now, [quick])

    def clock() -> datetime:
        return now

    asked = []
    for _restart in range(3):
        schedule, _ = scheduled(run, at=clock)
        for _ in range(3):
            now = await schedule.turn()
            asked.append((now - NOW) // MINUTE)
    assert asked == [5, 7, 12, 14, 19, 21, 26, 28, 33]
    assert len(site.web.asked) == 5  # at minute 0, 7, 14, 21 and 28


async def test_after_a_long_sleep_there_is_one_run_and_not_one_for_each_missed() -> None:
    runs: list[datetime] = []
    second = asyncio.Event()
    slept = iter([datetime.now(UTC) - timedelta(days=10)])

    async def run() -> RefreshReport:
        runs.append(datetime.now(UTC))
        if len(runs) > 1:
            second.set()
        return report()

    # By its first end ten days are said to have passed since the wake that follows from it.
    schedule, _ = scheduled(run, at=lambda: next(slept, None) or datetime.now(UTC))
    async with serving(schedule):
        await second.wait()
        for _ in range(200):
            await asyncio.sleep(0)
    assert len(runs) == 2


async def test_stopping_cancels_the_refresh_under_way_and_gives_the_lead_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def run() -> RefreshReport:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    lead = Free()
    schedule, watched = scheduled(run, lead)
    async with serving(schedule):
        await begun.wait()
    assert cancelled.is_set()
    assert (lead.released, watched.leading, watched.runs) == (1, [True, False], [])
    assert "Traceback" not in caplog.text


async def test_who_loses_the_lead_does_not_refresh_until_it_is_got_back(caplog: pytest.LogCaptureFixture) -> None:
    ran = asyncio.Event()

    async def run() -> RefreshReport:
        ran.set()
        return report()

    lead = Free(ends=1)
    schedule, watched = scheduled(run, lead)
    async with serving(schedule):
        await ran.wait()
    assert lead.acquired == 2
    assert watched.leading == [True, False, True, False]
    assert "Leadership is lost" in caplog.text


async def test_one_replica_refreshes_and_another_takes_over(
    database_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ingest.schedule, "FOLLOW_EVERY", timedelta(milliseconds=20))
    caplog.set_level(logging.INFO)
    engines = [engine_of(database_settings) for _ in range(2)]
    ran = [asyncio.Event(), asyncio.Event()]
    loop, refused = asyncio.get_running_loop(), asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Another replica leads" in record.getMessage():
                loop.call_soon_threadsafe(refused.set)

    ingest.schedule.log.addHandler(handler := Told())

    def replica(number: int) -> Schedule:
        async def run() -> RefreshReport:
            ran[number].set()
            return report()

        return scheduled(run, named_lock(engines[number], "schedule"))[0]

    async with contextlib.AsyncExitStack() as second:
        async with serving(replica(0)):
            await ran[0].wait()
            await second.enter_async_context(serving(replica(1)))
            async with asyncio.timeout(60):
                await refused.wait()
            assert not ran[1].is_set()
        await ran[1].wait()
    ingest.schedule.log.removeHandler(handler)
    for engine in engines:
        engine.dispose()


async def test_a_lead_that_can_not_be_asked_for_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ingest.schedule, "FOLLOW_EVERY", timedelta(0))
    caplog.set_level(logging.INFO)
    ran = asyncio.Event()

    class Away(Free):
        def acquire(self) -> bool:
            if super().acquire() and self.acquired < 4:
                raise ConfigurationError("The trend database can't be used. Is its server up?")
            return True

    async def run() -> RefreshReport:
        ran.set()
        return report()

    async with serving(scheduled(run, Away())[0]):
        await ran.wait()
    assert caplog.text.count("Is its server up?") == 1
