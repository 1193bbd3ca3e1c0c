"""Captions that are asked for now and fetched later."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from serving.drain import Drain
from serving.http.callers import REFUSALS, CallerDep, exceeded, needs, still_good
from serving.http.captions import Prepared, write_captions
from serving.http.errors import HttpError, error_responses
from serving.http.idempotency import IdempotencyKey
from serving.http.keeping import Keeping
from serving.http.limits import TOO_MANY, Admitted
from serving.http.schemas import CaptionBody, CaptionsAnswer
from serving.http.state import ServicePort, State
from serving.http.uploads import either_body
from serving.identity.door import Door
from serving.identity.quota import Charge, QuotaExceeded
from serving.jobs.store import Job
from serving.jobs.store import State as JobState
from serving.jobs.worker import NotWritten, Write
from serving.records.keeper import Keeper
from trendrag.types import CaptionRequest


class JobError(BaseModel):
    code: str
    message: str


class JobAnswer(BaseModel):
    id: str
    state: JobState
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int = Field(description="how often it was begun; a server that stops in the middle has it begun again")
    result: CaptionsAnswer | None = Field(description="what `POST /api/v1/caption` would have answered, once `done`")
    error: JobError | None = Field(description="why it `failed`")


class OneJob(BaseModel):
    status: Literal["success"] = "success"
    job: JobAnswer


class Jobs(BaseModel):
    status: Literal["success"] = "success"
    items: list[JobAnswer]
    next: str | None = Field(description="give it as `cursor` for the next page; null on the last one")


_ERRORS = error_responses(
    {
        422: "a field can't be used",
        429: TOO_MANY,
        500: "a fault of the server",
        503: "the service database can't be used now; see Retry-After",
    }
)
_NO_SUCH_JOB = error_responses({404: "you have no such job"})
_REFUSED = error_responses(
    {
        400: "the body is not JSON, or not a form",
        408: "the body took too long to arrive",
        413: "the body or the image is too large",
        415: "the body is neither JSON nor a form",
        429: "you have too many jobs that are not finished, or " + TOO_MANY,
        502: "the server of the image's address refused or broke off",
        504: "the server of the image's address took too long",
    }
)
router = APIRouter(
    prefix="/api/v1/jobs",
    tags=["jobs"],
    dependencies=[needs("captions")],
    responses={**error_responses(REFUSALS), **_ERRORS},
)


@router.post("", status_code=202, responses=_REFUSED, openapi_extra=either_body(CaptionBody))
async def submit(
    asked: Prepared,
    caller: CallerDep,
    admission: Admitted,
    state: State,
    response: Response,
    key: IdempotencyKey = None,
) -> OneJob:
    """Takes a caption request in. It is done at least once, also where the server is started again meanwhile.

    With an `Idempotency-Key` seen before, the answer is the job that was made then. A job counts against a key's quota
    when it is taken in; what could not be written is given back, and so is all of a job that is cancelled before it was
    begun.
    """
    job = await state.jobs.known(caller.owner, key, asked)
    if job is None:
        now, captions = state.now(), len(asked.numbers)
        await admission.captions(captions)
        try:
            job = await state.jobs.submit(caller.owner, key, asked, now, Charge.of(caller.key, captions, now))
        except QuotaExceeded as error:
            raise exceeded(error) from None
        state.worker.wake()
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return OneJob(job=_told(job))


@router.get("")
async def mine(
    caller: CallerDep,
    state: State,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> Jobs:
    """Your jobs, the newest first."""
    found = await state.jobs.page(caller.owner, limit + 1, cursor)
    shown = found[:limit]
    return Jobs(items=[_told(job) for job in shown], next=shown[-1].id if len(found) > limit else None)


@router.get("/{job}", responses=_NO_SUCH_JOB)
async def one(job: str, caller: CallerDep, state: State) -> OneJob:
    """How a job is doing, and its captions once it is done."""
    return OneJob(job=_told(_there(await state.jobs.get(caller.owner, job))))


@router.post("/{job}/cancel", responses=_NO_SUCH_JOB)
async def cancel(job: str, caller: CallerDep, state: State) -> OneJob:
    """Stops a job. One that is over stays as it is; one that runs is `running` until the model is stopped."""
    found = _there(await state.jobs.cancel(caller.owner, job, state.now()))
    state.worker.cancelled(job)
    return OneJob(job=_told(found))


def _there(job: Job | None) -> Job:
    if job is None:
        raise HttpError(404, "no_such_job", "You have no such job. It may have been removed some days after its end.")
    return job


def _told(job: Job) -> JobAnswer:
    error = JobError(code=job.error[0], message=job.error[1]) if job.error else None
    return JobAnswer(
        id=job.id,
        state=job.state,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempts=job.attempts,
        result=CaptionsAnswer.model_validate(job.answer) if job.answer is not None else None,
        error=error,
    )


def writing(service: ServicePort, drain: Drain, keeper: Keeper, door: Door) -> Write:
    """What the worker calls for each job: the same that answers `POST /api/v1/caption`. Those of a key that was revoked
    meanwhile fail."""

    async def write(request: CaptionRequest, owner: str) -> dict[str, Any]:
        try:
            await still_good(door, owner)
            answer = await write_captions(request, service, drain, lambda _: None)
        except HttpError as error:
            raise NotWritten(error.code, error.detail) from error
        kept = Keeping(keeper, owner, keeper.new_id()).keep(request, answer)
        return kept.model_dump(mode="json")

    return write
