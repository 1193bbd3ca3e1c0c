import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from indexes.manifest import current_id, current_manifest, snapshot_ids
from indexes.publishing import publish
from indexes.snapshot import open_newest, open_snapshot
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.errors import CorruptSnapshot, NoSnapshot
from trendrag.types import SnapshotInfo

EMBEDDER = HashEmbedder()
PHRASES = ("latte art", "first snow", "world cup", "goat yoga")


def publish_phrases(directory: Path, *phrases: str, hours: float = 0, keep: int = 5) -> SnapshotInfo:
    return publish(
        directory,
        [make_trend(phrase) for phrase in phrases],
        EMBEDDER,
        origin="live",
        recorded_at=NOW,
        now=NOW + timedelta(hours=hours),
        keep=keep,
    )


def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    info = publish_phrases(tmp_path, *PHRASES)
    snapshot = open_newest(tmp_path, EMBEDDER)
    assert snapshot.info == info
    assert list(snapshot.trends) == [make_trend(phrase) for phrase in PHRASES]
    assert current_id(tmp_path) == info.id
    assert sorted(path.name for path in (tmp_path / info.id).iterdir()) == [
        f"{info.id}.facts",
        f"{info.id}.owners",
        f"{info.id}.trends.jsonl.zst",
        f"{info.id}.vectors",
        "manifest.json",
        "rows.npy",
        "withheld.jsonl.zst",
    ]


def test_a_snapshot_says_how_long_it_took_where_that_was_measured(tmp_path: Path) -> None:
    assert current_manifest(tmp_path) is None
    publish_phrases(tmp_path, *PHRASES)
    unmeasured = current_manifest(tmp_path)
    assert unmeasured is not None
    assert unmeasured.build_seconds is None
    publish(tmp_path, [], EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=5, decided_in=7.0)
    measured = current_manifest(tmp_path)
    assert measured is not None
    assert measured.build_seconds is not None
    assert measured.build_seconds >= 7


def test_the_phrase_alone_stands_aside_where_there_is_more(tmp_path: Path) -> None:
    trends = [make_trend("latte art", summary="latte art in cups"), make_trend("snow")]
    publish(tmp_path, trends, EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=1)
    snapshot = open_newest(tmp_path, EMBEDDER)
    assert (snapshot.compared.owners.tolist(), snapshot.aside.owners.tolist()) == ([0, 1], [0])
    assert np.array_equal(snapshot.aside.vectors, EMBEDDER.embed(["latte art"]))
    assert np.array_equal(snapshot.compared.vectors, EMBEDDER.embed(["latte art. latte art in cups", "snow"]))


def test_an_empty_snapshot_is_a_snapshot(tmp_path: Path) -> None:
    publish_phrases(tmp_path)
    assert list(open_newest(tmp_path, EMBEDDER).trends) == []


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    ids = [publish_phrases(tmp_path, "tea", hours=hour, keep=3).id for hour in range(5)]
    assert snapshot_ids(tmp_path) == ids[:1:-1]
    assert current_id(tmp_path) == ids[-1]


def test_nothing_published_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoSnapshot, match="trendrag refresh"):
        open_newest(tmp_path / "nowhere", EMBEDDER)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("name", ["vectors", "trends.jsonl.zst", "owners", "facts", "rows.npy", "manifest.json"])
@pytest.mark.parametrize("damage", [flip_a_byte, truncate, Path.unlink], ids=["flipped", "truncated", "missing"])
def test_a_damaged_snapshot_is_refused_and_the_newest_good_one_is_used(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    good = publish_phrases(tmp_path, "tea")
    bad = publish_phrases(tmp_path, "coffee", hours=1)
    (file,) = (tmp_path / bad.id).glob(f"*{name}")
    damage(file)
    with pytest.raises(CorruptSnapshot, match=name):
        open_snapshot(tmp_path / bad.id, EMBEDDER)
    snapshot = open_newest(tmp_path, EMBEDDER)
    assert snapshot.info.id == good.id
    assert snapshot.info.warning is not None
    assert bad.id in snapshot.info.warning
    assert name in snapshot.info.warning


def test_when_none_verifies_the_error_names_the_fault(tmp_path: Path) -> None:
    info = publish_phrases(tmp_path, "tea")
    flip_a_byte(tmp_path / info.id / f"{info.id}.vectors")
    with pytest.raises(CorruptSnapshot, match=r"vectors.*trendrag refresh"):
        open_newest(tmp_path, EMBEDDER)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../etc", b"20990101T000000Z-deadbeef"])
def test_a_damaged_pointer_falls_back_to_the_newest(tmp_path: Path, content: bytes) -> None:
    info = publish_phrases(tmp_path, "tea")
    (tmp_path / "CURRENT").write_bytes(content)
    assert open_newest(tmp_path, EMBEDDER).info.id == info.id


def test_another_version_is_refused(tmp_path: Path) -> None:
    info = publish_phrases(tmp_path, "tea")
    path = tmp_path / info.id / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(CorruptSnapshot, match=r"manifest\.json"):
        open_newest(tmp_path, EMBEDDER)


def test_vectors_of_another_embedder_are_refused(tmp_path: Path) -> None:
    publish_phrases(tmp_path, "tea")
    other = HashEmbedder()
    other.sha256 = "1" * 64
    with pytest.raises(CorruptSnapshot, match="vectors were made by"):
        open_newest(tmp_path, other)


def test_a_crash_while_publishing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = publish_phrases(tmp_path, "tea")

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        publish_phrases(tmp_path, "coffee", hours=1)
    assert open_newest(tmp_path, EMBEDDER).info == good
    assert snapshot_ids(tmp_path) == [good.id]
