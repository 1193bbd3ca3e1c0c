"""A job is done at least once and told once, whatever happens to those who work on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest

from serving.identity.quota import Charge, QuotaExceeded
from serving.identity.store import KeyStore
from serving.jobs.store import Job, JobStore, Leased
from serving.jobs.worker import JobWorker, NotWritten
from serving.store.database import Database
from tests.fakes import IMAGE, NOW
from tests.serving.identities import made
from trendrag.errors import KeyReused, StorageError, TooManyJobs
from trendrag.settings import Settings
from trendrag.types import CaptionRequest, TrendFilters, Turn

ASKED = CaptionRequest(
    image=IMAGE,
    note="first snow ❄",
    filters=TrendFilters(region="GB", categories=("sport",)),
    turns=(Turn(role="assistant", text="Snow."), Turn(role="user", text="shorter")),
)
ANSWER = {"captions": [{"text": "Snow ❄"}]}
SOON = NOW + timedelta(seconds=30)
LATER = NOW + timedelta(minutes=10)
KEEP = timedelta(days=1)


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, max_open=30, keep=KEEP)


async def leased(store: JobStore, worker: str = "w", now: datetime = NOW) -> Leased:
    found = await store.lease(worker, now, now + timedelta(seconds=30), 3)
    assert found is not None
    return found


async def again(store: JobStore, job: Job) -> Job:
    found = await store.get(job.owner, job.id)
    assert found is not None
    return found


async def test_a_worker_gets_the_request_as_it_was_and_the_owner_the_answer(store: JobStore) -> None:
    job = await store.submit("me", None, ASKED, NOW)
    taken = await leased(store)
    assert (taken.id, taken.owner, taken.request) == (job.id, "me", ASKED)
    assert (await again(store, job)).state == "running"
    assert await store.finish(job.id, "w", "done", LATER, answer=ANSWER)
    done = await again(store, job)
    assert (done.state, done.answer, done.finished_at, done.attempts) == ("done", ANSWER, LATER, 1)
    assert await store.lease("w", LATER, LATER, 3) is None


async def test_the_one_that_waits_longest_comes_first(store: JobStore) -> None:
    jobs = [await store.submit("me", None, ASKED, NOW + timedelta(seconds=n)) for n in range(3)]
    assert [(await leased(store, now=LATER)).id for _ in jobs] == [job.id for job in jobs]


async def test_the_same_key_is_the_same_job_for_its_owner_alone(store: JobStore) -> None:
    first = await store.submit("me", "k", ASKED, NOW)
    await store.finish((await leased(store)).id, "w", "done", NOW, answer=ANSWER)
    repeated = await store.submit("me", "k", ASKED, LATER)
    assert (repeated.id, repeated.answer) == (first.id, ANSWER)
    assert (await store.submit("you", "k", ASKED, NOW)).id != first.id
    with pytest.raises(KeyReused):
        await store.submit("me", "k", ASKED.model_copy(update={"note": "other"}), NOW)
    with pytest.raises(KeyReused):
        other = IMAGE.model_copy(update={"sha256": "cd" * 32})
        await store.submit("me", "k", ASKED.model_copy(update={"image": other}), NOW)


async def test_the_same_key_many_times_at_once_is_one_job(store: JobStore) -> None:
    jobs = await asyncio.gather(*(store.submit("me", "k", ASKED, NOW) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1


async def test_no_job_goes_to_two_workers(database: Database, store: JobStore) -> None:
    wanted = {(await store.submit("me", None, ASKED, NOW)).id for _ in range(20)}

    async def all_of(worker: str) -> list[str]:
        mine = JobStore(database, max_open=1, keep=KEEP)
        found = []
        while job := await mine.lease(worker, NOW, SOON, 3):
            found.append(job.id)
        return found

    taken = [job for jobs in await asyncio.gather(*(all_of(f"w{n}") for n in range(4))) for job in jobs]
    assert sorted(taken) == sorted(wanted)


async def test_a_lease_that_ran_out_goes_to_another_whose_outcome_counts(store: JobStore) -> None:
    job = await store.submit("me", None, ASKED, NOW)
    await leased(store, "first")
    assert await store.lease("second", NOW, SOON, 3) is None
    await leased(store, "second", LATER)
    assert await store.renew(job.id, "first", LATER) == "lost"
    assert not await store.finish(job.id, "first", "done", LATER, answer={"of": "first"})
    assert await store.finish(job.id, "second", "done", LATER, answer={"of": "second"})
    assert (await again(store, job)).answer == {"of": "second"}


async def test_a_renewed_lease_is_kept(store: JobStore) -> None:
    job = await store.submit("me", None, ASKED, NOW)
    await leased(store, "first")
    assert await store.renew(job.id, "first", LATER) == "held"
    assert await store.lease("second", SOON + timedelta(seconds=1), LATER, 3) is None


async def test_a_job_that_its_workers_do_not_survive_is_given_up(store: JobStore) -> None:
    job = await store.submit("me", None, ASKED, NOW)
    now = NOW
    for _ in range(3):
        await leased(store, "doomed", now)
        now += timedelta(minutes=1)
    assert await store.lease("w", now, now, 3) is None
    failed = await again(store, job)
    assert (failed.state, failed.error and failed.error[0]) == ("failed", "job_lost")


async def test_a_job_given_back_waits_for_its_time_and_may_not_count(store: JobStore) -> None:
    job = await store.submit("me", None, ASKED, NOW)
    await leased(store)
    assert await store.give_back(job.id, "w", SOON, counts=True)
    assert await store.lease("w", NOW, SOON, 3) is None
    assert (await leased(store, now=SOON)).attempts == 2
    assert await store.give_back(job.id, "w", SOON, counts=False)
    assert (await leased(store, now=SOON)).attempts == 2


async def test_cancelling(store: JobStore) -> None:
    waiting, running, done = [await store.submit("me", None, ASKED, NOW + timedelta(seconds=n)) for n in (9, 1, 0)]
    assert (await leased(store, now=NOW)).id == done.id
    await store.finish(done.id, "w", "done", NOW, answer=ANSWER)
    assert (await leased(store, now=NOW + timedelta(seconds=2))).id == running.id
    states = [(job.id, (await store.cancel("me", job.id, NOW) or job).state) for job in (waiting, running, done)]
    assert states == [(waiting.id, "cancelled"), (running.id, "running"), (done.id, "done")]
    assert await store.renew(running.id, "w", SOON) == "cancel"
    assert await store.lease("w", NOW + timedelta(seconds=20), SOON, 3) is None
    # Its worker is gone: the next one does not begin it again.
    assert await store.lease("w", LATER, LATER, 3) is None
    assert (await again(store, running)).state == "cancelled"


async def test_nobody_sees_or_touches_another_owners_jobs(store: JobStore) -> None:
    mine = await store.submit("me", None, ASKED, NOW)
    assert await store.get("you", mine.id) is None
    assert await store.cancel("you", mine.id, NOW) is None
    assert await store.page("you", 10, None) == []
    assert (await again(store, mine)).state == "queued"


async def test_pages_hold_each_job_once_newest_first(store: JobStore) -> None:
    made = [(await store.submit("me", None, ASKED, NOW + timedelta(seconds=n))).id for n in range(5)]
    pages: list[list[str]] = []
    before = None
    while page := [job.id for job in await store.page("me", 2, before)]:
        pages.append(page)
        before = page[-1]
    assert [job for page in pages for job in page] == made[::-1]


async def test_an_owner_has_so_many_open_jobs_and_others_theirs(database: Database) -> None:
    store = JobStore(database, max_open=1, keep=KEEP)
    job = await store.submit("me", "k", ASKED, NOW)
    with pytest.raises(TooManyJobs):
        await store.submit("me", None, ASKED, NOW)
    assert (await store.submit("me", "k", ASKED, NOW)).id == job.id
    await store.submit("you", None, ASKED, NOW)
    await store.cancel("me", job.id, NOW)
    await store.submit("me", None, ASKED, NOW)


async def test_what_is_over_for_long_is_removed_and_nothing_else(store: JobStore) -> None:
    jobs = [await store.submit("me", None, ASKED, NOW) for _ in range(3)]
    await store.cancel("me", jobs[0].id, NOW)
    await store.cancel("me", jobs[1].id, LATER)
    assert await store.prune(SOON + KEEP) == 1
    assert {job.id for job in await store.page("me", 10, None)} == {jobs[1].id, jobs[2].id}


class Charged:
    """Three captions charged to a key for a job, by the store of one server; ``other`` is another server's."""

    def __init__(self, database: Database, another: Database) -> None:
        self.database = database
        self.keys = KeyStore(database)
        self.store = JobStore(database, max_open=30, keep=KEEP)
        self.other = JobStore(another, max_open=30, keep=KEEP)

    async def submit(self) -> Job:
        _, self.key = await made(self.keys, captions_per_day=10)
        return await self.store.submit(f"key:{self.key.id}", None, ASKED, NOW, Charge.of(self.key, 3, NOW))

    async def counted(self) -> int:
        return (await self.keys.uses(NOW.date()))[self.key.id]


