"""Jobs in the service database, which is the queue: what it says counts, whoever works.

A job is ``queued``, then ``running`` under a lease, then ``done``, ``failed`` or ``cancelled`` for good. A worker that
goes without a word loses its lease, and another does the job again: at least once, never lost.

What a job was charged is given back in the transaction that ends it, so once, whoever is killed when: captions that
were not written, and all of a job that was cancelled before it was begun. Cancelling what was begun gives nothing back.
"""

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import and_, delete, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.identity.quota import Charge, QuotaExceeded, seconds_to_midnight
from serving.identity.store import give_back, take
from serving.store.database import Database
from serving.store.tables import JobRow
from trendrag.database import UtcDateTime
from trendrag.errors import KeyReused, StorageError, TooManyJobs
from trendrag.types import CaptionRequest

State = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running")
LOST = ("job_lost", "Its workers stopped in the middle of it, each time. Submit it again, or with another photo.")
_PRUNED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Job:
    """``answer`` is there where it is done, ``error`` (code, message) where it failed; ``attempts`` are beginnings."""

    id: str
    owner: str
    state: State
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    answer: dict[str, Any] | None
    error: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Leased:
    """A job to do now. ``request`` is None where what was kept can't be read as a request of this version."""

    id: str
    owner: str
    attempts: int
    request: CaptionRequest | None


