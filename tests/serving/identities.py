"""Keys in a real database, a clock that tests move, and a database that is away: its tables have other names."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from serving.identity.keys import ApiKey, Claim, Scope, new_key, read_key
from serving.identity.store import KeyStore
from serving.store.database import Database
from tests.fakes import NOW


@dataclass
class Clock:
    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def pass_(self, **span: float) -> None:
        self.at += timedelta(**span)


async def made(
    store: KeyStore,
    scopes: Sequence[Scope] = ("captions", "history"),
    *,
    expires_at: datetime | None = None,
    captions_per_day: int | None = None,
) -> tuple[str, ApiKey]:
    key, kept = new_key("test", frozenset(scopes), NOW, expires_at=expires_at, captions_per_day=captions_per_day)
    await store.add(kept)
    return key, kept


def claim_of(key: str) -> Claim:
    claim = read_key(key)
    assert claim is not None
    return claim


@asynccontextmanager
async def away(database: Database) -> AsyncIterator[None]:
    """The database answers every question about keys with an error."""
    async with database.begin() as connection:
        for table in ("api_key", "api_key_use"):
            await connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_gone")
    try:
        yield
    finally:
        async with database.begin() as connection:
            for table in ("api_key", "api_key_use"):
                await connection.exec_driver_sql(f"ALTER TABLE {table}_gone RENAME TO {table}")
