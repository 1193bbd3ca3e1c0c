"""A snapshot: all trends of one refresh with their vectors, as verified files in a directory of their own.

    snapshots/<id>/manifest.json      what is inside, with a SHA-256 for each other file; written last
    snapshots/<id>/trends.jsonl.zst   one trend a line; the line's number is its row
    snapshots/<id>/index.faiss        inner-product index whose ids are rows; several vectors may share a row
    snapshots/CURRENT                 the id of the current one, replaced atomically

A snapshot is complete before it becomes current and never changes afterwards. A reader verifies before it uses one, and
takes the newest that verifies where the current one does not. This is all that passes from ingest to serving.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from indexes.embedder import Embedder, Vectors
from trendrag.errors import CorruptSnapshot, NoSnapshot
from trendrag.types import Origin, SnapshotInfo, Trend, Utc

SCHEMA_VERSION: Literal[1] = 1
MAX_TRENDS_BYTES = 2**30
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbedderId(_Record):
    name: str
    sha256: str
    dim: int


class Manifest(_Record):
    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    created_at: Utc
    recorded_at: Utc | None
    origin: Origin
    count: int
    embedder: EmbedderId
    files: dict[str, str]
    """File name → SHA-256 of its bytes."""
    build_seconds: float | None = None
    """What deciding on the trends and writing them took; None where nobody measured it."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A verified snapshot in memory. Row i of the index's ids is ``trends[i]``."""

    info: SnapshotInfo
    trends: tuple[Trend, ...]
    index: faiss.Index

    def search(self, vector: Vectors, k: int) -> list[tuple[int, float]]:
        """The k rows nearest to ``vector``, float32 (dim,), as (row, cosine), best first; each row once."""
        if self.index.ntotal == 0:
            return []
        # A row may own several vectors: ask for more, then keep each row's best.
        scores, rows = self.index.search(vector[np.newaxis, :], min(self.index.ntotal, 4 * k))
        best: dict[int, float] = {}
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True):
            if row >= 0:  # faiss pads missing results with -1
                best.setdefault(row, score)
        return list(best.items())[:k]


def publish(
    snapshots_dir: Path,
    trends: Sequence[Trend],
    embedder: Embedder,
    *,
    origin: Origin,
    recorded_at: datetime | None,
    now: datetime,
    keep: int,
    decided_in: float | None = None,
) -> SnapshotInfo:
    """Writes ``trends`` as a new snapshot, makes it current, and removes all but the newest ``keep``.

    ``recorded_at`` is when the newest trend was really seen, ``decided_in`` the seconds that it took to decide on
    ``trends``. A crash at any moment leaves the old current snapshot.
    """
    started = time.monotonic()
    snapshots_dir.mkdir(parents=True, exist_ok=True)
    rows, texts = zip(*_texts(trends), strict=True) if trends else ((), ())
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(embedder.dim))
    if texts:
        index.add_with_ids(embedder.embed(texts), np.array(rows, dtype=np.int64))
    lines = "".join(trend.model_dump_json() + "\n" for trend in trends)
    files = {
        "trends.jsonl.zst": zstandard.ZstdCompressor().compress(lines.encode()),
        "index.faiss": faiss.serialize_index(index).tobytes(),
    }
    manifest = Manifest(
        id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        created_at=now,
        recorded_at=recorded_at,
        origin=origin,
        count=len(trends),
        embedder=EmbedderId(name=embedder.name, sha256=embedder.sha256, dim=embedder.dim),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        build_seconds=None if decided_in is None else round(decided_in + time.monotonic() - started, 3),
    )
    draft = snapshots_dir / f".{manifest.id}.part"
    draft.mkdir()
    try:
        for name, data in files.items():
            _write(draft / name, data)
        _write(draft / "manifest.json", manifest.model_dump_json(indent=2).encode())
        _sync_directory(draft)
        draft.rename(snapshots_dir / manifest.id)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    pointer = snapshots_dir / f".CURRENT.{manifest.id}"
    _write(pointer, manifest.id.encode())
    pointer.replace(snapshots_dir / "CURRENT")
    _sync_directory(snapshots_dir)
    for old in snapshot_ids(snapshots_dir)[keep:]:
        shutil.rmtree(snapshots_dir / old, ignore_errors=True)
    return _info(manifest)


def _texts(trends: Sequence[Trend]) -> Iterator[tuple[int, str]]:
    """What is embedded: (row, text). The phrase alone finds exact talk of it, with its summary what it is about."""
    for row, trend in enumerate(trends):
        yield row, trend.phrase
        if trend.summary:
            yield row, f"{trend.phrase}. {trend.summary}"


