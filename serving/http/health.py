"""What operators and their machines ask: is the process alive, can it write captions, how is it doing."""

import asyncio

from fastapi import APIRouter, Response

from serving.http.metrics import CONTENT_TYPE
from serving.http.schemas import AliveAnswer, ReadyAnswer
from serving.http.state import State
from trendrag.errors import TrendragError

READY_TIMEOUT_S = 5.0
"""Longest time for the model server to answer a readiness probe."""

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveAnswer:
    """The process answers. Says nothing of the model: restarting this process would not bring a model server back."""
    return AliveAnswer()


@router.get("/readyz", responses={503: {"model": ReadyAnswer, "description": "the model can't be used now"}})
async def ready(state: State, response: Response) -> ReadyAnswer:
    """200 where captions can be written. No trends is no failure (captions work without), nor is a schedule
    that is down, but both are said."""
    message: str | None = None
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await state.service.check_model()
    except TrendragError as error:
        message = str(error)
    except TimeoutError:
        message = f"The model server did not answer within {READY_TIMEOUT_S:g} s."
    if message is not None:
        response.status_code = 503
    snapshot = state.service.snapshot()
    return ReadyAnswer(
        status="ready" if message is None else "not_ready",
        model=state.service.model_name,
        draft=state.service.draft,
        message=message,
        trends=snapshot.origin if snapshot else "none",
        snapshot=snapshot,
        schedule="off" if state.schedule is None else "running" if state.schedule.up else "restarting",
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(state: State) -> Response:
    """Prometheus text format."""
    return Response(state.metrics.text(), media_type=CONTENT_TYPE)
