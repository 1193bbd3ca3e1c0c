"""What is rising now, and of when that is. All of it is read from the snapshot in use.

Answers carry a strong ETag made of the snapshot and the question, so that who asks again from time to time costs
nothing until there is a new snapshot. Nothing in them depends on the moment, but for the ages of the snapshot, which
are told to the minute.
"""

import asyncio
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from indexes.listing import Listing, SourceSeen
from serving.http.callers import REFUSALS, caller
from serving.http.conditional import NOT_MODIFIED, IfNoneMatch, caching, etag, holds, not_modified
from serving.http.cursors import Cursor, after_trend, trend_after
from serving.http.errors import HttpError, error_responses
from serving.http.schemas import Category, LanguageTag
from serving.http.state import State
from trendrag.types import Region, SnapshotInfo, Stage, Trend, TrendFilters

# Asked for again each time: a new snapshot is there within minutes, and the answer is 304 until then. Private, for
# who may ask is for keys to say.
_CACHING = "private, no-cache"

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
Withheld = Annotated[
    int | None,
    Field(description="how many topics the safety gate kept back; null where the snapshot does not say"),
]


class Trends(BaseModel):
    status: Literal["success"] = "success"
    items: list[Trend] = Field(description="the highest score first, each with where it was seen")
    next: str | None = Field(description="give it as `cursor` for the next page; null on the last one")
    passing: int = Field(description="how many there are, over all pages")
    withheld: Withheld
    snapshot: SnapshotInfo


class OneTrend(BaseModel):
    status: Literal["success"] = "success"
    trend: Trend
    snapshot: SnapshotInfo


class SnapshotAnswer(BaseModel):
    status: Literal["success"] = "success"
    snapshot: SnapshotInfo
    age_s: int = Field(description="seconds since it was written, in whole minutes")
    trends_age_s: int | None = Field(description="seconds since its newest trend was really seen, in whole minutes")
    withheld: Withheld


class SnapshotSources(BaseModel):
    status: Literal["success"] = "success"
    items: list[SourceSeen] = Field(description="those that named the most trends first")
    snapshot: SnapshotInfo


router = APIRouter(
    prefix="/api/v1",
    tags=["trends"],
    dependencies=[Depends(caller)],
    responses=NOT_MODIFIED
    | error_responses(
        {
            401: REFUSALS[401],
            422: "a field can't be used",
            500: "a fault of the server",
            503: "there are no trends yet; see Retry-After",
        }
    ),
)


@router.get("/trends", response_model=Trends)
async def trends(
    request: Request,
    response: Response,
    state: State,
    region: Annotated[Region | None, Query(description="ISO 3166-1 alpha-2; trends of that region or of none")] = None,
    language: Annotated[
        LanguageTag | None, Query(description="BCP 47; trends in that language or in an unknown one")
    ] = None,
    category: Annotated[
        list[Category] | None, Query(max_length=20, description="trends of any of these; may be given several times")
    ] = None,
    stage: Stage | None = None,
    q: Annotated[
        str | None, Query(max_length=200, description="whole words, all of which a trend says; case doesn't count")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    if_none_match: IfNoneMatch = None,
) -> Trends | Response:
    """What is rising now, the strongest first. The score is that of the burst, whatever the photo."""
    after = trend_after(cursor)
    filters = TrendFilters(region=region, language=language, categories=tuple(category or ()))
    listing = await state.service.listing()
    tag = _tag(request, listing, filters.model_dump_json(), stage, q, limit, after)
    if holds(tag, if_none_match):
        return not_modified(_CACHING, tag)
    # In a thread: up to a hundred trends are decoded, and streams are not to wait for that.
    page = await asyncio.to_thread(listing.page, limit, after, filters, stage, q or "")
    response.headers.update(caching(_CACHING, tag))
    return Trends(
        items=list(page.trends),
        next=after_trend(page.next) if page.next else None,
        passing=page.passing,
        withheld=listing.withheld,
        snapshot=listing.info,
    )


@router.get("/trends/{trend}", response_model=OneTrend, responses=error_responses({404: "there is no such trend now"}))
async def one_trend(
    request: Request,
    response: Response,
    state: State,
    trend: Annotated[str, Path(max_length=200)],
    if_none_match: IfNoneMatch = None,
) -> OneTrend | Response:
    """One trend of the snapshot in use, with where it was seen."""
    listing = await state.service.listing()
    found = listing.find(trend)
    if found is None:
        raise HttpError(404, "not_found", "There is no such trend in the current snapshot: it is over, or never was.")
    tag = _tag(request, listing, found.id)
    if holds(tag, if_none_match):
        return not_modified(_CACHING, tag)
    response.headers.update(caching(_CACHING, tag))
    return OneTrend(trend=found, snapshot=listing.info)


@router.get("/snapshot", response_model=SnapshotAnswer)
async def snapshot(
    request: Request, response: Response, state: State, if_none_match: IfNoneMatch = None
) -> SnapshotAnswer | Response:
    """Which trends are in use, of when they are, and what is wrong with them where something is."""
    listing = await state.service.listing()
    info, now = listing.info, state.now()
    age = _whole_minutes(info.created_at, now)
    trends_age = _whole_minutes(info.recorded_at, now) if info.recorded_at else None
    tag = _tag(request, listing, age, trends_age)
    if holds(tag, if_none_match):
        return not_modified(_CACHING, tag)
    response.headers.update(caching(_CACHING, tag))
    return SnapshotAnswer(snapshot=info, age_s=age, trends_age_s=trends_age, withheld=listing.withheld)


@router.get("/snapshot/sources", response_model=SnapshotSources)
async def sources(
    request: Request, response: Response, state: State, if_none_match: IfNoneMatch = None
) -> SnapshotSources | Response:
    """Which sources the trends in use come from, and how new what each gave is: a source that is down falls behind."""
    listing = await state.service.listing()
    tag = _tag(request, listing)
    if holds(tag, if_none_match):
        return not_modified(_CACHING, tag)
    found = await asyncio.to_thread(listing.sources)
    response.headers.update(caching(_CACHING, tag))
    return SnapshotSources(items=list(found), snapshot=listing.info)


def _tag(request: Request, listing: Listing, *asked: object) -> str:
    """The version is in it: another one may say the same trends otherwise."""
    return etag(request.app.version, request.url.path, listing.info.model_dump_json(), listing.withheld, *asked)


def _whole_minutes(since: datetime, now: datetime) -> int:
    return max(0, int((now - since).total_seconds()) // 60 * 60)