class JobStore:
    """All methods raise StorageError where the database can't be used now."""

    def __init__(self, database: Database, *, max_open: int, keep: timedelta) -> None:
        """``max_open``: jobs that an owner may have queued or running. ``keep``: how long after its end a job stays."""
        self._database = database
        self._max_open = max_open
        self._keep = keep

    async def submit(
        self, owner: str, key: str | None, request: CaptionRequest, now: datetime, charge: Charge | None = None
    ) -> Job:
        """The new job; the old one where the owner submitted the same under this key before. ``charge`` is what the
        new one costs: counted with it, or not at all.

        Raises:
            KeyReused: it was another request.
            TooManyJobs: the owner has ``max_open`` jobs that are not over.
            QuotaExceeded: so many captions are not left today.
        """
        if known := await self.known(owner, key, request):
            return known
        kept = _kept(request)
        row: dict[str, Any] = {
            "id": new_id(now),
            "owner": owner,
            "key": key,
            "fingerprint": _fingerprint(kept),
            "state": "queued",
            "request": kept,
            "image": request.image.data,
            "ready_at": now,
            "created_at": now,
        }
        if charge is not None:
            row |= {"charged": charge.captions, "charged_key": charge.key, "charged_day": charge.day}
        try:
            async with self._database.begin() as connection:
                waiting = select(func.count()).where(JobRow.owner == owner, JobRow.state.in_(OPEN))
                if (await connection.scalar(waiting) or 0) >= self._max_open:
                    raise TooManyJobs(
                        f"You have {self._max_open} jobs that are not finished. Wait for one, or cancel one."
                    )
                job = _job((await connection.execute(insert(JobRow).values(row).returning(*_TOLD))).one())
                # After it is in: of two of the same, the second is to learn of the first, and not of the quota.
                if charge is not None and not await take(
                    connection, charge.key, charge.day, charge.captions, charge.limit
                ):
                    raise QuotaExceeded(charge.limit, seconds_to_midnight(now))
                return job
        except StorageError as error:
            # Two of the same at the same moment: the other was first.
            if isinstance(error.__cause__, IntegrityError) and (known := await self.known(owner, key, request)):
                return known
            raise

    async def known(self, owner: str, key: str | None, request: CaptionRequest) -> Job | None:
        """The job of this request that the owner submitted under this key before.

        Raises:
            KeyReused: it was another request.
        """
        if key is None:
            return None
        async with self._database.begin() as connection:
            wanted = select(*_TOLD, JobRow.fingerprint).where(JobRow.owner == owner, JobRow.key == key)
            found = (await connection.execute(wanted)).one_or_none()
        if found is not None and found.fingerprint != _fingerprint(_kept(request)):
            raise KeyReused("This Idempotency-Key came with another request before. Use a new key for a new request.")
        return _job(found) if found is not None else None

    async def get(self, owner: str, job: str) -> Job | None:
        """None where the owner has no such job."""
        async with self._database.begin() as connection:
            wanted = select(*_TOLD).where(JobRow.owner == owner, JobRow.id == job)
            found = (await connection.execute(wanted)).one_or_none()
        return _job(found) if found is not None else None

    async def page(self, owner: str, limit: int, before: str | None) -> list[Job]:
        """The owner's newest jobs, those older than the job ``before``."""
        wanted = select(*_TOLD).where(JobRow.owner == owner).order_by(JobRow.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(JobRow.id < before)
        async with self._database.begin() as connection:
            return [_job(row) for row in await connection.execute(wanted)]

    async def cancel(self, owner: str, job: str, now: datetime) -> Job | None:
        """A queued job is cancelled at once, a running one as soon as its worker hears of it; the others stay."""
        mine = and_(JobRow.owner == owner, JobRow.id == job)
        over = {"state": "cancelled", "finished_at": now, "image": None}
        async with self._database.begin() as connection:
            queued = (
                update(JobRow).where(mine, JobRow.state == "queued").values(over).returning(JobRow.attempts, *_CHARGE)
            )
            cancelled = (await connection.execute(queued)).one_or_none()
            if cancelled is not None and cancelled.attempts == 0:
                await _give_back(connection, cancelled, 0)
            await connection.execute(update(JobRow).where(mine, JobRow.state == "running").values(cancel_asked=True))
            found = (await connection.execute(select(*_TOLD).where(mine))).one_or_none()
        return _job(found) if found is not None else None

    async def lease(
        self, worker: str, now: datetime, until: datetime, max_attempts: int, doing: Collection[str] = ()
    ) -> Leased | None:
        """The job that has waited longest, now the worker's until ``until``; None where none waits. Those that the
        worker is ``doing`` are not begun again, though it held on to them too late.

        A job whose lease ran out ``max_attempts`` times is failed on the way: it may be what kills workers.
        """
        waits = or_(
            and_(JobRow.state == "queued", JobRow.ready_at <= now),
            and_(JobRow.state == "running", JobRow.leased_until < now, JobRow.id.not_in(doing)),
        )
        # Locks nothing that another worker is about to take; SQLite, with one writer at a time, needs no lock.
        first = select(JobRow.id).where(waits).order_by(JobRow.ready_at, JobRow.id).limit(1)
        first = first.with_for_update(skip_locked=True)
        taken = {
            "state": "running",
            "worker": worker,
            "leased_until": until,
            "attempts": JobRow.attempts + 1,
            "started_at": func.coalesce(JobRow.started_at, literal(now, UtcDateTime)),
        }
        told = (JobRow.id, JobRow.owner, JobRow.attempts, JobRow.request, JobRow.image, JobRow.cancel_asked)
        while True:
            async with self._database.begin() as connection:
                statement = update(JobRow).where(JobRow.id == first.scalar_subquery()).values(taken).returning(*told)
                found = (await connection.execute(statement)).one_or_none()
            if found is None:
                return None
            if found.cancel_asked:
                await self.finish(found.id, worker, "cancelled", now)
            elif found.attempts > max_attempts:
                await self.finish(found.id, worker, "failed", now, error=LOST)
            else:
                return Leased(found.id, found.owner, found.attempts, _request(found.request, found.image))

    async def renew(self, job: str, worker: str, until: datetime) -> Literal["held", "cancel", "lost"]:
        """Prolongs a lease, where it is still the worker's, and says whether to go on."""
        held = and_(JobRow.id == job, JobRow.worker == worker, JobRow.state == "running")
        async with self._database.begin() as connection:
            statement = update(JobRow).where(held).values(leased_until=until).returning(JobRow.cancel_asked)
            found = (await connection.execute(statement)).one_or_none()
        return "lost" if found is None else "cancel" if found.cancel_asked else "held"

    async def finish(
        self,
        job: str,
        worker: str,
        state: Literal["done", "failed", "cancelled"],
        now: datetime,
        *,
        answer: Mapping[str, Any] | None = None,
        error: tuple[str, str] | None = None,
        written: int = 0,
    ) -> bool:
        """Of a job that is done or failed, what was charged for more than the captions ``written`` is given back.

        False where the lease was lost: another worker's outcome counts then.
        """
        code, message = error or (None, None)
        over = {
            "state": state,
            "finished_at": now,
            "answer": answer,
            "error_code": code,
            "error": message,
            "image": None,
            "worker": None,
            "leased_until": None,
        }
        return await self._leave(job, worker, over, None if state == "cancelled" else written)

    async def give_back(self, job: str, worker: str, ready_at: datetime, *, counts: bool) -> bool:
        """Queues a job again, for ``ready_at``. ``counts``: as an attempt, which a shutdown's is not."""
        again = {"state": "queued", "ready_at": ready_at, "worker": None, "leased_until": None}
        if not counts:
            again["attempts"] = JobRow.attempts - 1
        return await self._leave(job, worker, again, None)

    async def _leave(self, job: str, worker: str, values: Mapping[str, Any], written: int | None) -> bool:
        """``written`` is None where all that was charged stays so."""
        held = and_(JobRow.id == job, JobRow.worker == worker, JobRow.state == "running")
        async with self._database.begin() as connection:
            left = (
                await connection.execute(update(JobRow).where(held).values(values).returning(*_CHARGE))
            ).one_or_none()
            if left is not None and written is not None:
                await _give_back(connection, left, written)
        return left is not None

    async def counts(self) -> dict[str, int]:
        """Jobs by state."""
        async with self._database.begin() as connection:
            rows = await connection.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            return {row[0]: row[1] for row in rows}

    async def prune(self, now: datetime) -> int:
        """Removes jobs that have been over for too long, some hundreds at most."""
        old = select(JobRow.id).where(JobRow.finished_at < now - self._keep).limit(_PRUNED_AT_ONCE)
        async with self._database.begin() as connection:
            return (await connection.execute(delete(JobRow).where(JobRow.id.in_(old)))).rowcount


_TOLD = (
    JobRow.id,
    JobRow.owner,
    JobRow.state,
    JobRow.created_at,
    JobRow.started_at,
    JobRow.finished_at,
    JobRow.attempts,
    JobRow.answer,
    JobRow.error_code,
    JobRow.error,
)


_CHARGE = (JobRow.charged, JobRow.charged_key, JobRow.charged_day)


async def _give_back(connection: AsyncConnection, job: Any, written: int) -> None:
    """What was charged for a job (``_CHARGE``), but for so many captions."""
    if job.charged is not None and job.charged > written:
        await give_back(connection, job.charged_key, job.charged_day, job.charged - written)


def new_id(now: datetime) -> str:
    """32 hexadecimal digits that sort by time, so that an id is also a place in a list."""
    return f"{int(now.timestamp() * 1_000_000):014x}{secrets.token_hex(9)}"


def backoff(attempts: int) -> timedelta:
    """The pause before the next attempt: 5, 20, 80, 320 seconds, then a quarter of an hour. Eight attempts last for
    nearly an hour: a model server that is away for so long is being worked on."""
    return timedelta(seconds=min(900, 5 * 4 ** (min(attempts, 6) - 1)))


def _kept(request: CaptionRequest) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude={"image": {"data"}})


def _fingerprint(kept: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _request(kept: Mapping[str, Any], image: bytes | None) -> CaptionRequest | None:
    try:
        return CaptionRequest.model_validate({**kept, "image": {**kept["image"], "data": image}})
    except (ValidationError, KeyError, TypeError):
        return None


def _job(row: Any) -> Job:
    error = (row.error_code, row.error or "") if row.error_code is not None else None
    return Job(
        row.id,
        row.owner,
        row.state,
        row.created_at,
        row.started_at,
        row.finished_at,
        row.attempts,
        row.answer,
        error,
    )
