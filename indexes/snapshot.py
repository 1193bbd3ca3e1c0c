"""A snapshot: all trends of one refresh with their vectors, as verified files in a directory of their own.

    snapshots/<id>/manifest.json   what is inside, with a SHA-256 for each other file; written last
    snapshots/<id>/withheld...     what the safety gate kept back, for ``trendrag trends --withheld`` alone
    snapshots/<id>/...             rows and segments, as in ``segments``; segments are hard links where there can be any
    snapshots/CURRENT              the id of the current one, replaced atomically

A snapshot is complete before it becomes current and never changes afterwards. A reader verifies before it uses one, and
takes the newest that verifies where the current one does not. This is all that passes from ingest to serving.

Snapshots of version 1 (``trends.jsonl.zst`` and ``index.faiss``, no segments) are read as well.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import faiss
import numpy as np
import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError

from indexes.embedder import Embedder, Vectors
from indexes.segments import ROW, ROWS_FILE, Load, Rows, Segment, plan, rated, read_lines, rows_of, write
from indexes.withheld import WITHHELD_FILE, Withheld, as_file
from trendrag.errors import CorruptSnapshot, NoSnapshot
from trendrag.types import Origin, SnapshotInfo, Trend, Utc

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
    count: int
    embedder: EmbedderId
    files: dict[str, str]
    """File name → SHA-256 of its bytes."""
    segments: tuple[Segment, ...] = ()
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


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What a new snapshot may share with the current one, which it was read from and verified."""

    directory: Path
    manifest: Manifest
    rows: Rows

    @property
    def info(self) -> SnapshotInfo:
        return _info(self.manifest)


def published(snapshots_dir: Path, embedder: Embedder) -> Published | None:
    """The current snapshot as far as a publisher needs it; no trend or vector is read, all files are verified.

    None where there is none, it does not verify, its vectors are another embedder's, or it has no segments.
    """
    current = current_id(snapshots_dir)
    if current is None:
        return None
    directory = snapshots_dir / current
    try:
        manifest = _manifest(directory, embedder)
        if manifest.schema_version == 1:
            return None
        _verify(directory, manifest, {name for segment in manifest.segments for name in segment.files})
        return Published(directory, manifest, _rows(directory, manifest))
    except CorruptSnapshot:
        return None


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
    withheld: Sequence[Withheld] = (),
) -> SnapshotInfo:
    """Writes ``trends`` as a new snapshot that shares nothing with others; the rest is as for ``publish_rows``."""
    rows = rows_of(trends)
    by_key = dict(zip(rows["key"].tolist(), trends, strict=True))
    return publish_rows(
        snapshots_dir,
        rows,
        lambda keys: [by_key[key] for key in keys.tolist()],
        embedder,
        before=None,
        origin=origin,
        recorded_at=recorded_at,
        now=now,
        keep=keep,
        decided_in=decided_in,
        withheld=[each.model_dump_json() for each in withheld],
    )


