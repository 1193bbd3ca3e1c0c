"""The caller's feedback, to fine-tune a model with."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from serving.http.callers import REFUSALS, CallerDep, needs
from serving.http.errors import error_responses
from serving.http.state import State
from serving.records.training import Format, exported

_JSONL = "application/jsonl"

router = APIRouter(
    prefix="/api/v1/feedback",
    tags=["feedback"],
    dependencies=[needs("history")],
    responses=error_responses(REFUSALS),
)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {"content": {_JSONL: {"schema": {"type": "string"}}}, "description": "one JSON object a line"},
        **error_responses(
            {
                422: "a field can't be used",
                500: "a fault of the server",
                503: "the service database can't be used now; see Retry-After",
            }
        ),
    },
)
async def export(
    caller: CallerDep,
    state: State,
    how: Annotated[
        Format,
        Query(
            alias="format",
            description="`sft`: conversations that end with a text that you liked or put right; `preference`: a prompt "
            "with a `chosen` and a `rejected` text",
        ),
    ] = "sft",
    since: Annotated[AwareDatetime | None, Query(description="only with feedback from then on, with its zone")] = None,
) -> StreamingResponse:
    """Your feedback as JSONL, in the conversational formats of TRL. Images are not kept and not in it."""
    await state.keeper.settled(caller.owner)
    pieces = exported(state.database, how, caller.owner, since)
    first = await anext(pieces, "")  # before the answer begins: a database that is away is a 503
    return StreamingResponse(_all(first, pieces), media_type=_JSONL)


async def _all(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for piece in rest:
        yield piece