@pytest.fixture
async def charged(database: Database, service_settings: Settings) -> AsyncIterator[Charged]:
    another = Database.of(service_settings)
    yield Charged(database, another)
    await another.aclose()


@pytest.mark.parametrize(
    ("state", "written", "counted"),
    [("failed", 0, 0), ("done", 3, 3), ("done", 2, 2), ("cancelled", 0, 3)],
)
async def test_captions_that_were_not_written_are_given_back_once(
    charged: Charged, state: Literal["done", "failed", "cancelled"], written: int, counted: int
) -> None:
    job = await charged.submit()
    assert await charged.counted() == 3
    await leased(charged.store)
    for store in (charged.store, charged.other, charged.store):
        await store.finish(job.id, "w", state, SOON, written=written)
        assert await charged.counted() == counted


async def test_a_job_is_charged_once_with_its_key_and_not_where_it_is_not_taken_in(charged: Charged) -> None:
    first = await charged.submit()
    charge = Charge.of(charged.key, 4, NOW)
    both = [
        await asyncio.gather(*(store.submit(first.owner, "k", ASKED, NOW, charge) for _ in range(4)))
        for store in (charged.store, charged.other)
    ]
    assert len({job.id for jobs in both for job in jobs}) == 1
    assert await charged.counted() == 3 + 4
    with pytest.raises(QuotaExceeded):
        await charged.store.submit(first.owner, None, ASKED, NOW, charge)
    full = JobStore(charged.database, max_open=2, keep=KEEP)
    with pytest.raises(TooManyJobs):
        await full.submit(first.owner, None, ASKED, NOW, Charge.of(charged.key, 1, NOW))
    assert await charged.counted() == 3 + 4
    assert len(await charged.store.page(first.owner, 10, None)) == 2


