import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexes.manifest import current_id, snapshot_ids
from indexes.publishing import publish, publish_rows, published
from indexes.segments import rows_of
from indexes.shelf import Shelf
from indexes.snapshot_commands import snapshot
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.shelves import FailingFileSystem
from trendrag.errors import ConfigurationError, CorruptSnapshot, NoSnapshot, ShelfError

EMBEDDER = HashEmbedder()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("indexes.embedder.open_embedder", lambda settings: EMBEDDER)
    return tmp_path / "snapshots"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(snapshot, arguments)


def publish_at(folder: Path, hours: int, *phrases: str) -> str:
    trends = [make_trend(phrase) for phrase in phrases]
    now = NOW + timedelta(hours=hours)
    return publish(folder, trends, EMBEDDER, origin="live", recorded_at=NOW, now=now, keep=9).id


def damage(folder: Path, each: str, name: str) -> None:
    (file,) = (folder / each).glob(f"*{name}")
    file.write_bytes(file.read_bytes()[:-1])


def test_before_anything_is_published_every_command_says_what_to_do(folder: Path) -> None:
    for name in ("list", "verify"):
        result = run(name)
        assert result.exit_code == 0
        assert "trendrag refresh" in result.stdout
    for name in ("show", "rollback"):
        assert isinstance(run(name).exception, NoSnapshot)


def test_list_marks_the_current_one_and_counts_shared_files_once(folder: Path) -> None:
    trends = [make_trend(phrase) for phrase in ("tea", "snow")]
    first = publish(folder, trends, EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=9).id
    second = publish_rows(
        folder,
        rows_of(trends),
        lambda keys: [],
        EMBEDDER,
        before=published(folder, EMBEDDER),
        origin="live",
        recorded_at=NOW,
        now=NOW + timedelta(hours=1),
        keep=9,
    ).id
    told = json.loads(run("list", "--json").stdout)
    assert told["current"] == second
    assert [each["id"] for each in told["snapshots"]] == [second, first]
    assert [each["current"] for each in told["snapshots"]] == [True, False]
    assert [each["count"] for each in told["snapshots"]] == [2, 2]
    shared = sum(file.stat().st_size for file in (folder / first).glob(f"{first}.*"))
    assert told["bytes"] == sum(each["bytes"] for each in told["snapshots"]) - shared
    assert second in run("list").stdout


def test_list_goes_on_where_a_manifest_can_not_be_read(folder: Path) -> None:
    good, bad = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    damage(folder, bad, "manifest.json")
    said = run("list").stdout
    assert good in said
    assert "manifest can't be read" in said


def test_verify_names_every_file_that_is_damaged(folder: Path) -> None:
    good, bad = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    assert run("verify").exit_code == 0
    damage(folder, bad, ".vectors")
    damage(folder, bad, "withheld.jsonl.zst")
    result = run("verify", "--json")
    assert result.exit_code == 1
    told = {each["id"]: each["faults"] for each in json.loads(result.stdout)}
    assert told[good] == []
    assert [fault.split(": ")[1].split(" ")[0] for fault in told[bad]] == [f"{bad}.vectors", "withheld.jsonl.zst"]
    assert run("verify", good).exit_code == 0
    assert isinstance(run("verify", "20990101").exception, NoSnapshot)


def test_rollback_passes_over_what_is_damaged(folder: Path) -> None:
    oldest, damaged, newest = (publish_at(folder, hour, f"tea {hour}") for hour in range(3))
    damage(folder, damaged, ".vectors")
    result = run("rollback")
    assert result.exit_code == 0
    assert damaged in result.stderr
    assert newest in result.stdout
    assert current_id(folder) == oldest
    assert isinstance(run("rollback").exception, NoSnapshot)
    assert run("rollback", newest).exit_code == 0
    assert current_id(folder) == newest
    assert snapshot_ids(folder) == [newest, damaged, oldest]


