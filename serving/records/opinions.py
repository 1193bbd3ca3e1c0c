"""Favourites and feedback on the captions of an answer. A caption is named by its answer's id and its number there,
from 0; only its owner can say anything of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Delete, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.records.history import Verdict
from serving.store.database import Database
from serving.store.tables import CaptionRow, FavouriteRow, FeedbackRow
from trendrag.errors import StorageError

Insert = sqlite.Insert | postgresql.Insert


class Opinions:
    """Methods say False where the owner has no such caption, and raise StorageError where the database can't be used.
    Saying the same twice is saying it once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def favour(self, owner: str, caption: str, number: int, now: datetime) -> bool:
        row = {"caption": caption, "candidate": number, "owner": owner, "created_at": now}
        insert = self._insert(FavouriteRow).values(row).on_conflict_do_nothing()
        return await self._say(owner, caption, number, insert)

    async def unfavour(self, owner: str, caption: str, number: int) -> bool:
        return await self._say(owner, caption, number, _of(FavouriteRow, owner, caption, number))

    async def judge(
        self, owner: str, caption: str, number: int, verdict: Verdict | None, edited: str | None, now: datetime
    ) -> bool:
        """The last word counts; with neither a verdict nor an edited text there is none any more."""
        if verdict is None and edited is None:
            return await self._say(owner, caption, number, _of(FeedbackRow, owner, caption, number))
        said: dict[str, Any] = {"verdict": verdict, "edited": edited, "updated_at": now}
        row = {"caption": caption, "candidate": number, "owner": owner, **said}
        keys = [FeedbackRow.caption, FeedbackRow.candidate]
        insert = self._insert(FeedbackRow).values(row).on_conflict_do_update(index_elements=keys, set_=said)
        return await self._say(owner, caption, number, insert)

    def _insert(self, table: type[FavouriteRow | FeedbackRow]) -> Insert:
        return sqlite.insert(table) if self._database.dialect == "sqlite" else postgresql.insert(table)

    async def _say(self, owner: str, caption: str, number: int, change: Insert | Delete) -> bool:
        try:
            async with self._database.begin() as connection:
                if not await _is_there(connection, owner, caption, number):
                    return False
                await connection.execute(change)
        except StorageError as error:
            if isinstance(error.__cause__, IntegrityError):  # removed between the two statements
                return False
            raise
        return True


async def _is_there(connection: AsyncConnection, owner: str, caption: str, number: int) -> bool:
    texts = await connection.scalar(select(CaptionRow.texts).where(CaptionRow.id == caption, CaptionRow.owner == owner))
    return texts is not None and 0 <= number < len(texts)


def _of(table: type[FavouriteRow | FeedbackRow], owner: str, caption: str, number: int) -> Delete:
    return delete(table).where(table.caption == caption, table.candidate == number, table.owner == owner)
