"""What is done for one row, wherever it is done: its image, its caption, and how it ended."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from serving.batch.captions import Fault
from serving.batch.fleet import Fleet
from serving.batch.images import RecordImages
from serving.batch.journal import Settled
from serving.batch.records import Record
from trendrag.errors import TrendragError
from trendrag.types import MAX_NOTE_CHARS, Usage

Reuse = Callable[[bytes], Awaitable[Mapping[str, Any] | None]]
"""key → what a row with this key was given before."""


def line_hash(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


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
    reuse: Reuse | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    usage: Usage = field(default_factory=Usage)

    @property
    def model(self) -> str:
        return self.fleet.model

    async def settle(self, record: Record, line: bytes) -> Settled:
        """How the row ended; ``line`` is the hash of its text.

        Raises:
            ModelError: not this row but the run has to end.
        """
        number = record.number
        try:
            image = await self.images.prepared(record)
        except TrendragError as error:
            return failed(number, line, error.code, str(error))
        note = self._note(record)
        parts = record.identity(self.id_field), image.sha256, self.prompt, note or "", self.fleet.model
        key = hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()
        if self.reuse is not None and (known := await self.reuse(key)) is not None:
            return Settled(number, line, "done", key, known)
        try:
            written = await self.fleet.caption(image, note)
        except Fault as fault:
            return failed(number, line, fault.code, str(fault), key)
        self.usage += written.usage
        result: dict[str, Any] = {
            "vlm_caption": written.text,
            "vlm_captioned_at": self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "vlm_model": written.model,
        }
        if written.trends is not None:
            result["vlm_trends"] = list(written.trends)
        return Settled(number, line, "done", key, result)

    def _note(self, record: Record) -> str | None:
        value = record.fields.get(self.note_field) if self.note_field else None
        return value[:MAX_NOTE_CHARS] if isinstance(value, str) and value.strip() else None