def publish_rows(
    snapshots_dir: Path,
    rows: Rows,
    load: Load,
    embedder: Embedder,
    *,
    before: Published | None,
    origin: Origin,
    recorded_at: datetime | None,
    now: datetime,
    keep: int,
    decided_in: float | None = None,
    withheld: Iterable[str] = (),
) -> SnapshotInfo:
    """Writes a new snapshot of the trends of ``rows``, makes it current, and removes all but ``keep``: itself and the
    newest others.

    What ``before`` has already is not written again; ``load`` is asked for the rest. ``recorded_at`` is when the newest
    trend was really seen, ``decided_in`` the seconds that it took to decide on the trends. ``withheld`` (each a
    ``Withheld`` in JSON) is kept beside them for the operator; no reader of trends sees it. A crash at any moment
    leaves the old current snapshot.
    """
    started = time.monotonic()
    snapshots_dir.mkdir(parents=True, exist_ok=True)
    name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    old = before.manifest.segments if before else ()
    to_do = plan(rows, old, before.rows if before else np.zeros(0, dtype=ROW))
    draft = snapshots_dir / f".{name}.part"
    draft.mkdir()
    try:
        files: dict[str, str] = {}
        segments = list(old[: to_do.kept])
        for file in (file for segment in segments for file in segment.files if before):
            assert before is not None  # noqa: S101  (there are segments)
            link(before.directory / file, draft / file)
            files[file] = before.manifest.files[file]
        count = len(to_do.moved_rows) + len(to_do.fresh)
        if count:
            segments.append(Segment(name=name, rows=count))
            with contextlib.ExitStack() as opened:
                one, two, three = (opened.enter_context(_Draft(draft / file)) for file in segments[-1].files)
                moved = zip(old[to_do.kept :], to_do.moved, strict=True)
                taken = [(before.directory, segment, mask) for segment, mask in moved] if before else []
                write((one, two, three), taken, to_do.fresh["key"], load, embedder)
            files |= {each.path.name: each.sha256 for each in (one, two, three)}
        with _Draft(draft / ROWS_FILE) as standing:
            np.lib.format.write_array(standing, np.concatenate([to_do.keep, to_do.moved_rows, to_do.fresh]))
        with _Draft(draft / WITHHELD_FILE) as kept_back:
            kept_back.write(as_file(withheld))
        files |= {each.path.name: each.sha256 for each in (standing, kept_back)}
        manifest = Manifest(
            id=name,
            created_at=now,
            recorded_at=recorded_at,
            origin=origin,
            count=len(rows),
            embedder=EmbedderId(name=embedder.name, sha256=embedder.sha256, dim=embedder.dim),
            files=files,
            segments=tuple(segments),
            build_seconds=None if decided_in is None else round(decided_in + time.monotonic() - started, 3),
        )
        write_file(draft / "manifest.json", manifest.model_dump_json(indent=2).encode())
        sync_directory(draft)
        draft.rename(snapshots_dir / manifest.id)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    make_current(snapshots_dir, manifest.id)
    remove_old(snapshots_dir, manifest.id, keep)
    return _info(manifest)


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
    first: CorruptSnapshot | None = None
    for candidate in candidates:
        try:
            snapshot = open_snapshot(snapshots_dir / candidate, embedder)
        except CorruptSnapshot as fault:
            first = first or fault
            continue
        if first is None:
            return snapshot
        warning = f"{first}; using snapshot {candidate} instead. Collect new trends: trendrag refresh"
        info = snapshot.info.model_copy(update={"warning": warning})
        return Snapshot(info, snapshot.trends, snapshot.index)
    raise CorruptSnapshot(f"{first}, and no older snapshot verifies. Collect new trends: trendrag refresh")


def open_snapshot(directory: Path, embedder: Embedder) -> Snapshot:
    """Reads and verifies one snapshot.

    Raises:
        CorruptSnapshot: a file is missing, changed or unreadable, or the vectors are another embedder's. The message
            names the snapshot and the file.
    """
    where = f"Snapshot {directory.name}"
    manifest = _manifest(directory, embedder)
    trends, index = _version_1(directory, manifest) if manifest.schema_version == 1 else _segmented(directory, manifest)
    if len(trends) != manifest.count or index.d != embedder.dim:
        raise CorruptSnapshot(f"{where}: its files do not fit each other")
    return Snapshot(_info(manifest), trends, index)


def faults(directory: Path, embedder: Embedder) -> list[str]:
    """Everything that is wrong with a snapshot, each fault with the file's name; empty where it can be used.

    Unlike ``open_snapshot`` this reads every file, those too that no reader of trends opens, and goes on after a fault.
    """
    try:
        manifest = _manifest(directory, embedder)
    except CorruptSnapshot as fault:
        return [str(fault)]
    found: list[str] = []
    for name in manifest.files:
        try:
            _verify(directory, manifest, [name])
        except CorruptSnapshot as fault:
            found.append(str(fault))
    if not found:
        try:
            open_snapshot(directory, embedder)
        except CorruptSnapshot as fault:
            found.append(str(fault))
    return found


def _manifest(directory: Path, embedder: Embedder) -> Manifest:
    where = f"Snapshot {directory.name}"
    manifest = parse_manifest(_read(directory, "manifest.json"), where)
    check_embedder(manifest, embedder, where)
    return manifest


def parse_manifest(data: bytes, where: str) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptSnapshot(f"{where}: manifest.json is not a manifest of version 1 to {SCHEMA_VERSION}") from error


def check_embedder(manifest: Manifest, embedder: Embedder, where: str) -> None:
    made_by, ours = manifest.embedder, (embedder.name, embedder.sha256, embedder.dim)
    if (made_by.name, made_by.sha256, made_by.dim) != ours:
        raise CorruptSnapshot(f"{where}: its vectors were made by {made_by.name}, this is {embedder.name}")


