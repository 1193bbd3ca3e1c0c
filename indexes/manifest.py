"""Which snapshots a directory holds, and what each says of itself; ``snapshot`` describes the directory.

A manifest names all other files of its snapshot with their SHA-256, and ends with its own: nothing else vouches for it.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexes.embedder import Embedder
from indexes.files import changed, opened, read_bytes, reading, sync_directory, write_file
from indexes.segments import ROWS_FILE, FileName, Rows, Segment, rows_in
from trendrag.errors import CorruptSnapshot
from trendrag.types import Origin, SnapshotInfo, Utc

SCHEMA_VERSION: Literal[2] = 2
ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbedderId(_Record):
    name: str
    sha256: str
    dim: int


class Manifest(_Record):
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    id: str
    created_at: Utc
    recorded_at: Utc | None
    origin: Origin
    count: int = Field(ge=0)
    embedder: EmbedderId
    files: dict[FileName, str]
    """File name → SHA-256 of its bytes."""
    segments: tuple[Segment, ...] = ()
    build_seconds: float | None = None
    """What deciding on the trends and writing them took; None where nobody measured it."""
    seal: str | None = None
    """SHA-256 of what stands before it in the file; None in manifests from before there was one."""


def info_of(manifest: Manifest) -> SnapshotInfo:
    """What answers say of the snapshot."""
    return SnapshotInfo(
        id=manifest.id,
        created_at=manifest.created_at,
        recorded_at=manifest.recorded_at,
        origin=manifest.origin,
        count=manifest.count,
    )


def snapshot_ids(snapshots_dir: Path) -> list[str]:
    """Ids of the complete snapshots, newest first. They sort by time: the id begins with it."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((p.name for p in snapshots_dir.iterdir() if ID.fullmatch(p.name)), reverse=True)
    return []


def current_id(snapshots_dir: Path) -> str | None:
    """What CURRENT names, or None where nothing has been published (or CURRENT is unreadable)."""
    try:
        name = (snapshots_dir / "CURRENT").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if ID.fullmatch(name) else None


def current_manifest(snapshots_dir: Path) -> Manifest | None:
    """What the current snapshot says of itself, not verified; None where there is none that can be read."""
    current = current_id(snapshots_dir)
    if current is None:
        return None
    return read_manifest(snapshots_dir / current)


def read_manifest(directory: Path) -> Manifest | None:
    """What a snapshot says of itself, not verified; None where that can't be read."""
    try:
        return Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    except (OSError, ValidationError, OverflowError):
        return None


def make_current(snapshots_dir: Path, name: str) -> None:
    """Points CURRENT at a snapshot that is complete. Readers that follow it change over within a second or two."""
    pointer = snapshots_dir / f".CURRENT.{name}"
    write_file(pointer, name.encode())
    pointer.replace(snapshots_dir / "CURRENT")
    sync_directory(snapshots_dir)


def remove_old(snapshots_dir: Path, current: str, keep: int) -> None:
    """Removes all snapshots but ``keep``: ``current``, and the newest others."""
    for each in superseded(snapshot_ids(snapshots_dir), current, keep):
        shutil.rmtree(snapshots_dir / each, ignore_errors=True)


def superseded(ids: Iterable[str], current: str, keep: int) -> list[str]:
    """Those of ``ids`` that go where ``keep`` may stay: ``current``, and the newest others."""
    # By name, for a clock that was set back gives the new one an id among the old ones'.
    return sorted((each for each in ids if each != current), reverse=True)[keep - 1 :]


def verified_manifest(directory: Path, embedder: Embedder) -> Manifest:
    """The manifest of the snapshot in ``directory``.

    Raises:
        CorruptSnapshot: it can't be read, is damaged or another snapshot's, or the vectors are another embedder's.
    """
    where = f"Snapshot {directory.name}"
    manifest = parse_manifest(read_bytes(directory, "manifest.json"), where)
    check_embedder(manifest, embedder, where)
    if manifest.id != directory.name:
        raise CorruptSnapshot(f"{where}: manifest.json is that of {manifest.id}")
    return manifest


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in a file's ``data``; ``where`` is what an error names.

    Raises:
        CorruptSnapshot: it is none, or does not match its seal.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except (ValidationError, OverflowError) as error:  # the latter where a time is beyond the year 9999
        raise CorruptSnapshot(f"{where}: manifest.json is not a manifest of version 1 to {SCHEMA_VERSION}") from error
    if manifest.seal is not None and _seal_of(data.rpartition(_SEAL)[0]) != manifest.seal:
        raise CorruptSnapshot(f"{where}: manifest.json does not match its own checksum")
    return manifest


def check_embedder(manifest: Manifest, embedder: Embedder, where: str) -> None:
    """Raises CorruptSnapshot where the vectors were made by another embedder."""
    made_by, ours = manifest.embedder, (embedder.name, embedder.sha256, embedder.dim)
    if (made_by.name, made_by.sha256, made_by.dim) != ours:
        raise CorruptSnapshot(
            f"{where}: its vectors were made by {made_by.name}, this is {embedder.name} (says manifest.json)"
        )


_SEAL = b'"seal"'


def sealed(manifest: Manifest) -> bytes:
    """The manifest as a file, which ends with a checksum of all before it: nothing else vouches for this file."""
    body = manifest.model_dump_json(indent=2, exclude={"seal"}).removesuffix("\n}").encode() + b",\n  "
    return body + _SEAL + f': "{_seal_of(body)}"\n}}'.encode()


def _seal_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def verify_files(directory: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Reads these files and raises CorruptSnapshot at the first that does not match its checksum."""
    for name in sorted(names):
        with opened(directory, name) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != manifest.files.get(name):
            raise changed(directory, name)


def checked_bytes(directory: Path, manifest: Manifest, name: str) -> bytes:
    """A whole file, which matches its checksum; else CorruptSnapshot."""
    data = read_bytes(directory, name)
    if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
        raise changed(directory, name)
    return data


def verified_rows(directory: Path, manifest: Manifest) -> Rows:
    """The rows of all segments, the dead ones among them; CorruptSnapshot where they can't be had."""
    data = checked_bytes(directory, manifest, ROWS_FILE)
    with reading(directory, ROWS_FILE):
        return rows_in(data, sum(segment.rows for segment in manifest.segments))
