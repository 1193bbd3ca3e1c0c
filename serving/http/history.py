"""The caller's own captions, favourites and feedback.

Whatever is asked for by id is looked up with its owner: what is somebody else's answers 404, as what never was.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.http.callers import REFUSALS, CallerDep, needs
from serving.http.conditional import caching, etag
from serving.http.cursors import Cursor, after_caption, caption_after
from serving.http.errors import HttpError, error_responses
from serving.http.keeping import ID_PATTERN
from serving.http.schemas import CaptionsAnswer
from serving.http.state import State
from serving.records.history import History, Listed, Opinion, Verdict, searchable
from serving.records.opinions import Opinions
from serving.records.thumbnail import MIME_TYPE
from trendrag.text import clean_output
from trendrag.types import MAX_CANDIDATES

log = logging.getLogger(__name__)

MAX_EDITED_CHARS = 5_000
CaptionId = Annotated[str, Path(pattern=ID_PATTERN, description="the `id` of an answer")]
Number = Annotated[int, Path(ge=0, lt=MAX_CANDIDATES, description="which of the answer's captions, from 0")]


class KeptCaption(BaseModel):
    """One caption of an answer, and what you think of it."""

    text: str
    favourite: bool
    verdict: Verdict | None
    edited: str | None = Field(description="the text as you would have it")


class Summary(BaseModel):
    id: str
    created_at: datetime
    parent: str | None = Field(description="what you said that this refines: an id of your history, which may be gone")
    note: str | None
    platform: str
    captions: list[KeptCaption]
    thumbnail: bool = Field(description="whether there is one at /api/v1/history/{id}/thumbnail")


class HistoryPage(BaseModel):
    status: Literal["success"] = "success"
    items: list[Summary] = Field(description="the newest first")
    next: str | None = Field(description="give it as `cursor` for the next page; null on the last one")


class Full(Summary):
    image_sha256: str = Field(description="of the picture as it was sent to the model; the picture itself is not kept")
    request: dict[str, Any] = Field(description="what was asked, as the service understood it, without the image")
    answer: CaptionsAnswer | None = Field(
        description="as it was given; null where another version gave it, in a shape that this one can't read"
    )


class OneCaption(BaseModel):
    status: Literal["success"] = "success"
    caption: Full


class Feedback(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    verdict: Verdict | None = None
    edited: str | None = Field(
        default=None, max_length=MAX_EDITED_CHARS, description="the text as you would have it; blank is none"
    )


class FeedbackAnswer(BaseModel):
    status: Literal["success"] = "success"
    verdict: Verdict | None
    edited: str | None


class Removed(BaseModel):
    status: Literal["success"] = "success"
    removed: int


router = APIRouter(
    prefix="/api/v1/history",
    tags=["history"],
    dependencies=[needs("history")],
    responses=error_responses(
        {
            **REFUSALS,
            422: "a field can't be used",
            500: "a fault of the server",
            503: "the service database can't be used now; see Retry-After",
        }
    ),
)
_NONE_SUCH = error_responses({404: "you have no such caption"})
_BODY = error_responses(
    {400: "the body is not JSON", 413: "the body is too large", 415: "the body is not sent as application/json"}
)


async def _history(caller: CallerDep, state: State) -> History:
    """Once the caller's answers so far are in it."""
    await state.keeper.settled(caller.owner)
    return History(state.database)


async def _opinions(caller: CallerDep, state: State) -> Opinions:
    await state.keeper.settled(caller.owner)
    return Opinions(state.database)


HistoryDep = Annotated[History, Depends(_history)]
OpinionsDep = Annotated[Opinions, Depends(_opinions)]


@router.get("")
async def page(
    caller: CallerDep,
    history: HistoryDep,
    limit: Annotated[int, Query(ge=1, le=100, description="how many at most")] = 20,
    cursor: Cursor = None,
    q: Annotated[
        str | None,
        Query(max_length=200, description="what a caption or the note says; case, accents and punctuation don't count"),
    ] = None,
    favourite: Annotated[bool | None, Query(description="only with, or only without, a favourite among them")] = None,
) -> HistoryPage:
    """Your captions, the newest first."""
    after = caption_after(cursor)
    text = searchable(q or "")
    if q and not text:
        raise HttpError(422, "invalid_request", "q: give at least one letter or digit.")
    found = await history.page(caller.owner, limit + 1, after, text, favourite)
    last = found[limit - 1] if len(found) > limit else None
    return HistoryPage(
        items=[Summary(**_summary(each)) for each in found[:limit]],
        next=after_caption(last.created_at, last.id) if last else None,
    )