def _verify(directory: Path, manifest: Manifest, names: Iterable[str]) -> None:
    for name in sorted(names):
        try:
            with (directory / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(directory, name, error) from error
        if found != manifest.files.get(name):
            raise CorruptSnapshot(f"Snapshot {directory.name}: {name} does not match its checksum")


def _checked(directory: Path, manifest: Manifest, name: str) -> bytes:
    data = _read(directory, name)
    if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
        raise CorruptSnapshot(f"Snapshot {directory.name}: {name} does not match its checksum")
    return data


def _rows(directory: Path, manifest: Manifest) -> Rows:
    try:
        rows: Rows = np.load(io.BytesIO(_checked(directory, manifest, ROWS_FILE)), allow_pickle=False)
    except ValueError as error:
        raise CorruptSnapshot(f"Snapshot {directory.name}: {ROWS_FILE} can't be read") from error
    if rows.dtype != ROW or len(rows) != sum(segment.rows for segment in manifest.segments):
        raise CorruptSnapshot(f"Snapshot {directory.name}: its files do not fit each other")
    return rows


def _segmented(directory: Path, manifest: Manifest) -> tuple[tuple[Trend, ...], faiss.Index]:
    """The live trends, best first, and their vectors."""
    rows = _rows(directory, manifest)
    live = np.flatnonzero(rows["live"])
    best = live[np.argsort(-rows["score"][live], kind="stable")]
    place = np.full(len(rows), -1, dtype=np.int64)
    place[best] = np.arange(len(best))
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(manifest.embedder.dim))
    trends: dict[int, Trend] = {}
    start = 0
    for segment in manifest.segments:
        lines, vectors, owners = segment.files
        try:
            for row, line in enumerate(read_lines(io.BytesIO(_checked(directory, manifest, lines))), start):
                if rows["live"][row]:
                    trends[row] = rated(line, rows[row])
            ids = place[np.frombuffer(_checked(directory, manifest, owners), dtype="<i4") + start]
            found = np.frombuffer(_checked(directory, manifest, vectors), dtype="<f4")
            found = found.reshape(-1, manifest.embedder.dim)
            if (ids >= 0).any():
                index.add_with_ids(np.ascontiguousarray(found[ids >= 0], dtype=np.float32), ids[ids >= 0])
        except (zstandard.ZstdError, ValueError, IndexError) as error:
            raise CorruptSnapshot(f"Snapshot {directory.name}: segment {segment.name} can't be read") from error
        start += segment.rows
    if len(trends) != len(best):
        raise CorruptSnapshot(f"Snapshot {directory.name}: its files do not fit each other")
    return tuple(trends[row] for row in best.tolist()), index


def _version_1(directory: Path, manifest: Manifest) -> tuple[tuple[Trend, ...], faiss.Index]:
    where = f"Snapshot {directory.name}"
    packed, vectors = (_checked(directory, manifest, name) for name in ("trends.jsonl.zst", "index.faiss"))
    try:
        trends = tuple(Trend.model_validate(json.loads(line)) for line in read_lines(io.BytesIO(packed)))
    except (zstandard.ZstdError, ValueError) as error:
        raise CorruptSnapshot(f"{where}: trends.jsonl.zst can't be read") from error
    try:
        return trends, faiss.deserialize_index(np.frombuffer(vectors, dtype=np.uint8))
    except RuntimeError as error:  # what faiss's C++ exceptions become
        raise CorruptSnapshot(f"{where}: index.faiss can't be read") from error


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
        raise _unreadable(directory, name, error) from error


def _unreadable(directory: Path, name: str, error: OSError) -> CorruptSnapshot:
    return CorruptSnapshot(f"Snapshot {directory.name}: {name} can't be read ({error.strerror})")


class _Draft:
    """A file that is written in pieces, with its checksum; safe on disk once it is closed without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        self.sha256 = self._hash.hexdigest()


def link(old: Path, new: Path) -> None:
    """The same file under another name; a copy where there can be no links."""
    try:
        os.link(old, new)
    except OSError:
        with old.open("rb") as source, _Draft(new) as copy:
            shutil.copyfileobj(source, copy)


def write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Makes renames in it survive a power cut, where the system can (Windows can't open a directory)."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
