"""Keys and their use in the service database. Every error is a ``StorageError`` or ``ConfigurationError`` of
``serving.store.database``."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.identity.keys import ApiKey
from serving.store.database import Database
from serving.store.tables import KeyRow, KeyUseRow

KEEP_USE = timedelta(days=35)
"""So long a day's use of a key is kept: longer than any job that could still give some of it back."""
_COLUMNS = (
    KeyRow.id,
    KeyRow.name,
    KeyRow.hash,
    KeyRow.scopes,
    KeyRow.captions_per_day,
    KeyRow.created_at,
    KeyRow.expires_at,
    KeyRow.last_used_at,
    KeyRow.revoked_at,
)


class KeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey) -> None:
        async with self._database.begin() as connection:
            await connection.execute(
                insert(KeyRow).values(
                    id=key.id,
                    name=key.name,
                    hash=key.digest,
                    scopes=sorted(key.scopes),
                    captions_per_day=key.captions_per_day,
                    created_at=key.created_at,
                    expires_at=key.expires_at,
                )
            )

    async def find(self, key_id: str) -> ApiKey | None:
        async with self._database.begin() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(KeyRow.id == key_id))).one_or_none()
        return None if row is None else _key(row)

    async def all(self) -> Sequence[ApiKey]:
        """The oldest first."""
        async with self._database.begin() as connection:
            return [_key(row) for row in await connection.execute(select(*_COLUMNS).order_by(KeyRow.created_at))]

    async def any_good(self, now: datetime) -> bool:
        """Whether there is a key that opens anything."""
        lasting = or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > now)
        async with self._database.begin() as connection:
            return bool(await connection.scalar(select(exists().where(KeyRow.revoked_at.is_(None), lasting))))

    async def revoke(self, key_id: str, now: datetime) -> ApiKey | None:
        """The key as it is from now on; one that was revoked before stays as it was. None where there is none."""
        async with self._database.begin() as connection:
            revoked = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None))
            await connection.execute(revoked.values(revoked_at=now))
            row = (await connection.execute(select(*_COLUMNS).where(KeyRow.id == key_id))).one_or_none()
        return None if row is None else _key(row)

    async def used(self, key_id: str, at: datetime) -> None:
        """Several servers write this in any order: the latest stays."""
        earlier = or_(KeyRow.last_used_at.is_(None), KeyRow.last_used_at < at)
        async with self._database.begin() as connection:
            await connection.execute(update(KeyRow).where(KeyRow.id == key_id, earlier).values(last_used_at=at))

    async def uses(self, day: date) -> dict[str, int]:
        """Captions counted on that day, by the id of the key."""
        async with self._database.begin() as connection:
            counted = select(KeyUseRow.key, KeyUseRow.captions).where(KeyUseRow.day == day)
            return {row.key: row.captions for row in await connection.execute(counted)}

    async def take(self, key_id: str, day: date, captions: int, limit: int) -> bool:
        """Counts them, all or none, where the day's sum stays within the limit."""
        async with self._database.begin() as connection:
            return await take(connection, key_id, day, captions, limit)

    async def give_back(self, key_id: str, day: date, captions: int) -> None:
        async with self._database.begin() as connection:
            await give_back(connection, key_id, day, captions)

    async def prune(self, now: datetime) -> int:
        """Removes what was counted on days that are long over: one row for each key with a quota and day."""
        first_kept = (now - KEEP_USE).astimezone(UTC).date()
        async with self._database.begin() as connection:
            return (await connection.execute(delete(KeyUseRow).where(KeyUseRow.day < first_kept))).rowcount


async def take(connection: AsyncConnection, key_id: str, day: date, captions: int, limit: int) -> bool:
    """As ``KeyStore.take``, as a part of the connection's transaction. One statement, so that any number of servers
    that count at the same moment never exceed the limit."""
    if captions > limit:
        return False
    # The two dialects' inserts are spelled alike and have no common type.
    insertion = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    counted = (
        insertion(KeyUseRow)
        .values(key=key_id, day=day, captions=captions)
        .on_conflict_do_update(
            index_elements=[KeyUseRow.key, KeyUseRow.day],
            set_={"captions": KeyUseRow.captions + captions},
            where=KeyUseRow.captions + captions <= limit,
        )
        .returning(KeyUseRow.captions)
    )
    return (await connection.execute(counted)).one_or_none() is not None


async def give_back(connection: AsyncConnection, key_id: str, day: date, captions: int) -> None:
    """Counts them no more, as a part of the connection's transaction."""
    row = update(KeyUseRow).where(KeyUseRow.key == key_id, KeyUseRow.day == day, KeyUseRow.captions >= captions)
    await connection.execute(row.values(captions=KeyUseRow.captions - captions))


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, name, digest, scopes, captions_per_day, created_at, expires_at, last_used_at, revoked_at = row
    return ApiKey(
        key_id, name, digest, frozenset(scopes), captions_per_day, created_at, expires_at, last_used_at, revoked_at
    )
