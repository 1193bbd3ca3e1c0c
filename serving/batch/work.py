"""What is done for one row, wherever it is done: its image, its caption, and how it ended."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from serving.batch.captions import Fault
from serving.batch.fleet import Fleet
from serving.batch.images import RecordImages
from serving.batch.journal import KEY_BYTES, RECORD_BYTES, Known, Settled
from serving.batch.records import Record
from trendrag.errors import TrendragError
from trendrag.types import MAX_NOTE_CHARS, PreparedImage, Usage

_RECENT = 4_096

Result = Mapping[str, Any]


def line_hash(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def record_hash(record: Record, id_field: str) -> bytes:
    """What the keys of a record begin with."""
    return _hash(RECORD_BYTES, record.identity(id_field))


def failed(number: int, line: bytes, code: str, reason: str, key: bytes = b"") -> Settled:
    return Settled(number, line, "failed", key, {"code": code, "reason": reason})


@dataclass(slots=True)
class RowWork:
    """``prompt`` is the digest of the run's wishes. ``usage`` adds up what the rows cost."""

    images: RecordImages
    fleet: Fleet
    prompt: str
    id_field: str = "id"
    note_field: str | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    usage: Usage = field(default_factory=Usage)
    _recent: dict[bytes, asyncio.Future[Result | None]] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.fleet.model

    async def settle(self, record: Record, line: bytes, known: Known) -> Settled:
        """How the row ended; ``line`` is the hash of its text, ``known`` what was written for it before. What comes
        twice is asked for once.

        Raises:
            ModelError: not this row but the run has to end.
        """
        number = record.number
        try:
            image = await self.images.prepared(record)
        except TrendragError as error:
            return failed(number, line, error.code, str(error))
        note = self._note(record)
        parts = image.sha256, self.prompt, note or "", self.fleet.model
        key = record_hash(record, self.id_field) + _hash(KEY_BYTES - RECORD_BYTES, *parts)
        result = known.get(key)
        if result is None and (earlier := self._recent.get(key)) is not None:
            result = await asyncio.shield(earlier)
        if result is not None:
            return Settled(number, line, "done", key, result)
        # Kept for a while, since what is settled is not in the journal at once.
        self._recent[key] = mine = asyncio.get_running_loop().create_future()
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        try:
            result = await self._caption(image, note)
        except Fault as fault:
            return failed(number, line, fault.code, str(fault), key)
        finally:
            mine.set_result(result)
        return Settled(number, line, "done", key, result)

    async def _caption(self, image: PreparedImage, note: str | None) -> Result:
        written = await self.fleet.caption(image, note)
        self.usage += written.usage
        result: dict[str, Any] = {
            "vlm_caption": written.text,
            "vlm_captioned_at": self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "vlm_model": written.model,
        }
        if written.trends is not None:
            result["vlm_trends"] = list(written.trends)
        return result

    def _note(self, record: Record) -> str | None:
        value = record.fields.get(self.note_field) if self.note_field else None
        return value[:MAX_NOTE_CHARS] if isinstance(value, str) and value.strip() else None


def _hash(size: int, *parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=size).digest()
