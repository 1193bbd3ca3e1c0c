"""What the safety gate kept back at a refresh: a file in the snapshot, for the operator's eyes.

It is not read with the trends, so that nothing in it can be retrieved or served.
"""

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path

import zstandard
from pydantic import BaseModel, ConfigDict

from indexes.segments import read_lines
from trendrag.errors import CorruptSnapshot
from trendrag.types import Utc

WITHHELD_FILE = "withheld.jsonl.zst"


class Withheld(BaseModel):
    """``by`` is what decided (a list, the vocabulary, the classifier), ``term`` what it found, ``score`` the
    classifier's log-odds; ``headline`` one that the topic was judged by, if it had any."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phrase: str
    reason: str
    by: str
    term: str | None
    score: float | None
    headline: str | None
    last_seen: Utc


def as_file(lines: Iterable[str]) -> bytes:
    """``lines``: a ``Withheld`` in JSON each."""
    return zstandard.ZstdCompressor().compress("".join(f"{line}\n" for line in lines).encode())


def read_withheld(directory: Path) -> tuple[Withheld, ...] | None:
    """What the snapshot in ``directory`` says was withheld; None where it is from before this was written down.

    Raises:
        CorruptSnapshot: the file or its manifest is missing, changed or unreadable.
    """
    where = f"Snapshot {directory.name}"
    path = directory / WITHHELD_FILE
    try:
        expected = json.loads((directory / "manifest.json").read_bytes())["files"].get(WITHHELD_FILE)
        if expected is None and not path.exists():
            return None
        data = path.read_bytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} or its manifest can't be read") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} does not match its checksum")
    try:
        return tuple(Withheld.model_validate_json(line) for line in read_lines(io.BytesIO(data)))
    except (zstandard.ZstdError, ValueError) as error:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} can't be read") from error
