"""What each platform takes, for whoever shows a count while somebody writes."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from serving.http.callers import REFUSALS, needs
from serving.http.errors import error_responses
from serving.http.state import State
from trendrag.platforms import PlatformRules
from trendrag.types import Platform


class PlatformAnswer(BaseModel):
    """Lengths are in code points."""

    id: Platform = Field(description="as requests name it")
    name: str
    max_chars: int = Field(description="the longest caption that may be asked for")
    usual_chars: int = Field(description="the longest one where a request does not say")
    alt_chars: int = Field(description="the longest alt text")
    hashtags: int = Field(description="how many are usual, or allowed, at most")
    note: str = Field(description="what else there is to know of its length; may be empty")


class Platforms(BaseModel):
    status: Literal["success"] = "success"
    items: list[PlatformAnswer]


router = APIRouter(
    prefix="/api/v1",
    tags=["captions"],
    dependencies=[needs("captions")],
    responses=error_responses(
        {**REFUSALS, 500: "a fault of the server", 503: "the service database can't be used now"}
    ),
)


@router.get("/platforms")
async def platforms(state: State) -> Platforms:
    """The rules that captions are written by, the operator's own among them."""
    return Platforms(items=[_answer(platform, rules) for platform, rules in state.platforms.items()])


def _answer(platform: Platform, rules: PlatformRules) -> PlatformAnswer:
    return PlatformAnswer(
        id=platform,
        name=rules.name,
        max_chars=rules.limit(alt_text=False),
        usual_chars=min(rules.usual_chars.value, rules.limit(alt_text=False)),
        alt_chars=rules.limit(alt_text=True),
        hashtags=rules.hashtags.value,
        note=rules.max_chars.note,
    )
