"""How many captions a key may still have today. The day is UTC's.

Counted before a caption is begun, each candidate as one. What the server failed to write is given back; what a client
did not wait for is not. Without its database nothing is counted: captions go on.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from serving.identity.keyring import RETRY
from serving.identity.keys import ApiKey
from serving.identity.store import KeyStore
from trendrag.errors import ConfigurationError, StorageError
from trendrag.types import CandidateDone, CandidateFailed, CaptionEvent, Done, Failed

log = logging.getLogger(__name__)


class QuotaExceeded(Exception):
    """``limit`` captions a day; ``retry_after`` seconds until the next day, at least 1."""

    code = "quota_exceeded"

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(
            f"This API key has {limit} captions a day, and fewer are left than this asks for. The next day begins at "
            "midnight UTC."
        )
        self.limit = limit
        self.retry_after = retry_after


@dataclass(slots=True)
class Use:
    """Captions that were counted, and what became of them. ``key`` is None where nothing was counted."""

    key: str | None
    day: date
    captions: int
    _written: int = 0
    _failed: int = 0
    _over: bool = False

    def event(self, event: CaptionEvent) -> None:
        """To be told all events of the captions counted."""
        match event:
            case CandidateDone():
                self._written += 1
            case CandidateFailed():
                self._failed += 1
            case Done() | Failed():
                self._over = True
            case _:
                pass

    def failed(self) -> None:
        """It ended with an error, of which no event tells."""
        self._over = True

    @property
    def owed(self) -> int:
        """How many to give back: what was not written by the end, or what had failed when the client left."""
        return max(0, self.captions - self._written) if self._over else self._failed


@dataclass(frozen=True, slots=True)
class Charge:
    """Captions that are to be counted on a day of a key that may have ``limit``."""

    key: str
    day: date
    captions: int
    limit: int

    @classmethod
    def of(cls, key: ApiKey | None, captions: int, now: datetime) -> "Charge | None":
        """None where nothing is counted."""
        if key is None or key.captions_per_day is None:
            return None
        return cls(key.id, now.astimezone(UTC).date(), captions, key.captions_per_day)


class Quota:
    def __init__(self, store: KeyStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._failed: datetime | None = None

    @asynccontextmanager
    async def counted(self, key: ApiKey | None, captions: int) -> AsyncIterator[Use]:
        """Counts them for as long as they are written, and gives back at the end what failed.

        Raises:
            QuotaExceeded: so many are not left today. None was counted.
        """
        use = await self.take(key, captions)
        try:
            yield use
        finally:
            await self.give_back(use, use.owed)

    async def take(self, key: ApiKey | None, captions: int) -> Use:
        """As ``counted``, for who gives back himself."""
        now = self._now().astimezone(UTC)
        nothing = Use(None, now.date(), captions)
        if key is None or key.captions_per_day is None or self._resting(now):
            return nothing
        try:
            taken = await self._store.take(key.id, now.date(), captions, key.captions_per_day)
        except (StorageError, ConfigurationError) as error:
            if self._failed is None:
                log.warning("quotas are not counted while the service database is away (%s)", error)
            self._failed = now
            return nothing
        if self._failed is not None:
            log.warning("quotas are counted again")
            self._failed = None
        if not taken:
            raise QuotaExceeded(key.captions_per_day, seconds_to_midnight(now))
        return Use(key.id, now.date(), captions)

    async def give_back(self, use: Use, captions: int) -> None:
        if use.key is None or captions <= 0:
            return
        try:
            await self._store.give_back(use.key, use.day, captions)
        except (StorageError, ConfigurationError) as error:
            log.info("%d captions were not given back to key %s (%s)", captions, use.key, error)

    def _resting(self, now: datetime) -> bool:
        return self._failed is not None and timedelta(0) <= now - self._failed < RETRY


def seconds_to_midnight(now: datetime) -> int:
    """From ``now`` (UTC) to the next day, rounded up."""
    midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    return -((now - midnight) // timedelta(seconds=1))
