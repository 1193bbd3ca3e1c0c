"""Whether a key is good now: from the database, and for a short time from memory.

A request costs one hash, no query: what the database says of a key is asked again after ``FRESH``, so that a key
revoked anywhere is refused everywhere within that time. While the database is away, keys that it vouched for within
``GRACE`` go on; of others nobody can say, and they are told to come again.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from serving.identity.keys import ApiKey, Claim
from serving.identity.store import KeyStore
from trendrag.errors import ConfigurationError, StorageError

log = logging.getLogger(__name__)

FRESH = timedelta(seconds=5)
GRACE = timedelta(minutes=15)
RETRY = timedelta(seconds=5)
"""After a failure the database is left alone for so long: each try may cost a request seconds."""
NOTED = timedelta(minutes=1)
"""How exact ``last_used_at`` is: one write a key in this time, beside the request and not within it."""

Fault = Literal["unknown", "expired", "revoked"]


@dataclass(slots=True)
class _Held:
    key: ApiKey
    confirmed: datetime
    """When the database said so."""


class Keyring:
    """For one event loop. Holds no more than there are keys: what the database does not know is not remembered."""

    def __init__(self, store: KeyStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._held: dict[str, _Held] = {}
        self._asking: set[str] = set()
        self._failed: datetime | None = None
        self._notes: set[asyncio.Task[None]] = set()

    async def check(self, claim: Claim) -> ApiKey | Fault:
        """The key where it is good, else what is wrong with it.

        Raises:
            StorageError: the database is away, and has not vouched for this key lately.
        """
        now = self._now()
        held = await self._known(claim.id, now)
        if held is None or not held.key.fits(claim):
            return "unknown"
        fault = held.key.fault(now)
        if fault is None:
            self._note_use(held, now)
        return fault or held.key

    async def fault(self, key_id: str) -> Fault | None:
        """As ``check``, for what was asked for with a key that was good then, and is done only now."""
        now = self._now()
        held = await self._known(key_id, now)
        return "unknown" if held is None else held.key.fault(now)

    async def aclose(self) -> None:
        """Ends with the last use written down, or not."""
        await asyncio.gather(*self._notes)

    async def _known(self, key_id: str, now: datetime) -> _Held | None:
        held = self._held.get(key_id)
        if held is None or not _within(FRESH, held.confirmed, now):
            held = await self._confirmed(key_id, held, now)
        return held

    async def _confirmed(self, key_id: str, held: _Held | None, now: datetime) -> _Held | None:
        # One request asks; those that come meanwhile go on with what was said last, and do not queue behind it.
        asked_already = held is not None and key_id in self._asking
        if asked_already or (self._failed is not None and _within(RETRY, self._failed, now)):
            return _trusted(held, now)
        self._asking.add(key_id)
        try:
            found = await self._store.find(key_id)
        except (StorageError, ConfigurationError) as error:
            if self._failed is None:
                log.warning("keys can't be checked: those checked in the last %s go on (%s)", GRACE, error)
            self._failed = now
            return _trusted(held, now)
        finally:
            self._asking.discard(key_id)
        if self._failed is not None:
            log.warning("keys can be checked again")
            self._failed = None
        if found is None:
            self._held.pop(key_id, None)
            return None
        self._held[key_id] = held = _Held(found, now)
        return held

    def _note_use(self, held: _Held, now: datetime) -> None:
        last = held.key.last_used_at
        if last is not None and now - last < NOTED:
            return
        held.key = replace(held.key, last_used_at=now)
        note = asyncio.create_task(self._write_use(held.key.id, now))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write_use(self, key_id: str, at: datetime) -> None:
        try:
            await self._store.used(key_id, at)
        except (StorageError, ConfigurationError) as error:
            log.info("the last use of key %s was not written down (%s)", key_id, error)


def _trusted(held: _Held | None, now: datetime) -> _Held:
    if held is None or not _within(GRACE, held.confirmed, now):
        raise StorageError("API keys can't be checked now: the service database is away. Try again in a moment.")
    return held


def _within(span: timedelta, since: datetime, now: datetime) -> bool:
    return timedelta(0) <= now - since < span  # a clock that was set back makes nothing last longer