def snapshot_ids(snapshots_dir: Path) -> list[str]:
    """Ids of the complete snapshots, newest first. They sort by time: the id begins with it."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((p.name for p in snapshots_dir.iterdir() if _ID.fullmatch(p.name)), reverse=True)
    return []


def current_id(snapshots_dir: Path) -> str | None:
    """What CURRENT names, or None where nothing has been published (or CURRENT is unreadable)."""
    try:
        name = (snapshots_dir / "CURRENT").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if _ID.fullmatch(name) else None


def current_manifest(snapshots_dir: Path) -> Manifest | None:
    """What the current snapshot says of itself, not verified; None where there is none that can be read."""
    current = current_id(snapshots_dir)
    if current is None:
        return None
    try:
        return Manifest.model_validate_json((snapshots_dir / current / "manifest.json").read_bytes())
    except (OSError, ValidationError):
        return None


def open_newest(snapshots_dir: Path, embedder: Embedder) -> Snapshot:
    """The current snapshot; where it does not verify, the newest that does, with a warning in its ``info``.

    Raises:
        NoSnapshot: nothing has been published.
        CorruptSnapshot: there are snapshots and none verifies; the message names the first fault.
    """
    current = current_id(snapshots_dir)
    candidates = list(dict.fromkeys([*([current] if current else []), *snapshot_ids(snapshots_dir)]))
    if not candidates:
        raise NoSnapshot("There are no trends yet. Collect some: trendrag refresh")
    faults: list[str] = []
    for candidate in candidates:
        try:
            snapshot = open_snapshot(snapshots_dir / candidate, embedder)
        except CorruptSnapshot as fault:
            faults.append(str(fault))
            continue
        if not faults:
            return snapshot
        warning = f"{faults[0]}; using snapshot {candidate} instead. Collect new trends: trendrag refresh"
        info = snapshot.info.model_copy(update={"warning": warning})
        return Snapshot(info, snapshot.trends, snapshot.index)
    raise CorruptSnapshot(f"{faults[0]}, and no older snapshot verifies. Collect new trends: trendrag refresh")


def open_snapshot(directory: Path, embedder: Embedder) -> Snapshot:
    """Reads and verifies one snapshot.

    Raises:
        CorruptSnapshot: a file is missing, changed or unreadable, or the vectors are another embedder's. The message
            names the snapshot and the file.
    """
    where = f"Snapshot {directory.name}"
    try:
        manifest = Manifest.model_validate_json(_read(directory, "manifest.json"))
    except ValidationError as error:
        raise CorruptSnapshot(f"{where}: manifest.json is not a manifest of version {SCHEMA_VERSION}") from error
    made_by, ours = manifest.embedder, (embedder.name, embedder.sha256, embedder.dim)
    if (made_by.name, made_by.sha256, made_by.dim) != ours:
        raise CorruptSnapshot(f"{where}: its vectors were made by {made_by.name}, this is {embedder.name}")
    data: dict[str, bytes] = {}
    for name in ("trends.jsonl.zst", "index.faiss"):
        data[name] = _read(directory, name)
        if hashlib.sha256(data[name]).hexdigest() != manifest.files.get(name):
            raise CorruptSnapshot(f"{where}: {name} does not match its checksum")
    try:
        lines = zstandard.ZstdDecompressor().decompress(data["trends.jsonl.zst"], max_output_size=MAX_TRENDS_BYTES)
        trends = tuple(Trend.model_validate(json.loads(line)) for line in lines.splitlines())
    except (zstandard.ZstdError, ValueError) as error:
        raise CorruptSnapshot(f"{where}: trends.jsonl.zst can't be read") from error
    try:
        index = faiss.deserialize_index(np.frombuffer(data["index.faiss"], dtype=np.uint8))
    except RuntimeError as error:  # what faiss's C++ exceptions become
        raise CorruptSnapshot(f"{where}: index.faiss can't be read") from error
    if len(trends) != manifest.count or index.d != embedder.dim:
        raise CorruptSnapshot(f"{where}: its files do not fit each other")
    return Snapshot(_info(manifest), trends, index)


def _info(manifest: Manifest) -> SnapshotInfo:
    return SnapshotInfo(
        id=manifest.id,
        created_at=manifest.created_at,
        recorded_at=manifest.recorded_at,
        origin=manifest.origin,
        count=manifest.count,
    )


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise CorruptSnapshot(f"Snapshot {directory.name}: {name} can't be read ({error.strerror})") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Makes renames in it survive a power cut, where the system can (Windows can't open a directory)."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