async def test_what_is_cancelled_before_it_was_begun_is_given_back_once(charged: Charged) -> None:
    job = await charged.submit()
    await asyncio.gather(*(store.cancel(job.owner, job.id, SOON) for store in (charged.store, charged.other) * 3))
    assert await charged.counted() == 0
    again_begun = await charged.submit()
    await leased(charged.store)
    await charged.store.give_back(again_begun.id, "w", NOW, counts=True)
    await charged.store.cancel(again_begun.owner, again_begun.id, SOON)
    assert await charged.counted() == 3, "the model has worked for it"


async def test_what_was_charged_is_remembered_over_a_restart(charged: Charged) -> None:
    """The first server is killed in the middle; the next ones find the job too often begun, and give it back."""
    job = await charged.submit()
    await leased(charged.store)
    for late in (1, 2):
        assert await charged.other.lease("x", NOW + timedelta(hours=late), SOON + timedelta(hours=late), 3)
        assert await charged.counted() == 3
    assert await charged.other.lease("x", NOW + timedelta(hours=9), SOON + timedelta(hours=9), 3) is None
    assert (await again(charged.other, job)).state == "failed"
    assert await charged.counted() == 0
    assert not await charged.store.finish(job.id, "w", "failed", LATER), "the first worker comes too late"
    assert await charged.counted() == 0


@dataclass
class Model:
    """Writes when it is let: each call waits at ``gate``; then it fails with the next of ``errors``, or answers."""

    errors: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[CaptionRequest, str]] = field(default_factory=list)

    async def write(self, request: CaptionRequest, owner: str) -> dict[str, Any]:
        self.asked.append((request, owner))
        self.begun.put_nowait(owner)
        try:
            await self.gate.wait()
        finally:
            self.closed.set()
        if self.errors:
            raise self.errors.pop(0)
        return ANSWER


class Watched(JobStore):
    """Says when a job leaves its worker. The first ``away`` attempts to write that down fail."""

    away = 0

    async def _leave(self, job: str, worker: str, values: Any, written: int | None) -> bool:
        if self.away:
            self.away -= 1
            raise StorageError("away")
        left = await super()._leave(job, worker, values, written)
        self.left.put_nowait(values["state"])
        return left

    def __init__(self, database: Database) -> None:
        super().__init__(database, max_open=30, keep=KEEP)
        self.left: asyncio.Queue[str] = asyncio.Queue()


@dataclass
class Bench:
    """A worker on a watched store, with a clock that stands still until it is set."""

    database: Database
    stack: AsyncExitStack
    model: Model = field(default_factory=Model)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.store = Watched(self.database)

    async def start(self, model: Model | None = None) -> JobWorker:
        worker = JobWorker(
            self.store,
            (model or self.model).write,
            lambda: self.now,
            concurrency=2,
            attempts=3,
            lease_s=30,
            poll_s=0.01,
        )
        await self.stack.enter_async_context(worker.running())
        return worker

    async def submit(self) -> Job:
        return await self.store.submit("me", None, ASKED, self.now)

    async def left(self) -> str:
        async with asyncio.timeout(60):
            return await self.store.left.get()


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(database, stack)