def test_rollback_to_a_damaged_one_changes_nothing(folder: Path) -> None:
    damaged, newest = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    damage(folder, damaged, "rows.npy")
    assert isinstance(run("rollback", damaged).exception, CorruptSnapshot)
    assert current_id(folder) == newest


def test_rollback_refuses_vectors_of_another_embedder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign, newest = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    manifest = folder / foreign / "manifest.json"
    told = json.loads(manifest.read_text())
    told["embedder"]["sha256"], told["seal"] = "f" * 64, None
    manifest.write_text(json.dumps(told))
    result = run("rollback", foreign)
    assert isinstance(result.exception, CorruptSnapshot)
    assert "its vectors were made by" in result.stderr
    assert current_id(folder) == newest


def test_show_tells_the_facts_and_the_strongest_trends(folder: Path) -> None:
    first, _ = publish_at(folder, 0, "tea", "snow [bold]not markup[/]"), publish_at(folder, 1, "coffee")
    told = json.loads(run("show", first, "--json", "-n", "1").stdout)
    assert (told["id"], told["count"], len(told["trends"])) == (first, 2, 1)
    assert "[bold]not markup[/]" in run("show", first).stdout
    assert "coffee" in run("show").stdout
    damage(folder, first, ".owners")
    assert isinstance(run("show", first).exception, CorruptSnapshot)


def test_an_id_may_be_cut_short_where_only_one_begins_so(folder: Path) -> None:
    first, second = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    short = first[:14]
    assert not second.startswith(short)
    assert run("show", short).exit_code == 0
    assert isinstance(run("show", "20").exception, NoSnapshot)
    assert isinstance(run("verify", "").exception, NoSnapshot)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("TRENDRAG_SNAPSHOTS__URL", "failing://shelf")
    FailingFileSystem.reset()
    return Shelf("failing://shelf")


def test_push_and_pull_say_what_they_did(
    folder: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("push", "pull"):
        assert isinstance(run(name).exception, NoSnapshot)
    first, second = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    assert f"Snapshot {second} is current at failing://shelf (6 files copied" in run("push").stdout
    assert "nothing to do" in run("push").stdout
    assert "(6 files copied" in run("push", "--all").stdout
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path / "elsewhere"))
    assert f"Snapshot {second} is in use (6 files copied" in run("pull").stdout
    assert "as before" in run("pull").stdout
    assert list((tmp_path / "elsewhere" / "models").glob("concepts-*.npy"))  # as after a first refresh
    assert current_id(tmp_path / "elsewhere" / "snapshots") == second
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(folder.parent))
    run("push", first)
    told = json.loads(run("list", "--json").stdout)
    assert told["shelf"] == {"url": "failing://shelf", "current": first, "error": None}
    assert told["current"] == second
    assert f"failing://shelf: {first}" in run("list").stdout


def test_rollback_moves_the_shelf_too_and_says_where_it_could_not(folder: Path, shelf: Shelf) -> None:
    first, second = publish_at(folder, 0, "tea"), publish_at(folder, 1, "coffee")
    run("push")
    result = run("rollback")
    assert "failing://shelf" in result.stdout
    pointer = shelf.current()
    assert pointer
    assert pointer.id == first
    FailingFileSystem.left = 0
    result = run("rollback", second)
    assert isinstance(result.exception, ShelfError)
    assert "trendrag snapshot push" in str(result.exception)
    assert current_id(folder) == second
    FailingFileSystem.left = 0
    assert "failing://shelf" in run("list").stderr


def test_without_a_url_there_is_nowhere_to_copy_to(folder: Path) -> None:
    publish_at(folder, 0, "tea")
    for name in ("push", "pull"):
        result = run(name)
        assert isinstance(result.exception, ConfigurationError)
        assert "TRENDRAG_SNAPSHOTS__URL" in str(result.exception)
    assert json.loads(run("list", "--json").stdout)["shelf"] is None
