"""Into whose history an answer goes, decided when the request comes in: the id is told before the answer is there.

``X-Caption-Id`` is the id, on streams too; without it nothing is kept. ``X-History`` says how the history is.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Response

from serving.http.callers import CallerDep
from serving.http.schemas import CaptionsAnswer
from serving.http.state import State
from serving.records.keeper import Keeper
from trendrag.types import CaptionRequest

CAPTION_ID = "X-Caption-Id"
HISTORY = "X-History"
ID_PATTERN = "^[0-9a-f]{32}$"


@dataclass(frozen=True, slots=True)
class Keeping:
    """For one request of ``owner``. ``id`` is None where nothing is kept."""

    keeper: Keeper
    owner: str
    id: str | None
    parent: str | None = None

    def keep(self, request: CaptionRequest, answer: CaptionsAnswer) -> CaptionsAnswer:
        """The finished answer with its id, which it is kept under from now on. Waits for nothing."""
        if self.id is None:
            return answer
        status = self.keeper.status  # before it is one more in the queue
        kept = answer.model_copy(update={"id": self.id, "history": "on"})
        self.keeper.keep(self.id, self.owner, request, kept, self.parent)
        return kept.model_copy(update={"history": status})


async def _keeping(
    caller: CallerDep,
    state: State,
    response: Response,
    parent: Annotated[
        str | None, Query(pattern=ID_PATTERN, description="the `id` of the answer that this one refines")
    ] = None,
) -> Keeping:
    made = Keeping(state.keeper, caller.owner, state.keeper.new_id(), parent)
    response.headers[HISTORY] = state.keeper.status
    if made.id is not None:
        response.headers[CAPTION_ID] = made.id
    return made


KeepingDep = Annotated[Keeping, Depends(_keeping)]
