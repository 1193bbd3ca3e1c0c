"""A snapshot: all trends of one refresh with their vectors, as verified files in a directory of their own.

    snapshots/<id>/manifest.json   what is inside, with a SHA-256 of each other file and of itself; written last
    snapshots/<id>/withheld...     what the safety gate kept back, for ``trendrag trends --withheld`` alone
    snapshots/<id>/...             rows and segments, as in ``segments``; segments are hard links where there can be any
    snapshots/CURRENT              the id of the current one, replaced atomically

A snapshot is complete before it becomes current and never changes afterwards. A reader verifies before it uses one, and
takes the newest that verifies where the current one does not. This is all that passes from ingest to serving.

Snapshots of version 1 (``trends.jsonl.zst`` and ``index.faiss``, no segments) are read as well.
"""

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import faiss
import numpy as np
import numpy.typing as npt

from indexes.concepts import Links
from indexes.embedder import Embedder, Vectors
from indexes.facts import Facts, facts_of, unpack
from indexes.files import changed, invalid, opened, reading
from indexes.manifest import (
    Manifest,
    checked_bytes,
    current_id,
    info_of,
    snapshot_ids,
    verified_manifest,
    verified_rows,
    verify_files,
)
from indexes.recent import Recent
from indexes.segments import (
    Lines,
    Rows,
    Segment,
    normalised,
    owners_in,
    rated,
    read_lines,
    rows_of,
    vectors_in,
)
from trendrag.errors import CorruptSnapshot, NoSnapshot
from trendrag.types import SnapshotInfo, Trend

_REMEMBERED = 2_048
"""Trends that are kept once they were made of their lines; the strong ones are found again and again."""
_PIECE = 1_024
"""Vectors of a file that are read at a time."""


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
        segment, line = self._line(row)
        with reading(self._directory, segment.files[0]):
            made = rated(line, self._rows[row])
        self._made.put(row, made)
        return made

    def said(self) -> Iterator[dict[str, Any]]:
        """What each says, in JSON's types, without what its row says (``RATED``): a fifth of the cost of the trends.

        Raises:
            CorruptSnapshot: as above.
        """
        for row in self._live.tolist():
            segment, line = self._line(row)
            with reading(self._directory, segment.files[0]):
                yield dict(json.loads(line))

    def _line(self, row: int) -> tuple[Segment, bytes]:
        number = bisect_right(self._starts, row) - 1
        segment, lines = self._segments[number]
        return segment, lines[row - self._starts[number]]


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
    manifest = verified_manifest(directory, embedder)
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
        manifest = verified_manifest(directory, embedder)
    except CorruptSnapshot as fault:
        return [str(fault)]
    found: list[str] = []
    for name in manifest.files:
        try:
            verify_files(directory, manifest, [name])
        except CorruptSnapshot as fault:
            found.append(str(fault))
    if not found:
        try:
            for _ in open_snapshot(directory, embedder).trends:
                pass
        except CorruptSnapshot as fault:
            found.append(str(fault))
    return found


def _segmented(directory: Path, manifest: Manifest) -> Snapshot:
    rows = verified_rows(directory, manifest)
    read: list[tuple[Segment, Lines]] = []
    parts: list[Part] = []
    kinds: list[Kinds] = []
    start = 0
    for segment in manifest.segments:
        lines, _, owners = segment.files
        packed = checked_bytes(directory, manifest, lines)
        with reading(directory, lines):
            read.append((segment, Lines(packed)))
            if len(read[-1][1]) != segment.rows:
                raise ValueError(f"it has {len(read[-1][1])} trends, not {segment.rows}")
        parts.append(_part(directory, manifest, segment, read[-1][1], rows["live"][start : start + segment.rows]))
        numbers = checked_bytes(directory, manifest, owners)
        with reading(directory, owners):
            owned = owners_in(numbers, segment.rows)
        with reading(directory, _facts_of(segment, manifest)):
            kinds.append(kinds_of(owned, parts[-1].facts.scenes))
        start += segment.rows
    compared, aside, scenes = _vectors(directory, manifest, parts, kinds)
    trends = Trends(directory, read, rows)
    return Snapshot(info_of(manifest), trends, rows[rows["live"]], compared, aside, scenes, tuple(parts))


