"""What operators and their machines ask: is the process alive, can it write captions, how is it doing."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response

from serving.http.callers import REFUSALS, may, needs
from serving.http.errors import error_responses
from serving.http.metrics import CONTENT_TYPE
from serving.http.schemas import AliveAnswer, ReadyAnswer
from serving.http.state import AppState, State
from trendrag.errors import TrendragError

READY_TIMEOUT_S = 5.0
"""Longest time for the model server to answer a readiness probe."""

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveAnswer:
    """The process answers. Says nothing of the model: restarting this process would not bring a model server back."""
    return AliveAnswer()


@router.get("/readyz", responses={503: {"model": ReadyAnswer, "description": "the model can't be used now"}})
async def ready(request: Request, state: State, response: Response) -> ReadyAnswer:
    """200 where captions can be written, be it by the fallback: the status is then `degraded`. No trends is no failure
    (captions work without), nor is a schedule that is down, but both are said. Nobody needs a key; why the model is
    away is told to those who may read /metrics."""
    message: str | None
    status: Literal["ready", "degraded", "not_ready"]
    if state.drain.began:
        status, message = "not_ready", "The server is being stopped."
    else:
        message = await _why_the_model_is_away(state)
        status = "ready" if message is None else "degraded" if state.service.fallback else "not_ready"
    if status == "not_ready":
        response.status_code = 503
    # The reason may hold the model server's address.
    if message is not None and not state.drain.began and not await may(request, state, "metrics"):
        message = "The model can't be used now. Ask with an API key of the scope `metrics` for the reason."
    snapshot = state.service.snapshot()
    return ReadyAnswer(
        status=status,
        model=state.service.model_name,
        draft=state.service.draft,
        message=message,
        trends=snapshot.origin if snapshot else "none",
        snapshot=snapshot,
        schedule="off" if state.schedule is None else "running" if state.schedule.up else "restarting",
        redis={None: "off", True: "up", False: "away"}[state.limits.redis_up],
    )


async def _why_the_model_is_away(state: AppState) -> str | None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await state.service.check_model()
    except TrendragError as error:
        return str(error)
    except TimeoutError:
        return f"The model server did not answer within {READY_TIMEOUT_S:g} s."
    return None


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[needs("metrics")],
    responses={200: {"content": {"text/plain": {}}}, **error_responses(REFUSALS)},
)
async def metrics(state: State) -> Response:
    """Prometheus text format."""
    return Response(state.metrics.text(), media_type=CONTENT_TYPE)
