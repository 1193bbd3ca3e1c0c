"""Snapshots that share segments say what snapshots of their own would."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import faiss
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexes.manifest import current_id, current_manifest, snapshot_ids
from indexes.publishing import publish, publish_rows, published
from indexes.segments import ROWS_FILE, Keys, rows_of
from indexes.snapshot import Snapshot, faults, open_newest, open_snapshot
from indexes.table import Table
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.errors import CorruptSnapshot
from trendrag.types import SnapshotInfo, Trend

EMBEDDER = HashEmbedder()
HOUR = timedelta(hours=1)
PHRASES = [f"{one} {other}" for one in ("latte", "kayak", "lantern", "chess") for other in ("art", "night", "picnic")]


def follow(directory: Path, trends: Sequence[Trend], *, hours: float = 0, keep: int = 3) -> SnapshotInfo:
    """Publishes ``trends`` after what is current there."""
    rows = rows_of(trends)
    by_key = dict(zip(rows["key"].tolist(), trends, strict=True))

    def load(keys: Keys) -> list[Trend]:
        return [by_key[key] for key in keys.tolist()]

    return publish_rows(
        directory,
        rows,
        load,
        EMBEDDER,
        before=published(directory, EMBEDDER),
        origin="live",
        recorded_at=NOW,
        now=NOW + hours * HOUR,
        keep=keep,
    )


def said(snapshot: Snapshot) -> tuple[dict[str, Trend], list[tuple[str, float]]]:
    """Its trends, and how near each is to a query."""
    cosines = Table(snapshot, None).signals("latte night in the park", EMBEDDER).cosine.tolist()
    near = [(trend.id, round(cosine, 5)) for trend, cosine in zip(snapshot.trends, cosines, strict=True)]
    return {trend.id: trend for trend in snapshot.trends}, sorted(near)


@st.composite
def worlds(draw: st.DrawFn) -> list[list[Trend]]:
    """What trends from time to time; of each trend a few versions."""
    rounds = []
    for hour in range(draw(st.integers(1, 7))):
        chosen = draw(st.lists(st.sampled_from(PHRASES), unique=True, max_size=len(PHRASES)))
        rounds.append(
            [
                make_trend(
                    phrase,
                    summary=draw(st.sampled_from(["", "", "it is night in the park", "all about art"])),
                    score=draw(st.sampled_from([0.1, 0.5, 0.9])),
                    stage=draw(st.sampled_from(["rising", "fading"])),
                    last_seen=NOW + draw(st.integers(0, hour)) * HOUR,
                )
                for phrase in chosen
            ]
        )
    return rounds


@given(worlds())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_one_snapshot_after_the_other_says_what_a_whole_one_would(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Trend]]
) -> None:
    shared, whole = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("whole")
    for hour, trends in enumerate(rounds):
        info = follow(shared, trends, hours=hour)
        publish(whole, trends, EMBEDDER, origin="live", recorded_at=NOW, now=NOW + hour * HOUR, keep=1)
        assert said(open_snapshot(shared / info.id, EMBEDDER)) == said(open_newest(whole, EMBEDDER))
        manifest = current_manifest(shared)
        assert manifest is not None
        rows = np.load(shared / info.id / ROWS_FILE, allow_pickle=False)
        assert len(manifest.segments) <= 1 + np.log2(max(len(trends), 1))
        assert 2 * np.count_nonzero(rows["live"]) >= len(rows)
    for each in snapshot_ids(shared):  # older ones are as good as they were
        open_snapshot(shared / each, EMBEDDER)


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    trends = [make_trend(phrase) for phrase in PHRASES]
    first = follow(tmp_path, trends)
    second = follow(tmp_path, [trend.model_copy(update={"score": 0.2}) for trend in trends[1:]], hours=1)
    third = follow(tmp_path, [*trends[1:], make_trend("goat yoga")], hours=2)
    vectors = f"{first.id}.vectors"
    inodes = {(tmp_path / each.id / vectors).stat().st_ino for each in (first, second, third)}
    assert len(inodes) == 1
    assert {path.name for path in (tmp_path / third.id).glob("*.vectors")} == {vectors, f"{third.id}.vectors"}
    assert {trend.score for trend in open_snapshot(tmp_path / second.id, EMBEDDER).trends} == {0.2}


def test_a_snapshot_stands_by_itself_where_the_others_are_gone(tmp_path: Path) -> None:
    first = follow(tmp_path, [make_trend(phrase) for phrase in PHRASES])
    second = follow(tmp_path, [make_trend(phrase) for phrase in PHRASES[1:]], hours=1)
    shutil.rmtree(tmp_path / first.id)
    assert len(open_snapshot(tmp_path / second.id, EMBEDDER).trends) == len(PHRASES) - 1


def test_where_there_are_no_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    first = follow(tmp_path, [make_trend(phrase) for phrase in PHRASES])
    monkeypatch.setattr("os.link", refuse)
    second = follow(tmp_path, [make_trend(phrase) for phrase in PHRASES[1:]], hours=1)
    inodes = {(tmp_path / each.id / f"{first.id}.vectors").stat().st_ino for each in (first, second)}
    assert len(inodes) == 2
    assert len(open_snapshot(tmp_path / second.id, EMBEDDER).trends) == len(PHRASES) - 1


@pytest.mark.parametrize(
    "name", ["*.vectors", "*.trends.jsonl.zst", "*.owners", "*.facts", "rows.npy", "manifest.json"]
)
def test_what_is_damaged_is_never_passed_on(tmp_path: Path, name: str) -> None:
    trends = [make_trend(phrase) for phrase in PHRASES]
    first = follow(tmp_path, trends)
    (file,) = (tmp_path / first.id).glob(name)
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    assert published(tmp_path, EMBEDDER) is None
    second = follow(tmp_path, trends, hours=1)
    assert len(open_snapshot(tmp_path / second.id, EMBEDDER).trends) == len(trends)


def test_a_clock_that_was_set_back_does_not_make_the_new_snapshot_an_old_one(tmp_path: Path) -> None:
    ids = [follow(tmp_path, [make_trend("tea")], hours=hours, keep=2).id for hours in (1, 2, 3)]
    late = follow(tmp_path, [make_trend("coffee")], hours=-5, keep=2)
    assert current_id(tmp_path) == late.id
    assert [trend.phrase for trend in open_newest(tmp_path, EMBEDDER).trends] == ["coffee"]
    assert set(snapshot_ids(tmp_path)) == {late.id, ids[-1]}
    assert follow(tmp_path, [make_trend("coffee")], hours=-4, keep=1).id == current_id(tmp_path)
    assert len(snapshot_ids(tmp_path)) == 1


def test_vectors_of_another_embedder_are_not_shared(tmp_path: Path) -> None:
    follow(tmp_path, [make_trend("tea")])
    other = HashEmbedder()
    other.sha256 = "1" * 64
    assert published(tmp_path, other) is None


def test_rows_that_do_not_fit_the_segments_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    good = follow(one, [make_trend(phrase) for phrase in PHRASES])
    more = follow(other, [make_trend(phrase) for phrase in PHRASES[1:]])
    path = one / good.id / "manifest.json"
    shutil.copy(other / more.id / ROWS_FILE, one / good.id / ROWS_FILE)
    texts = [(folder / info.id / "manifest.json").read_text() for folder, info in ((one, good), (other, more))]
    own, foreign = (text.split(f'"{ROWS_FILE}": "')[1][:64] for text in texts)
    manifest = json.loads(texts[0].replace(own, foreign))
    path.write_text(json.dumps(manifest | {"seal": None}))
    with pytest.raises(CorruptSnapshot, match=r"rows\.npy .* does not fit the segments"):
        open_snapshot(one / good.id, EMBEDDER)


def test_a_snapshot_from_before_facts_were_kept_is_read_and_followed(tmp_path: Path) -> None:
    trends = [make_trend(phrase) for phrase in PHRASES]
    first = follow(tmp_path, trends)
    before = said(open_newest(tmp_path, EMBEDDER))
    path = tmp_path / first.id / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][f"{first.id}.facts"]
    path.write_text(json.dumps(manifest | {"seal": None}))
    (tmp_path / first.id / f"{first.id}.facts").unlink()
    assert said(open_newest(tmp_path, EMBEDDER)) == before
    second = follow(tmp_path, trends, hours=1)
    names = {file.name for file in (tmp_path / second.id).iterdir()}
    assert {f"{first.id}.facts", f"{first.id}.vectors"} <= names
    assert said(open_newest(tmp_path, EMBEDDER)) == before


def test_a_line_that_is_no_trend_is_a_damaged_snapshot_that_verify_finds(tmp_path: Path) -> None:
    info = follow(tmp_path, [make_trend("latte art")])
    folder = tmp_path / info.id
    data = zstandard.ZstdCompressor().compress(b'{"phrase": "latte art"}\n')
    name = f"{info.id}.trends.jsonl.zst"
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"seal": None}))
    with pytest.raises(CorruptSnapshot, match=name):
        open_snapshot(folder, EMBEDDER).trends[0]
    assert [fault for fault in faults(folder, EMBEDDER) if info.id in fault]


def test_a_snapshot_of_the_first_version_is_read_and_followed(tmp_path: Path) -> None:
    trends = [make_trend("latte art", summary="all about art"), make_trend("kayak night")]
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(EMBEDDER.dim))
    texts = ["latte art", "latte art. all about art", "kayak night"]
    index.add_with_ids(EMBEDDER.embed(texts), np.array([0, 0, 1], dtype=np.int64))
    lines = "".join(trend.model_dump_json() + "\n" for trend in trends)
    files = {
        "trends.jsonl.zst": zstandard.ZstdCompressor().compress(lines.encode()),
        "index.faiss": faiss.serialize_index(index).tobytes(),
    }
    name = "20261119T120000Z-0123abcd"
    folder = tmp_path / name
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    manifest = {
        "schema_version": 1,
        "id": name,
        "created_at": NOW.isoformat(),
        "recorded_at": NOW.isoformat(),
        "origin": "live",
        "count": 2,
        "embedder": {"name": EMBEDDER.name, "sha256": EMBEDDER.sha256, "dim": EMBEDDER.dim},
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "CURRENT").write_text(name)
    before = said(open_newest(tmp_path, EMBEDDER))
    assert before[0] == {trend.id: trend for trend in trends}
    assert published(tmp_path, EMBEDDER) is None
    follow(tmp_path, trends, hours=1)
    assert said(open_newest(tmp_path, EMBEDDER)) == before


def test_trends_without_scenes_are_written_as_before_there_were_any(tmp_path: Path) -> None:
    plain, staged = make_trend("latte art"), make_trend("latte art", scenes=("a heart of foam",))
    assert "scenes" not in plain.model_dump_json()
    follow(tmp_path, [plain])
    follow(tmp_path, [staged], hours=1)
    assert list(open_newest(tmp_path, EMBEDDER).trends) == [staged]
    follow(tmp_path, [plain], hours=2)
    assert list(open_newest(tmp_path, EMBEDDER).trends) == [plain]