def _part(directory: Path, manifest: Manifest, segment: Segment, lines: Lines, live: npt.NDArray[np.bool_]) -> Part:
    if segment.facts in manifest.files:
        packed = checked_bytes(directory, manifest, segment.facts)
        with reading(directory, segment.facts):
            facts = unpack(packed, segment.rows)
    else:
        with reading(directory, segment.files[0]):
            facts = facts_of(json.loads(lines[at]) for at in range(len(lines)))
    before = segment.links("")
    links = {}
    for name in manifest.files:
        if name.startswith(before):
            packed = checked_bytes(directory, manifest, name)
            with reading(directory, name):
                links[name.removeprefix(before)] = Links.unpack(packed, segment.rows)
    return Part(segment, live, facts, links)


def _facts_of(segment: Segment, manifest: Manifest) -> str:
    """The file that tells a segment's facts."""
    return segment.facts if segment.facts in manifest.files else segment.files[0]


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Of each vector of a segment the row that owns it and what it is for: masks, (vectors,), one of them True."""

    owners: npt.NDArray[np.int64]
    compared: npt.NDArray[np.bool_]
    aside: npt.NDArray[np.bool_]
    scenes: npt.NDArray[np.bool_]


def kinds_of(owners: npt.NDArray[np.int64], scenes: npt.NDArray[np.int32]) -> Kinds:
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
    return Kinds(owners, ~aside & ~staged, aside, staged)


def _vectors(
    directory: Path, manifest: Manifest, parts: Sequence[Part], kinds: Sequence[Kinds]
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
            raise invalid(directory, name, "they are not as many as their owners")
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
    with opened(directory, name) as file:
        while size := file.readinto(raw):
            digest.update(raw[:size])
            found = piece[: size // (4 * dim)]
            sound &= size % (4 * dim) == 0 and normalised(found)
            yield found
    # A file that was damaged is better told of as such than by what became of its numbers.
    if digest.hexdigest() != manifest.files.get(name):
        raise changed(directory, name)
    if not sound:
        raise invalid(directory, name, "they are not normalised")


def _version_1(directory: Path, manifest: Manifest) -> Snapshot:
    packed, stored = (checked_bytes(directory, manifest, name) for name in ("trends.jsonl.zst", "index.faiss"))
    with reading(directory, "trends.jsonl.zst"):
        trends = tuple(Trend.model_validate(json.loads(line)) for line in read_lines(io.BytesIO(packed)))
    with reading(directory, "index.faiss"):
        index: Any = faiss.deserialize_index(np.frombuffer(stored, dtype=np.uint8))
        owners = faiss.vector_to_array(index.id_map).astype(np.int64)
        flat: Any = faiss.downcast_index(index.index)
        found = vectors_in(faiss.vector_to_array(flat.codes).tobytes(), len(owners), manifest.embedder.dim)
        if flat.metric_type != faiss.METRIC_INNER_PRODUCT or ((owners < 0) | (owners >= len(trends))).any():
            raise ValueError("it does not fit the trends")
        order = np.argsort(owners, kind="stable")
        found, owners = found[order], owners[order]
        facts = facts_of(each.model_dump() for each in trends)
        kinds = kinds_of(owners, facts.scenes)
    part = Part(Segment(name=directory.name, rows=len(trends)), np.ones(len(trends), dtype=np.bool_), facts, {})
    compared, aside, scenes = (Owned(found[mask], owners[mask]) for mask in (kinds.compared, kinds.aside, kinds.scenes))
    return Snapshot(info_of(manifest), trends, rows_of(trends), compared, aside, scenes, (part,))
