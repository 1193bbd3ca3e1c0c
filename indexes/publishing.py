"""Writes snapshots, which ``snapshot`` describes and reads: all beside the one in use, then CURRENT.

What the snapshot before has already is shared with it, so that publishing costs what has changed.
"""

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.concepts import Concepts, Links
from indexes.concepts import link as links_to
from indexes.embedder import Embedder
from indexes.facts import facts_of, pack, unpack
from indexes.files import Draft, link, sync_directory, write_file
from indexes.manifest import (
    EmbedderId,
    Manifest,
    current_id,
    info_of,
    make_current,
    remove_old,
    sealed,
    verified_manifest,
    verified_rows,
    verify_files,
)
from indexes.segments import ROW, ROWS_FILE, Load, Rows, Segment, plan, read_lines, rows_of, write
from indexes.snapshot import kinds_of
from indexes.withheld import WITHHELD_FILE, Withheld, as_file
from trendrag.errors import CorruptSnapshot
from trendrag.types import Origin, SnapshotInfo, Trend


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What a new snapshot may share with the current one, which it was read from and verified."""

    directory: Path
    manifest: Manifest
    rows: Rows

    @property
    def info(self) -> SnapshotInfo:
        return info_of(self.manifest)


def published(snapshots_dir: Path, embedder: Embedder) -> Published | None:
    """The current snapshot as far as a publisher needs it; no trend or vector is read, all files are verified.

    None where there is none, it does not verify, its vectors are another embedder's, or it has no segments.
    """
    current = current_id(snapshots_dir)
    if current is None:
        return None
    directory = snapshots_dir / current
    try:
        manifest = verified_manifest(directory, embedder)
        if manifest.schema_version == 1:
            return None
        # The rows and what was withheld are each snapshot's own; the rest may be passed on.
        named = {name for segment in manifest.segments for name in segment.files} | manifest.files.keys()
        verify_files(directory, manifest, named - {ROWS_FILE, WITHHELD_FILE})
        return Published(directory, manifest, verified_rows(directory, manifest))
    except CorruptSnapshot:
        return None


def publish(
    snapshots_dir: Path,
    trends: Sequence[Trend],
    embedder: Embedder,
    *,
    before: Published | None = None,
    origin: Origin,
    recorded_at: datetime | None,
    now: datetime,
    keep: int,
    decided_in: float | None = None,
    withheld: Sequence[Withheld] = (),
    concepts: Concepts | None = None,
) -> SnapshotInfo:
    """``publish_rows`` of ``trends`` that are all in memory."""
    rows = rows_of(trends)
    by_key = dict(zip(rows["key"].tolist(), trends, strict=True))
    return publish_rows(
        snapshots_dir,
        rows,
        lambda keys: [by_key[key] for key in keys.tolist()],
        embedder,
        before=before,
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

        def shared(file: str) -> bool:
            """Whether the snapshot before has the file, which then has a second name here."""
            if before is None or file not in before.manifest.files:
                return False
            link(before.directory / file, draft / file)
            files[file] = before.manifest.files[file]
            return True

        def write_whole(file: str, data: bytes) -> None:
            with Draft(draft / file) as made:
                made.write(data)
            files[file] = made.sha256

        moved = list(zip(old[to_do.kept :], to_do.moved, strict=True))
        segments = list(old[: to_do.kept])
        for segment in segments:
            for file in segment.files:
                shared(file)
        count = len(to_do.moved_rows) + len(to_do.fresh)
        if count:
            segments.append(Segment(name=name, rows=count))
            with contextlib.ExitStack() as opened:
                one, two, three = (opened.enter_context(Draft(draft / file)) for file in segments[-1].files)
                taken = [(before.directory, segment, mask) for segment, mask in moved] if before else []
                write((one, two, three), taken, to_do.fresh["key"], load, embedder)
            files |= {each.path.name: each.sha256 for each in (one, two, three)}
        for segment in segments:
            if not shared(segment.facts):
                write_whole(segment.facts, _facts(draft, segment))
            if concepts and concepts.digest and not shared(segment.links(concepts.digest)):
                carried = _carried(before, moved, concepts) if before and segment.name == name else []
                write_whole(segment.links(concepts.digest), _links(draft, segment, concepts, embedder.dim, carried))
        with Draft(draft / ROWS_FILE) as standing:
            np.lib.format.write_array(standing, np.concatenate([to_do.keep, to_do.moved_rows, to_do.fresh]))
        with Draft(draft / WITHHELD_FILE) as kept_back:
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
        write_file(draft / "manifest.json", sealed(manifest))
        sync_directory(draft)
        draft.rename(snapshots_dir / manifest.id)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    make_current(snapshots_dir, manifest.id)
    remove_old(snapshots_dir, manifest.id, keep)
    return info_of(manifest)


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
    own = np.where(kinds_of(owned, scenes).scenes, -1, owned - done)
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
