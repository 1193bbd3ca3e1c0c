"""The rows of a snapshot, in segments: files that are written once and then shared by the snapshots that hold them.

    <segment>.trends.jsonl.zst   one trend a line, without what changes as time goes by (``RATED``)
    <segment>.vectors            float32, little-endian, (vectors, dim), normalised; a row's one to three, then scenes
    <segment>.owners             int32, little-endian, (vectors,): each vector's row within the segment, ascending
    <segment>.facts              what they are filtered and found by (``facts``); made when read where it is not there
    <segment>.links-<digest>     the concepts that they are near to (``concepts``), made by their digest; likewise
    rows.npy                     one ``ROW`` for each row of all segments, in their order: the rest of each trend

What a trend *says* is in its segment and stays there until it says something else; then its row is dead, and a new
segment has another. How high it stands is in ``rows.npy``, which each snapshot has of its own. Which rows are written
anew, and which segments are written together, is decided here; files and their checksums are ``snapshot``'s.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol, get_args

import numpy as np
import numpy.typing as npt
import zstandard
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from indexes.arrays import arrays_in
from indexes.embedder import Embedder, Vectors
from indexes.gloss import gloss
from indexes.hashing import hash64
from trendrag.clock import microseconds, moment
from trendrag.types import Stage, Trend

MAX_TRENDS_BYTES = 2**30
MAX_LINE_BYTES = 2**24
ROWS_FILE = "rows.npy"
RATED = {"score", "velocity", "stage", "last_seen"}
"""The fields of a trend that its row has."""

ROW = np.dtype(
    [
        ("key", "<i8"),  # the trend's, by ``key_of``
        ("content", "<i8"),  # the same where the trend says the same, but for RATED; never read but to compare
        ("score", "<f8"),
        ("velocity", "<f8"),
        ("stage", "u1"),  # an index of STAGES
        ("last_seen", "<i8"),  # microseconds since 1970
        ("live", "?"),  # False: the trend is gone, or a later row has it
    ]
)
STAGES: tuple[Stage, ...] = get_args(Stage)
_TIMES = microseconds(datetime.min.replace(tzinfo=UTC)), microseconds(datetime.max.replace(tzinfo=UTC))
_ROUNDING = 1e-3
"""By how much the square of a normalised vector's length may be beyond 1."""
_CHUNK = 4_096
"""Rows or vectors in memory at a time while a segment is written."""

Rows = npt.NDArray[np.void]
Keys = npt.NDArray[np.int64]
Load = Callable[[Keys], Sequence[Trend]]
"""The trends of some keys, in their order."""


FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
"""One that can't lead out of the snapshot's folder."""


