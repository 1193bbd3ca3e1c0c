"""Feedback as rows to fine-tune a model with, in the conversational formats of TRL's trainers.

SFT: ``{"messages": [system, user, assistant]}``, of texts that were liked or put right.
Preference: ``{"prompt": [system, user], "chosen": [assistant], "rejected": [assistant]}``, of a liked and a disliked
caption of one answer, and of a text as it was put right and as the model wrote it.

The prompt is what a model is sent today for that request and those trends. Pictures are not kept: ``metadata`` names
them by the SHA-256 of what the model was sent.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ValidationError
from sqlalchemy import and_, exists, or_, select

from serving.records.history import Opinion
from serving.store.database import Database
from serving.store.tables import CaptionRow, FeedbackRow
from trendrag.prompting import caption_messages
from trendrag.types import CaptionRequest, PreparedImage, RetrievedTrend

log = logging.getLogger(__name__)

Format = Literal["sft", "preference"]
Message = dict[str, str]
BATCH = 50
"""Answers in memory at a time."""
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer and what was said of its captions, by their numbers."""

    id: str
    image_sha256: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]
    texts: Sequence[str]
    opinions: Mapping[int, Opinion]


class _Offered(BaseModel):
    """What of an answer is in its prompt."""

    retrieved: tuple[RetrievedTrend, ...]
    model: str


async def exported(
    database: Database, how: Format, owner: str | None = None, since: datetime | None = None
) -> AsyncIterator[str]:
    """Lines of JSONL, some at a time, of all answers with feedback from ``since`` on: the owner's, or everybody's.

    Raises:
        StorageError: the database can't be used now, or from now on.
    """
    after: tuple[datetime, str] | None = None
    while True:
        found, after = await _rated(database, owner, since, after)
        if found:
            # In a thread: prompts are put together, and streams are not to wait for that.
            yield await asyncio.to_thread(_lines, found, how)
        if after is None:
            return


def examples(rated: Rated, how: Format) -> list[dict[str, Any]]:
    """The rows that an answer gives; none where what was said teaches nothing."""
    try:
        asked = _prompt(rated)
        model = _Offered.model_validate(rated.answer).model
    except ValidationError as error:
        log.warning("the answer %s can't be exported: %d faults", rated.id, error.error_count())
        return []
    metadata = {"caption": rated.id, "image_sha256": rated.image_sha256, "model": model}
    if how == "sft":
        return [
            {"messages": [*asked, _assistant(text)], "metadata": metadata | {"candidate": number}}
            for number, text in wanted(rated)
        ]
    return [
        {"prompt": asked, "chosen": [_assistant(chosen)], "rejected": [_assistant(rejected)], "metadata": metadata}
        for chosen, rejected in pairs(rated)
    ]


def wanted(rated: Rated) -> list[tuple[int, str]]:
    """(number, text) of what the owner would have: put right by himself, or liked as it is."""
    found = []
    for number, text, opinion in _said(rated):
        if opinion.edited:
            found.append((number, opinion.edited))
        elif opinion.verdict == "like":
            found.append((number, text))
    return found


def pairs(rated: Rated) -> list[tuple[str, str]]:
    """(chosen, rejected), each pair once."""
    found = [(opinion.edited, text) for _, text, opinion in _said(rated) if opinion.edited]
    liked = [opinion.edited or text for _, text, opinion in _said(rated) if opinion.verdict == "like"]
    disliked = [text for _, text, opinion in _said(rated) if opinion.verdict == "dislike"]
    found += [(chosen, rejected) for chosen in liked for rejected in disliked]
    return [(chosen, rejected) for chosen, rejected in dict.fromkeys(found) if chosen != rejected]


def _said(rated: Rated) -> Iterator[tuple[int, str, Opinion]]:
    for number, opinion in sorted(rated.opinions.items()):
        if number < len(rated.texts):
            yield number, rated.texts[number], opinion


def _lines(many: Sequence[Rated], how: Format) -> str:
    rows = (row for rated in many for row in examples(rated, how))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _prompt(rated: Rated) -> list[Message]:
    nothing = PreparedImage(data=b"", mime_type="image/jpeg", width=1, height=1, sha256=rated.image_sha256)
    request = CaptionRequest.model_validate({**rated.request, "image": nothing})
    trends = _Offered.model_validate(rated.answer).retrieved
    return [{"role": _ROLES[each.type], "content": _text(each)} for each in caption_messages(request, trends)]


def _text(message: BaseMessage) -> str:
    """Without the picture: trainers put its place at the beginning of the first user message."""
    return message.text


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


async def _rated(
    database: Database, owner: str | None, since: datetime | None, after: tuple[datetime, str] | None
) -> tuple[list[Rated], tuple[datetime, str] | None]:
    """The next answers, the oldest first, and where they end; None at the end of all."""
    said = exists().where(FeedbackRow.caption == CaptionRow.id)
    if since is not None:
        said = said.where(FeedbackRow.updated_at >= since)
    query = select(
        CaptionRow.id,
        CaptionRow.created_at,
        CaptionRow.image_sha256,
        CaptionRow.request,
        CaptionRow.answer,
        CaptionRow.texts,
    ).where(said)
    if owner is not None:
        query = query.where(CaptionRow.owner == owner)
    if after is not None:
        at, last = after
        query = query.where(or_(CaptionRow.created_at > at, and_(CaptionRow.created_at == at, CaptionRow.id > last)))
    async with database.begin() as connection:
        rows = (await connection.execute(query.order_by(CaptionRow.created_at, CaptionRow.id).limit(BATCH))).all()
        opinions: dict[str, dict[int, Opinion]] = {}
        of_these = select(FeedbackRow).where(FeedbackRow.caption.in_([row.id for row in rows]))
        for each in await connection.execute(of_these):
            opinion = Opinion(verdict=each.verdict, edited=each.edited)
            opinions.setdefault(each.caption, {})[each.candidate] = opinion
    found = [
        Rated(row.id, row.image_sha256, row.request, row.answer, row.texts, opinions.get(row.id, {})) for row in rows
    ]
    return found, (rows[-1].created_at, rows[-1].id) if len(rows) == BATCH else None