async def test_jobs_are_done_in_the_background_for_their_owner(bench: Bench) -> None:
    worker = await bench.start()
    job = await bench.submit()
    worker.wake()
    bench.model.gate.set()
    assert await bench.left() == "done"
    assert (await again(bench.store, job)).answer == ANSWER
    assert bench.model.asked == [(ASKED, "me")]


async def test_a_job_taken_in_before_the_start_or_elsewhere_is_found(bench: Bench) -> None:
    await bench.submit()
    bench.model.gate.set()
    await bench.start()
    assert await bench.left() == "done"
    await bench.submit()  # nobody wakes the worker
    assert await bench.left() == "done"


async def test_a_model_that_is_away_is_asked_again_later_and_not_for_ever(bench: Bench) -> None:
    bench.model.errors = [NotWritten("model_unavailable", "away")] * 3
    bench.model.gate.set()
    job = await bench.submit()
    worker = await bench.start()
    for waits in (5, 20):
        assert await bench.left() == "queued"
        bench.now += timedelta(seconds=waits)
        worker.wake()
    assert await bench.left() == "failed"
    assert (await again(bench.store, job)).error == ("model_unavailable", "away")


async def test_a_full_house_is_no_attempt(bench: Bench) -> None:
    bench.model.errors = [NotWritten("busy", "full")] * 5
    bench.model.gate.set()
    job = await bench.submit()
    worker = await bench.start()
    for _ in range(5):
        assert await bench.left() == "queued"
        bench.now += timedelta(hours=1)
        worker.wake()
    assert await bench.left() == "done"
    assert (await again(bench.store, job)).attempts == 1


@pytest.mark.parametrize(
    ("error", "code"), [(NotWritten("model_rejected", "no"), "model_rejected"), (ZeroDivisionError(), "internal")]
)
async def test_what_another_attempt_would_meet_again_fails_at_once(bench: Bench, error: Exception, code: str) -> None:
    bench.model.errors = [error]
    bench.model.gate.set()
    job = await bench.submit()
    await bench.start()
    assert await bench.left() == "failed"
    told = (await again(bench.store, job)).error
    assert told is not None and told[0] == code


async def test_at_a_shutdown_the_model_is_stopped_and_another_server_goes_on_at_once(
    bench: Bench, database: Database
) -> None:
    job = await bench.submit()
    async with AsyncExitStack() as stack:
        await Bench(database, stack, bench.model).start()
        await bench.model.begun.get()
    assert bench.model.closed.is_set()
    assert ((await again(bench.store, job)).state, (await again(bench.store, job)).attempts) == ("queued", 0)
    other = Model()
    other.gate.set()
    await bench.start(other)
    assert await bench.left() == "done"


async def test_cancelling_a_running_job_stops_the_model(bench: Bench) -> None:
    job = await bench.submit()
    worker = await bench.start()
    await bench.model.begun.get()
    await bench.store.cancel("me", job.id, NOW)
    worker.cancelled(job.id)
    assert await bench.left() == "cancelled"
    assert bench.model.closed.is_set()


async def test_captions_written_while_the_database_is_away_are_kept_for_when_it_is_back(bench: Bench) -> None:
    job = await bench.submit()
    await bench.start()
    await bench.model.begun.get()
    bench.store.away = 3
    bench.model.gate.set()
    assert await bench.left() == "done"
    assert (await again(bench.store, job)).answer == ANSWER
    assert len(bench.model.asked) == 1


async def test_a_worker_that_holds_on_too_late_does_not_begin_its_own_job_again(bench: Bench) -> None:
    """As after a database that was away for longer than the lease."""
    job = await bench.submit()
    worker = await bench.start()
    await bench.model.begun.get()
    bench.now = LATER
    other = ASKED.model_copy(update={"note": "another"})
    await bench.store.submit("me", None, other, LATER)
    worker.wake()
    await bench.model.begun.get()
    assert [asked for asked, _ in bench.model.asked] == [ASKED, other]
    bench.model.gate.set()
    assert [await bench.left() for _ in range(2)] == ["done"] * 2
    assert (await again(bench.store, job)).attempts == 1


async def test_no_more_than_so_many_at_once(bench: Bench) -> None:
    for _ in range(5):
        await bench.submit()
    await bench.start()
    await bench.model.begun.get()
    await bench.model.begun.get()
    assert await bench.store.counts() == {"running": 2, "queued": 3}
    bench.model.gate.set()
    assert [await bench.left() for _ in range(5)] == ["done"] * 5
