"""A snapshot: all trends of one refresh with their vectors, as verified files in a directory of their own.

    snapshots/<id>/manifest.json   what is inside, with a SHA-256 of each other file and of itself; written last
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
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self, overload

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexes.concepts import Concepts, Links
from indexes.concepts import link as links_to
from indexes.embedder import Embedder, Vectors
from indexes.facts import Facts, facts_of, pack, unpack
from indexes.recent import Recent
from indexes.segments import (
    ROW,
    ROWS_FILE,
    FileName,
    Lines,
    Load,
    Rows,
    Segment,
    normalised,
    owners_in,
    plan,
    rated,
    read_lines,
    rows_in,
    rows_of,
    vectors_in,
    write,
)
from indexes.withheld import WITHHELD_FILE, Withheld, as_file
from trendrag.errors import CorruptSnapshot, NoSnapshot
from trendrag.types import Origin, SnapshotInfo, Trend, Utc

SCHEMA_VERSION: Literal[2] = 2
_REMEMBERED = 2_048
"""Trends that are kept once they were made of their lines; the strong ones are found again and again."""
_PIECE = 1_024
"""Vectors of a file that are read at a time."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Owned:
    """Vectors, float32 (n, dim), L2-normalised, and the rows that own them, int64 (n,), ascending."""

    vectors: Vectors
    owners: npt.NDArray[np.int64]

    def of(self, start: int, end: int) -> "Owned":
        """Those of the rows from ``start`` to before ``end``."""
        first, last = np.searchsorted(self.owners, [start, end]).tolist()
        return Owned(self.vectors[first:last], self.owners[first:last])

    def of_each(self, rows: Sequence[int]) -> list[Vectors]:
        bounds = (np.searchsorted(self.owners, rows, side=side).tolist() for side in ("left", "right"))
        return [self.vectors[first:last] for first, last in zip(*bounds, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The trends of one ``segment``. ``live`` (its rows,) are those that are in the snapshot; ``facts`` and
    ``links`` (by the digest of the concepts) are of all its rows. What is not kept with it is not in ``links``."""

    segment: Segment
    live: npt.NDArray[np.bool_]
    facts: Facts
    links: Mapping[str, Links]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A verified snapshot in memory. Row i is ``trends[i]``, in the order in which trends were written.

    ``rows`` (trends,) say how high each stands. ``compared`` are the vectors that queries are compared with, and
    ``aside`` the others: where a trend has several the first is of its phrase alone, which says less and misleads more.
    ``scenes`` are further ones, of photos that would fit. ``parts`` follow one another.
    """

    info: SnapshotInfo
    trends: Sequence[Trend]
    rows: Rows
    compared: Owned
    aside: Owned
    scenes: Owned
    parts: tuple[Part, ...]


class Trends(Sequence[Trend]):
    """The live trends of some segments, each made of its line and its row when it is asked for.

    Raises:
        CorruptSnapshot: when a trend is asked for and its line is none; only a program's fault writes such a file.
    """

    def __init__(self, directory: Path, segments: Sequence[tuple[Segment, Lines]], rows: Rows) -> None:
        self._directory = directory
        self._segments = segments
        self._starts = [0, *accumulate(segment.rows for segment, _ in segments)]
        self._rows = rows
        self._live = np.flatnonzero(rows["live"])
        self._made: Recent[int, Trend] = Recent(_REMEMBERED)

    def __len__(self) -> int:
        return len(self._live)

    @overload
    def __getitem__(self, at: int) -> Trend: ...
    @overload
    def __getitem__(self, at: slice) -> list[Trend]: ...
    def __getitem__(self, at: int | slice) -> Trend | list[Trend]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        row = int(self._live[at])
        made = self._made.get(row)
        if made is not None:
            return made
        number = bisect_right(self._starts, row) - 1
        segment, lines = self._segments[number]
        with _reading(self._directory, segment.files[0]):
            made = rated(lines[row - self._starts[number]], self._rows[row])
        self._made.put(row, made)
        return made


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
        # The rows and what was withheld are each snapshot's own; the rest may be passed on.
        named = {name for segment in manifest.segments for name in segment.files} | manifest.files.keys()
        _verify(directory, manifest, named - {ROWS_FILE, WITHHELD_FILE})
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
    concepts: Concepts | None = None,
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
        concepts=concepts,
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
    concepts: Concepts | None = None,
) -> SnapshotInfo:
    """Writes a new snapshot of the trends of ``rows``, makes it current, and removes all but ``keep``: itself and the
    newest others.

    What ``before`` has already is not written again; ``load`` is asked for the rest. ``recorded_at`` is when the newest
    trend was really seen, ``decided_in`` the seconds that it took to decide on the trends. ``withheld`` (each a
    ``Withheld`` in JSON) is kept beside them for the operator; no reader of trends sees it. Links to ``concepts`` are
    kept with the trends, so that readers need not make them. A crash at any moment leaves the old current snapshot.
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
        for segment in segments:
            for file in (segment.facts, *([segment.links(concepts.digest)] if concepts and concepts.digest else [])):
                if before and file in before.manifest.files:
                    link(before.directory / file, draft / file)
                    files[file] = before.manifest.files[file]
                    continue
                with _Draft(draft / file) as made:
                    if file == segment.facts or concepts is None:
                        made.write(_facts(draft, segment))
                    else:
                        again = zip(old[to_do.kept :], to_do.moved, strict=True) if segment.name == name else ()
                        carried = _carried(before, tuple(again), concepts) if before else []
                        made.write(_links(draft, segment, concepts, embedder.dim, carried))
                files[file] = made.sha256
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
        write_file(draft / "manifest.json", _sealed(manifest))
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
    except (OSError, ValidationError, OverflowError):
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
        return replace(snapshot, info=info)
    raise CorruptSnapshot(f"{first}, and no older snapshot verifies. Collect new trends: trendrag refresh")


def open_snapshot(directory: Path, embedder: Embedder) -> Snapshot:
    """Reads and verifies one snapshot.

    Raises:
        CorruptSnapshot: a file is missing, changed or unreadable, or the vectors are another embedder's. The message
            names the snapshot and the file.
    """
    where = f"Snapshot {directory.name}"
    manifest = _manifest(directory, embedder)
    snapshot = _version_1(directory, manifest) if manifest.schema_version == 1 else _segmented(directory, manifest)
    count = len(snapshot.trends)
    if count != manifest.count:
        raise CorruptSnapshot(f"{where}: manifest.json counts {manifest.count} trends, its files have {count}")
    return snapshot


def faults(directory: Path, embedder: Embedder) -> list[str]:
    """Everything that is wrong with a snapshot, each fault with the file's name; empty where it can be used.

    Unlike ``open_snapshot`` this reads every file, those too that no reader of trends opens, and every trend, and goes
    on after a fault.
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
            for _ in open_snapshot(directory, embedder).trends:
                pass
        except CorruptSnapshot as fault:
            found.append(str(fault))
    return found


def _manifest(directory: Path, embedder: Embedder) -> Manifest:
    where = f"Snapshot {directory.name}"
    manifest = parse_manifest(_read(directory, "manifest.json"), where)
    check_embedder(manifest, embedder, where)
    if manifest.id != directory.name:
        raise CorruptSnapshot(f"{where}: manifest.json is that of {manifest.id}")
    return manifest


def parse_manifest(data: bytes, where: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(data)
    except (ValidationError, OverflowError) as error:  # the latter where a time is beyond the year 9999
        raise CorruptSnapshot(f"{where}: manifest.json is not a manifest of version 1 to {SCHEMA_VERSION}") from error
    if manifest.seal is not None and _seal_of(data.rpartition(_SEAL)[0]) != manifest.seal:
        raise CorruptSnapshot(f"{where}: manifest.json does not match its own checksum")
    return manifest


def check_embedder(manifest: Manifest, embedder: Embedder, where: str) -> None:
    made_by, ours = manifest.embedder, (embedder.name, embedder.sha256, embedder.dim)
    if (made_by.name, made_by.sha256, made_by.dim) != ours:
        raise CorruptSnapshot(
            f"{where}: its vectors were made by {made_by.name}, this is {embedder.name} (says manifest.json)"
        )


_SEAL = b'"seal"'


def _sealed(manifest: Manifest) -> bytes:
    """The manifest as a file, which ends with a checksum of all before it: nothing else vouches for this file."""
    body = manifest.model_dump_json(indent=2, exclude={"seal"}).removesuffix("\n}").encode() + b",\n  "
    return body + _SEAL + f': "{_seal_of(body)}"\n}}'.encode()


def _seal_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _verify(directory: Path, manifest: Manifest, names: Iterable[str]) -> None:
    for name in sorted(names):
        with _opened(directory, name) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != manifest.files.get(name):
            raise _changed(directory, name)


def _checked(directory: Path, manifest: Manifest, name: str) -> bytes:
    data = _read(directory, name)
    if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
        raise _changed(directory, name)
    return data


def _rows(directory: Path, manifest: Manifest) -> Rows:
    data = _checked(directory, manifest, ROWS_FILE)
    with _reading(directory, ROWS_FILE):
        return rows_in(data, sum(segment.rows for segment in manifest.segments))


def _segmented(directory: Path, manifest: Manifest) -> Snapshot:
    rows = _rows(directory, manifest)
    read: list[tuple[Segment, Lines]] = []
    parts: list[Part] = []
    kinds: list[_Kinds] = []
    start = 0
    for segment in manifest.segments:
        lines, _, owners = segment.files
        packed = _checked(directory, manifest, lines)
        with _reading(directory, lines):
            read.append((segment, Lines(packed)))
            if len(read[-1][1]) != segment.rows:
                raise ValueError(f"it has {len(read[-1][1])} trends, not {segment.rows}")
        parts.append(_part(directory, manifest, segment, read[-1][1], rows["live"][start : start + segment.rows]))
        numbers = _checked(directory, manifest, owners)
        with _reading(directory, owners):
            owned = owners_in(numbers, segment.rows)
        with _reading(directory, _facts_of(segment, manifest)):
            kinds.append(_kinds(owned, parts[-1].facts.scenes))
        start += segment.rows
    compared, aside, scenes = _vectors(directory, manifest, parts, kinds)
    trends = Trends(directory, read, rows)
    return Snapshot(_info(manifest), trends, rows[rows["live"]], compared, aside, scenes, tuple(parts))


def _part(directory: Path, manifest: Manifest, segment: Segment, lines: Lines, live: npt.NDArray[np.bool_]) -> Part:
    if segment.facts in manifest.files:
        packed = _checked(directory, manifest, segment.facts)
        with _reading(directory, segment.facts):
            facts = unpack(packed, segment.rows)
    else:
        with _reading(directory, segment.files[0]):
            facts = facts_of(json.loads(lines[at]) for at in range(len(lines)))
    before = segment.links("")
    links = {}
    for name in manifest.files:
        if name.startswith(before):
            packed = _checked(directory, manifest, name)
            with _reading(directory, name):
                links[name.removeprefix(before)] = Links.unpack(packed, segment.rows)
    return Part(segment, live, facts, links)


def _facts_of(segment: Segment, manifest: Manifest) -> str:
    """The file that tells a segment's facts."""
    return segment.facts if segment.facts in manifest.files else segment.files[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """Of each vector of a segment the row that owns it and what it is for: masks, (vectors,), one of them True."""

    owners: npt.NDArray[np.int64]
    compared: npt.NDArray[np.bool_]
    aside: npt.NDArray[np.bool_]
    scenes: npt.NDArray[np.bool_]


def _kinds(owners: npt.NDArray[np.int64], scenes: npt.NDArray[np.int32]) -> _Kinds:
    """``owners`` (vectors,) are ascending, ``scenes`` (rows,) how many of each row's vectors, the last, are scenes'.

    Raises:
        ValueError: a row has vectors, and not one of its own.
    """
    rows = np.arange(len(scenes))
    starts, ends = (np.searchsorted(owners, rows, side=side) for side in ("left", "right"))
    own_ends = ends - scenes
    if ((own_ends <= starts) & (ends > starts)).any():
        raise ValueError("there are more scenes than vectors")
    aside = np.zeros(len(owners), dtype=np.bool_)
    aside[starts[own_ends - starts > 1]] = True
    staged = np.arange(len(owners)) >= own_ends[owners]
    return _Kinds(owners, ~aside & ~staged, aside, staged)


def _vectors(
    directory: Path, manifest: Manifest, parts: Sequence[Part], kinds: Sequence[_Kinds]
) -> tuple[Owned, Owned, Owned]:
    """The live rows' vectors: those to compare with, those beside them, and those of scenes.

    Each file is read and hashed once, piece by piece, straight to where its vectors stay.
    """
    dim = manifest.embedder.dim
    masks, start = [], 0
    owners: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [])
    for part, kind in zip(parts, kinds, strict=True):
        live = part.live[kind.owners]
        masks.append((live & kind.compared, live & kind.aside, live & kind.scenes))
        place = np.cumsum(part.live) - 1 + start
        for kept, mask in zip(owners, masks[-1], strict=True):
            kept.append(place[kind.owners[mask]])
        start += int(part.live.sum())
    all_owners = [np.concatenate([np.zeros(0, dtype=np.int64), *kept]) for kept in owners]
    compared, aside, scenes = (Owned(np.empty((len(kept), dim), dtype=np.float32), kept) for kept in all_owners)
    done = [0, 0, 0]
    for part, wanted in zip(parts, masks, strict=True):
        row, name = 0, part.segment.files[1]
        for found in _pieces(directory, manifest, name, dim):
            for at, (into, mask) in enumerate(zip((compared, aside, scenes), wanted, strict=True)):
                here = mask[row : row + len(found)]  # fewer where the file is too long, which is told of below
                taken = found[: len(here)][here]
                into.vectors[done[at] : done[at] + len(taken)] = taken
                done[at] += len(taken)
            row += len(found)
        if row != len(wanted[0]):
            raise _invalid(directory, name, "they are not as many as their owners")
    return compared, aside, scenes


def _pieces(directory: Path, manifest: Manifest, name: str, dim: int) -> Iterator[Vectors]:
    """The vectors of a file, some at a time, each good until the next is asked for.

    Raises:
        CorruptSnapshot: after the last, where the file is not what the manifest says, or holds what are no vectors of
            length 1 at most; before, where it can't be read.
    """
    digest = hashlib.sha256()
    piece = np.empty((_PIECE, dim), dtype="<f4")
    raw = piece.reshape(-1).view(np.uint8).data
    sound = True
    with _opened(directory, name) as file:
        while size := file.readinto(raw):
            digest.update(raw[:size])
            found = piece[: size // (4 * dim)]
            sound &= size % (4 * dim) == 0 and normalised(found)
            yield found
    # A file that was damaged is better told of as such than by what became of its numbers.
    if digest.hexdigest() != manifest.files.get(name):
        raise _changed(directory, name)
    if not sound:
        raise _invalid(directory, name, "they are not normalised")


def _facts(directory: Path, segment: Segment) -> bytes:
    with (directory / segment.files[0]).open("rb") as file:
        return pack(facts_of(json.loads(line) for line in read_lines(file)))


def _links(directory: Path, segment: Segment, concepts: Concepts, dim: int, carried: Sequence[Links]) -> bytes:
    """The links of a segment in ``directory``, of whose first rows there are ``carried``."""
    _, vectors, owners = (directory / name for name in segment.files)
    owned = np.fromfile(owners, dtype="<i4").astype(np.int64)
    scenes = unpack((directory / segment.facts).read_bytes(), segment.rows).scenes
    mapped: Any = np.memmap(vectors, dtype="<f4", mode="r", shape=(len(owned), dim))
    done = sum(len(links.weights) for links in carried)
    first = int(np.searchsorted(owned, done))
    # Scenes bring photos to a trend, but say nothing of what it is.
    own = np.where(_kinds(owned, scenes).scenes, -1, owned - done)
    rest = links_to(concepts, mapped[first:], own[first:], segment.rows - done)
    return Links.together([*carried, rest]).pack()


def _carried(
    before: Published, moved: Sequence[tuple[Segment, npt.NDArray[np.bool_]]], concepts: Concepts
) -> list[Links]:
    """The links of the rows that are moved into a new segment, as far as there are any without a gap."""
    found = []
    for segment, mask in moved:
        name = segment.links(concepts.digest)
        if name not in before.manifest.files:
            break
        try:
            links = Links.unpack((before.directory / name).read_bytes(), segment.rows)
        except Exception:  # noqa: BLE001  (the checksum was right: a program's fault, which need not stay)
            break
        if not links.fit(concepts):
            break
        found.append(links.of(mask))
    return found


def _version_1(directory: Path, manifest: Manifest) -> Snapshot:
    packed, stored = (_checked(directory, manifest, name) for name in ("trends.jsonl.zst", "index.faiss"))
    with _reading(directory, "trends.jsonl.zst"):
        trends = tuple(Trend.model_validate(json.loads(line)) for line in read_lines(io.BytesIO(packed)))
    with _reading(directory, "index.faiss"):
        index: Any = faiss.deserialize_index(np.frombuffer(stored, dtype=np.uint8))
        owners = faiss.vector_to_array(index.id_map).astype(np.int64)
        flat: Any = faiss.downcast_index(index.index)
        found = vectors_in(faiss.vector_to_array(flat.codes).tobytes(), len(owners), manifest.embedder.dim)
        if flat.metric_type != faiss.METRIC_INNER_PRODUCT or ((owners < 0) | (owners >= len(trends))).any():
            raise ValueError("it does not fit the trends")
        order = np.argsort(owners, kind="stable")
        found, owners = found[order], owners[order]
        facts = facts_of(each.model_dump() for each in trends)
        kinds = _kinds(owners, facts.scenes)
    part = Part(Segment(name=directory.name, rows=len(trends)), np.ones(len(trends), dtype=np.bool_), facts, {})
    compared, aside, scenes = (Owned(found[mask], owners[mask]) for mask in (kinds.compared, kinds.aside, kinds.scenes))
    return Snapshot(_info(manifest), trends, rows_of(trends), compared, aside, scenes, (part,))


@contextlib.contextmanager
def _reading(directory: Path, name: str) -> Iterator[None]:
    """Names the file that is to blame where its contents are not what their checksum promised."""
    try:
        yield
    except Exception as error:  # parsers raise all sorts on what no publisher wrote
        raise _invalid(directory, name, str(error).partition("\n")[0] or type(error).__name__) from error


def _info(manifest: Manifest) -> SnapshotInfo:
    return SnapshotInfo(
        id=manifest.id,
        created_at=manifest.created_at,
        recorded_at=manifest.recorded_at,
        origin=manifest.origin,
        count=manifest.count,
    )


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[io.BufferedReader]:
    try:
        with (directory / name).open("rb") as file:
            yield file
    except OSError as error:
        raise _unreadable(directory, name, error) from error


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise _unreadable(directory, name, error) from error


def _changed(directory: Path, name: str) -> CorruptSnapshot:
    return CorruptSnapshot(f"Snapshot {directory.name}: {name} does not match its checksum")


def _invalid(directory: Path, name: str, reason: str) -> CorruptSnapshot:
    return CorruptSnapshot(f"Snapshot {directory.name}: {name} can't be read ({reason})")


def _unreadable(directory: Path, name: str, error: OSError) -> CorruptSnapshot:
    return _invalid(directory, name, error.strerror or type(error).__name__)


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
