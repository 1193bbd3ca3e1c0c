"""What the safety gate kept back at a refresh: a file in the snapshot, for the operator's eyes.

It is not read with the trends, so that nothing in it can be retrieved or served.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from trendrag.errors import CorruptSnapshot
from trendrag.types import Utc

WITHHELD_FILE = "withheld.jsonl.zst"
MAX_BYTES = 2**28


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
    try:
        files = json.loads((directory / "manifest.json").read_bytes())["files"]
        if WITHHELD_FILE not in files:
            return None
        data = (directory / WITHHELD_FILE).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} or its manifest can't be read") from error
    if hashlib.sha256(data).hexdigest() != files[WITHHELD_FILE]:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} does not match its checksum")
    try:
        lines = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_BYTES)
        return tuple(Withheld.model_validate_json(line) for line in lines.splitlines())
    except (zstandard.ZstdError, ValidationError) as error:
        raise CorruptSnapshot(f"{where}: {WITHHELD_FILE} can't be read") from error