class File(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Segment(BaseModel):
    """``name`` is what its files begin with, ``rows`` how many it has, dead ones among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FileName
    rows: int = Field(ge=0)

    @property
    def files(self) -> tuple[str, str, str]:
        return f"{self.name}.trends.jsonl.zst", f"{self.name}.vectors", f"{self.name}.owners"

    @property
    def facts(self) -> str:
        return f"{self.name}.facts"

    def links(self, digest: str) -> str:
        return f"{self.name}.links-{digest}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new snapshot is made of: the first ``kept`` segments as they are, with the rows ``keep`` (their part of
    the next ``rows.npy``), then one new segment of the live rows of the segments after those (``moved``, a mask for
    each) and of the rows ``fresh``, which are trends that no segment has."""

    kept: int
    keep: Rows
    moved: tuple[npt.NDArray[np.bool_], ...]
    moved_rows: Rows
    fresh: Rows


def key_of(trend_id: str) -> int:
    """A signed number of 64 bits that stands for the id."""
    return hash64(trend_id)


def content_of(trend: Trend) -> int:
    """A signed number of 64 bits, the same for what says the same but for ``RATED``."""
    return hash64(trend.model_dump_json(exclude=RATED))


def rows_of(trends: Sequence[Trend]) -> Rows:
    """(n,): a live ``ROW`` for each."""
    rows: list[tuple[object, ...]] = []
    for trend in trends:
        seen, stage = microseconds(trend.last_seen), STAGES.index(trend.stage)
        rows.append((key_of(trend.id), content_of(trend), trend.score, trend.velocity, stage, seen, True))
    return np.array(rows, dtype=ROW)


def plan(rows: Rows, segments: Sequence[Segment], before: Rows) -> Plan:
    """How ``rows`` (unique keys, all live) become a snapshot after one of ``segments`` and ``before``.

    The new segment takes in those at the end that have no more than twice as many live rows as it has by then, and all
    from the first one of which more than half is dead. So there are about log2(rows) segments, of which each row is
    written anew about as often, and less than half of what is on disk is dead.
    """
    matched = _match(rows, before)
    found = matched >= 0
    used = np.zeros(len(rows), dtype=np.bool_)
    used[matched[found]] = True
    fresh = rows[~used]
    after = before.copy()
    after["live"] = found
    if len(rows):
        for field in ("score", "velocity", "stage", "last_seen"):
            after[field][found] = rows[field][matched[found]]
    bounds = np.concatenate([[0], np.cumsum([segment.rows for segment in segments])]).astype(np.int64)
    live = [int(np.count_nonzero(found[start:end])) for start, end in pairwise(bounds)]
    kept = next((at for at, segment in enumerate(segments) if 2 * live[at] < segment.rows), len(segments))
    taken = len(fresh) + sum(live[kept:])
    # Where nothing is fresh and nothing is moved no segment is written at all.
    while kept and taken and live[kept - 1] <= 2 * taken:
        kept -= 1
        taken += live[kept]
    spans = [slice(start, end) for start, end in pairwise(bounds[kept:])]
    moved = tuple(found[span] for span in spans)
    return Plan(kept, after[: bounds[kept]], moved, after[bounds[kept] :][found[bounds[kept] :]], fresh)


def _match(rows: Rows, before: Rows) -> npt.NDArray[np.int64]:
    """For each row of ``before`` the index in ``rows`` of the one that says the same, -1 where there is none."""
    if not len(rows) or not len(before):
        return np.full(len(before), -1, dtype=np.int64)
    order = np.argsort(rows["key"], kind="stable")
    keys = rows["key"][order]
    at = np.minimum(np.searchsorted(keys, before["key"]), len(keys) - 1)
    index = order[at]
    same = before["live"] & (keys[at] == before["key"]) & (rows["content"][index] == before["content"])
    return np.where(same, index, -1).astype(np.int64)


def write(  # one file after the other, in pieces: a segment may be larger than memory should be
    files: tuple[File, File, File],
    old: Sequence[tuple[Path, Segment, npt.NDArray[np.bool_]]],
    fresh: Keys,
    load: Load,
    embedder: Embedder,
) -> None:
    """A segment of the rows of ``old`` ones (their folder, and a mask of what is taken) and of ``fresh`` trends."""
    lines, vectors, owners = files
    row = 0
    packed = zstandard.ZstdCompressor().compressobj()
    for folder, segment, mask in old:
        number = np.cumsum(mask) - 1 + row  # of each row that is taken
        with (folder / segment.files[0]).open("rb") as file:
            for keep, line in zip(mask.tolist(), read_lines(file), strict=True):
                if keep:
                    lines.write(packed.compress(line + b"\n"))
        owned = np.fromfile(folder / segment.files[2], dtype="<i4")
        taken = mask[owned]
        owners.write(number[owned[taken]].astype("<i4").tobytes())
        with (folder / segment.files[1]).open("rb") as file:
            for start in range(0, len(owned), _CHUNK):
                part = taken[start : start + _CHUNK]
                read = np.frombuffer(file.read(4 * embedder.dim * len(part)), dtype="<f4").reshape(-1, embedder.dim)
                vectors.write(read[part].tobytes())
        row += int(mask.sum())
    for start in range(0, len(fresh), _CHUNK):
        trends = load(fresh[start : start + _CHUNK])
        for trend in trends:
            lines.write(packed.compress(trend.model_dump_json(exclude=RATED).encode() + b"\n"))
        numbers, texts = zip(*_texts(trends), strict=True)
        vectors.write(np.ascontiguousarray(embedder.embed(texts), dtype="<f4").tobytes())
        owners.write((np.array(numbers) + row).astype("<i4").tobytes())
        row += len(trends)
    lines.write(packed.flush())


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a ``.trends.jsonl.zst``.

    Raises:
        ValueError: they are more than any snapshot has.
        zstandard.ZstdError: the file is damaged.
    """
    size = 0
    with zstandard.ZstdDecompressor().stream_reader(file) as reader:
        lines = io.BufferedReader(reader, 1 << 20)
        while line := lines.readline(MAX_LINE_BYTES):
            size += len(line)
            if len(line) == MAX_LINE_BYTES or size > MAX_TRENDS_BYTES:
                raise ValueError("too long")
            yield line.rstrip(b"\n")


class Lines:
    """The lines of a ``.trends.jsonl.zst`` in memory, as they are: a line becomes a trend only when it is asked for.

    Raises:
        ValueError: they are more than any snapshot has, or the last one is cut off.
        zstandard.ZstdError: the file is damaged.
    """

    def __init__(self, packed: bytes) -> None:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            parts, size = [], 0
            while part := reader.read(1 << 22):
                parts.append(part)
                size += len(part)
                if size > MAX_TRENDS_BYTES:
                    raise ValueError("too long")
        self._text = b"".join(parts)
        self._ends = np.flatnonzero(np.frombuffer(self._text, dtype=np.uint8) == ord("\n"))
        if not self._text.endswith(b"\n") and self._text:
            raise ValueError("cut off")
        if len(self._ends) and int(np.diff(self._ends, prepend=-1).max()) >= MAX_LINE_BYTES:
            raise ValueError("too long")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, at: int) -> bytes:
        return self._text[int(self._ends[at - 1]) + 1 if at else 0 : int(self._ends[at])]


def rows_in(data: bytes, count: int) -> Rows:
    """The ``count`` rows of a ``rows.npy``.

    Raises:
        Exception: it is not one of so many rows, or they have values that no trend has; numpy raises all sorts.
    """
    (rows,) = arrays_in(data, (ROW, 1))
    if len(rows) != count:
        raise ValueError("it does not fit the segments")
    possible = (
        (rows["live"].view(np.uint8) <= 1)
        & (rows["stage"] < len(STAGES))
        & (rows["score"] >= 0)
        & (rows["score"] <= 1)
        & np.isfinite(rows["velocity"])
        & (rows["last_seen"] >= _TIMES[0])
        & (rows["last_seen"] <= _TIMES[1])
    )
    if not possible.all():
        raise ValueError("it has values that no trend has")
    return rows


def owners_in(data: bytes, rows: int) -> npt.NDArray[np.int64]:
    """int64 (vectors,): which row within the segment each vector is of, ascending; every row has at least one.

    Raises:
        ValueError: they are not of so many rows.
    """
    owners = np.frombuffer(data, dtype="<i4")
    steps = np.diff(owners, prepend=np.int32(-1), append=np.int32(rows))
    if ((steps[:-1] < 0) | (steps[:-1] > 1)).any() or steps[-1] != 1 or (len(owners) and owners[0] != 0):
        raise ValueError("they do not fit the segment's rows")
    return owners.astype(np.int64)


def vectors_in(data: bytes, count: int, dim: int) -> Vectors:
    """float32 (count, dim), each of length 1 at most.

    Raises:
        ValueError: they are not so many, or too long or not a number, so that no cosine would be one.
    """
    vectors = np.frombuffer(data, dtype="<f4")
    if vectors.size != count * dim:
        raise ValueError("they are not as many as their owners")
    vectors = vectors.reshape(count, dim)
    if not normalised(vectors):
        raise ValueError("they are not normalised")
    return vectors


def normalised(vectors: Vectors) -> bool:
    """Whether each of (n, dim) is of length 1 at most; what is not a number is not."""
    return bool((np.einsum("ij,ij->i", vectors, vectors) <= 1 + _ROUNDING).all())


def rated(line: bytes, row: Any) -> Trend:
    """The trend of a line and of its row.

    Raises:
        Exception: it is no trend's, or not that row's; parsers raise all sorts.
    """
    trend = Trend.model_validate(
        json.loads(line)
        | {
            "score": float(row["score"]),
            "velocity": float(row["velocity"]),
            "stage": STAGES[row["stage"]],
            "last_seen": moment(int(row["last_seen"])),
        }
    )
    if key_of(trend.id) != row["key"]:
        raise ValueError(f"{ROWS_FILE} has another trend in its place")
    return trend


def _texts(trends: Sequence[Trend]) -> Iterator[tuple[int, str]]:
    """What is embedded: (row, text). The phrase alone, what it is about, and that in English words where it isn't;
    each row's scenes come last."""
    for row, trend in enumerate(trends):
        yield row, trend.phrase
        about = f"{trend.phrase}. {trend.summary}" if trend.summary else trend.phrase
        if trend.summary:
            yield row, about
        if english := gloss(about, trend.language):
            yield row, english
        yield from ((row, scene) for scene in trend.scenes)