@router.delete("")
async def clear(caller: CallerDep, history: HistoryDep) -> Removed:
    """Removes all your captions, with favourites and feedback."""
    return Removed(removed=await history.clear(caller.owner))


@router.get("/{caption}", responses=_NONE_SUCH)
async def one(caption: CaptionId, caller: CallerDep, history: HistoryDep) -> OneCaption:
    """One answer as it was given, and what was asked."""
    found = await history.get(caller.owner, caption)
    if found is None:
        raise _none_such()
    full = Full(
        **_summary(found),
        image_sha256=found.image_sha256,
        request=dict(found.request),
        answer=_answer(caption, found.answer),
    )
    return OneCaption(caption=full)


@router.delete("/{caption}", status_code=204, responses=_NONE_SUCH)
async def remove(caption: CaptionId, caller: CallerDep, history: HistoryDep) -> None:
    """Removes an answer, with favourites and feedback."""
    if not await history.remove(caller.owner, caption):
        raise _none_such()


@router.get(
    "/{caption}/thumbnail",
    response_class=Response,
    responses={**_NONE_SUCH, 200: {"content": {MIME_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def thumbnail(caption: CaptionId, caller: CallerDep, history: HistoryDep) -> Response:
    """The picture, at most 320 pixels wide and high."""
    found = await history.thumbnail(caller.owner, caption)
    if found is None:
        raise HttpError(404, "not_found", "There is no thumbnail of such a caption in your history.")
    forever = caching("private, max-age=31536000, immutable", etag(caption))
    return Response(found, media_type=MIME_TYPE, headers=forever)


@router.put("/{caption}/candidates/{number}/favourite", status_code=204, responses=_NONE_SUCH)
async def favour(caption: CaptionId, number: Number, caller: CallerDep, opinions: OpinionsDep, state: State) -> None:
    """Makes one of an answer's captions a favourite."""
    _found(await opinions.favour(caller.owner, caption, number, state.now()))


@router.delete("/{caption}/candidates/{number}/favourite", status_code=204, responses=_NONE_SUCH)
async def unfavour(caption: CaptionId, number: Number, caller: CallerDep, opinions: OpinionsDep) -> None:
    """It is a favourite no more."""
    _found(await opinions.unfavour(caller.owner, caption, number))


@router.get("/{caption}/candidates/{number}/feedback", responses=_NONE_SUCH)
async def feedback(caption: CaptionId, number: Number, caller: CallerDep, history: HistoryDep) -> FeedbackAnswer:
    """What you think of one of an answer's captions."""
    found = await history.get(caller.owner, caption)
    if found is None or number >= len(found.texts):
        raise _none_such()
    opinion = found.opinions.get(number, Opinion())
    return FeedbackAnswer(verdict=opinion.verdict, edited=opinion.edited)


@router.put("/{caption}/candidates/{number}/feedback", responses=_NONE_SUCH | _BODY)
async def judge(
    caption: CaptionId, number: Number, body: Feedback, caller: CallerDep, opinions: OpinionsDep, state: State
) -> FeedbackAnswer:
    """What you think of it from now on; both null takes all back."""
    edited = clean_output(body.edited or "").strip() or None
    _found(await opinions.judge(caller.owner, caption, number, body.verdict, edited, state.now()))
    return FeedbackAnswer(verdict=body.verdict, edited=edited)


def _summary(found: Listed) -> dict[str, Any]:
    return {
        "id": found.id,
        "created_at": found.created_at,
        "parent": found.parent,
        "note": found.request.get("note"),
        "platform": found.request.get("platform", "generic"),
        "captions": [
            KeptCaption(text=text, favourite=opinion.favourite, verdict=opinion.verdict, edited=opinion.edited)
            for number, text in enumerate(found.texts)
            for opinion in (found.opinions.get(number, Opinion()),)
        ],
        "thumbnail": found.has_thumbnail,
    }


def _answer(caption: str, kept: Mapping[str, Any]) -> CaptionsAnswer | None:
    try:
        return CaptionsAnswer.model_validate(kept)
    except ValidationError as error:
        log.warning("the answer %s can't be read: %d faults", caption, error.error_count())
        return None


def _found(is_there: bool) -> None:
    if not is_there:
        raise _none_such()


def _none_such() -> HttpError:
    return HttpError(404, "not_found", "There is no such caption in your history.")
