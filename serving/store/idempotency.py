"""Remembers answers under the key that their caller gave, so that a request sent twice is done once.

The first request with a key claims it and keeps the claim alive while it runs; the answer then stays for a day. Who
comes meanwhile is told so; who comes with another request under the same key is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving.store.database import Database
from serving.store.tables import IdempotentRow
from trendrag.errors import KeyReused

KEEP = timedelta(days=1)
_PRUNED_AT_ONCE = 200
_ANSWER = (
    IdempotentRow.fingerprint,
    IdempotentRow.status,
    IdempotentRow.kind,
    IdempotentRow.headers,
    IdempotentRow.body,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was sent."""

    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The first request with this key is not answered yet."""


class Idempotency:
    """All methods raise StorageError where the database can't be used now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, owner: str, key: str, fingerprint: str, now: datetime, until: datetime
    ) -> Kept | UnderWay | None:
        """None where the caller is the first and is to answer; the claim then holds until ``until``, or `keep`.

        Raises:
            KeyReused: another request came with this key.
        """
        row = {"owner": owner, "key": key, "fingerprint": fingerprint, "created_at": now, "leased_until": until}
        mine = and_(IdempotentRow.owner == owner, IdempotentRow.key == key)
        gone = or_(
            IdempotentRow.created_at < now - KEEP,
            and_(IdempotentRow.status.is_(None), IdempotentRow.leased_until < now),
        )
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        async with self._database.begin() as connection:
            await connection.execute(delete(IdempotentRow).where(mine, gone))
            claiming = dialect.insert(IdempotentRow).values(row).on_conflict_do_nothing().returning(IdempotentRow.key)
            if (await connection.execute(claiming)).one_or_none() is not None:
                return None
            found = (await connection.execute(select(*_ANSWER).where(mine))).one_or_none()
        if found is None:  # given up between the two statements
            return UnderWay()
        if found.fingerprint != fingerprint:
            raise KeyReused("This Idempotency-Key came with another request before. Use a new key for a new request.")
        if found.status is None:
            return UnderWay()
        return Kept(found.status, found.kind, found.body, found.headers or {})

    async def renew(self, owner: str, key: str, until: datetime) -> None:
        mine = and_(IdempotentRow.owner == owner, IdempotentRow.key == key, IdempotentRow.status.is_(None))
        async with self._database.begin() as connection:
            await connection.execute(update(IdempotentRow).where(mine).values(leased_until=until))

    async def keep(self, owner: str, key: str, answer: Kept) -> None:
        """The answer to the claimed request, for `KEEP` from its beginning."""
        mine = and_(IdempotentRow.owner == owner, IdempotentRow.key == key, IdempotentRow.status.is_(None))
        values = {
            "status": answer.status,
            "kind": answer.kind,
            "headers": dict(answer.headers),
            "body": answer.body,
        }
        async with self._database.begin() as connection:
            await connection.execute(update(IdempotentRow).where(mine).values(values))

    async def give_up(self, owner: str, key: str) -> None:
        """The claimed request came to nothing that is worth repeating: the next one is the first again."""
        mine = and_(IdempotentRow.owner == owner, IdempotentRow.key == key, IdempotentRow.status.is_(None))
        async with self._database.begin() as connection:
            await connection.execute(delete(IdempotentRow).where(mine))

    async def prune(self, now: datetime) -> int:
        """Removes answers that are too old, some hundreds at most."""
        table = IdempotentRow.__table__
        old = select(table.c.owner, table.c.key).where(IdempotentRow.created_at < now - KEEP).limit(_PRUNED_AT_ONCE)
        async with self._database.begin() as connection:
            rows = (await connection.execute(old)).all()
            for owner, key in rows:
                await connection.execute(
                    delete(IdempotentRow).where(IdempotentRow.owner == owner, IdempotentRow.key == key)
                )
        return len(rows)
