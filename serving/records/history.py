"""Captions that were finished, by owner: kept, listed, searched, removed.

Every reading and removal names an owner; what is somebody else's is as if it were not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.store.database import Database
from serving.store.tables import CaptionRow, FavouriteRow, FeedbackRow
from trendrag.text import normal_form

Verdict = Literal["like", "dislike"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the owner thinks of one caption of an answer."""

    favourite: bool = False
    verdict: Verdict | None = None
    edited: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """``opinions`` are by the caption's number in the answer, from 0; it has none of those without one."""

    id: str
    created_at: datetime
    parent: str | None
    has_thumbnail: bool
    request: Mapping[str, Any]
    texts: Sequence[str]
    opinions: Mapping[int, Opinion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry(Listed):
    answer: Mapping[str, Any] = field(default_factory=dict)
    image_sha256: str = ""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is kept of a finished request. ``thumbnail`` is a JPEG."""

    id: str
    owner: str
    created_at: datetime
    parent: str | None
    image_sha256: str
    thumbnail: bytes | None
    request: Mapping[str, Any]
    answer: Mapping[str, Any]

    def values(self) -> dict[str, Any]:
        texts = [caption["text"] for caption in self.answer["captions"]]
        # Line ends between them: no search runs from one text into the next.
        said = "\n".join(filter(None, map(searchable, [self.request.get("note") or "", *texts])))
        return {
            "id": self.id,
            "owner": self.owner,
            "created_at": self.created_at,
            "parent": self.parent,
            "image_sha256": self.image_sha256,
            "thumbnail": self.thumbnail,
            "request": dict(self.request),
            "answer": dict(self.answer),
            "texts": texts,
            "searched": said,
        }


def searchable(text: str) -> str:
    """The form in which texts are compared: case, accents and punctuation don't count, in any script. Empty where
    there is no letter or digit."""
    # A hashtag at the beginning would be split into words, and the same one elsewhere not.
    return normal_form(text.strip().lstrip("#＃"))


_LISTED = (
    CaptionRow.id,
    CaptionRow.created_at,
    CaptionRow.parent,
    CaptionRow.thumbnail.is_not(None).label("has_thumbnail"),
    CaptionRow.request,
    CaptionRow.texts,
)


class History:
    """The rows of ``CaptionRow``. All methods raise StorageError where the database can't be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, entries: Sequence[NewEntry]) -> None:
        """All or none."""
        async with self._database.begin() as connection:
            await connection.execute(insert(CaptionRow), [entry.values() for entry in entries])

    async def page(
        self,
        owner: str,
        limit: int,
        after: tuple[datetime, str] | None = None,
        text: str = "",
        favourite: bool | None = None,
    ) -> list[Listed]:
        """The owner's captions, newest first, those that follow ``after`` (the time and id of one).

        ``text`` is in ``searchable`` form; an empty one is in all. ``favourite`` True: with a favourite among its
        captions; False: without.
        """
        wanted = select(*_LISTED).where(CaptionRow.owner == owner)
        if after is not None:
            at, last = after
            wanted = wanted.where(
                or_(CaptionRow.created_at < at, and_(CaptionRow.created_at == at, CaptionRow.id < last))
            )
        if text:
            wanted = wanted.where(CaptionRow.searched.contains(text, autoescape=True))
        if favourite is not None:
            chosen = exists().where(FavouriteRow.caption == CaptionRow.id)
            wanted = wanted.where(chosen if favourite else ~chosen)
        wanted = wanted.order_by(CaptionRow.created_at.desc(), CaptionRow.id.desc()).limit(limit)
        async with self._database.begin() as connection:
            rows = (await connection.execute(wanted)).all()
            opinions = await self._opinions(connection, [row.id for row in rows])
        return [Listed(**row._mapping, opinions=opinions.get(row.id, {})) for row in rows]  # noqa: SLF001 - public, documented

    async def get(self, owner: str, caption: str) -> Entry | None:
        wanted = select(*_LISTED, CaptionRow.answer, CaptionRow.image_sha256).where(_mine(owner, caption))
        async with self._database.begin() as connection:
            row = (await connection.execute(wanted)).one_or_none()
            if row is None:
                return None
            opinions = await self._opinions(connection, [caption])
        return Entry(**row._mapping, opinions=opinions.get(caption, {}))  # noqa: SLF001 - as above

    async def thumbnail(self, owner: str, caption: str) -> bytes | None:
        async with self._database.begin() as connection:
            found: bytes | None = await connection.scalar(select(CaptionRow.thumbnail).where(_mine(owner, caption)))
        return found

    async def remove(self, owner: str, caption: str) -> bool:
        """With all opinions on it. False where the owner has no such caption."""
        return bool(await self._delete(_mine(owner, caption)))

    async def clear(self, owner: str) -> int:
        """How many of the owner's there were. Now there is none."""
        return await self._delete(CaptionRow.owner == owner)

    async def remove_older(self, than: datetime, most: int) -> int:
        """Removes at most ``most`` of all owners' captions from before ``than``, oldest first; how many these were."""
        old = select(CaptionRow.id).where(CaptionRow.created_at < than).order_by(CaptionRow.created_at).limit(most)
        return await self._delete(CaptionRow.id.in_(old))

    async def remove_beyond(self, cap: int, most: int) -> int:
        """Removes at most ``most`` captions of one owner who has more than ``cap``, the oldest; how many these were."""
        counts = select(CaptionRow.owner, func.count().label("kept")).group_by(CaptionRow.owner)
        full = counts.having(func.count() > cap).limit(1)
        async with self._database.begin() as connection:
            found = (await connection.execute(full)).one_or_none()
        if found is None:
            return 0
        surplus = min(most, found.kept - cap)
        oldest = (
            select(CaptionRow.id)
            .where(CaptionRow.owner == found.owner)
            .order_by(CaptionRow.created_at, CaptionRow.id)
            .limit(surplus)
        )
        return await self._delete(CaptionRow.id.in_(oldest))

    async def _delete(self, which: ColumnElement[bool]) -> int:
        async with self._database.begin() as connection:
            done: CursorResult[Any] = await connection.execute(delete(CaptionRow).where(which))
        return done.rowcount

    async def _opinions(self, connection: AsyncConnection, captions: Sequence[str]) -> dict[str, dict[int, Opinion]]:
        found: dict[str, dict[int, Opinion]] = {}
        if not captions:
            return found
        said = select(FeedbackRow.caption, FeedbackRow.candidate, FeedbackRow.verdict, FeedbackRow.edited)
        for row in await connection.execute(said.where(FeedbackRow.caption.in_(captions))):
            found.setdefault(row.caption, {})[row.candidate] = Opinion(verdict=row.verdict, edited=row.edited)
        chosen = select(FavouriteRow.caption, FavouriteRow.candidate)
        for caption, number in await connection.execute(chosen.where(FavouriteRow.caption.in_(captions))):
            of_caption = found.setdefault(caption, {})
            of_caption[number] = replace(of_caption.get(number, Opinion()), favourite=True)
        return found


def _mine(owner: str, caption: str) -> ColumnElement[bool]:
    return and_(CaptionRow.id == caption, CaptionRow.owner == owner)
