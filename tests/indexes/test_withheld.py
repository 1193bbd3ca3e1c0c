import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexes.commands import trends
from indexes.publishing import publish
from indexes.snapshot import open_newest
from indexes.withheld import WITHHELD_FILE, Withheld, read_withheld
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.errors import CorruptSnapshot

HELD = (
    Withheld(
        phrase="Riverside Bridge",
        reason="death",
        by="vocabulary",
        term="dead after",
        score=4.2,
        headline="Two [bold]dead[/bold] after the bridge collapse",
        last_seen=NOW,
    ),
    Withheld(
        phrase="Alda Merrow", reason="unclassifiable", by="too little text", term=None, score=None, headline=None,
        last_seen=NOW,
    ),
)  # fmt: skip


def published(directory: Path) -> Path:
    info = publish(
        directory,
        [make_trend("latte art")],
        HashEmbedder(),
        origin="live",
        recorded_at=NOW,
        now=NOW,
        keep=3,
        withheld=HELD,
    )
    return directory / info.id


def test_what_was_withheld_is_read_back_and_offered_to_nobody(tmp_path: Path) -> None:
    assert read_withheld(published(tmp_path)) == HELD
    assert [trend.phrase for trend in open_newest(tmp_path, HashEmbedder()).trends] == ["latte art"]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    directory = published(tmp_path)
    (directory / WITHHELD_FILE).write_bytes(b"something else")
    with pytest.raises(CorruptSnapshot, match="checksum"):
        read_withheld(directory)
    (directory / WITHHELD_FILE).unlink()
    with pytest.raises(CorruptSnapshot, match="can't be read"):
        read_withheld(directory)


def test_a_snapshot_from_before_has_nothing_to_say(tmp_path: Path) -> None:
    directory = published(tmp_path)
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["files"][WITHHELD_FILE]
    (directory / WITHHELD_FILE).unlink()
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert read_withheld(directory) is None


def test_the_command_shows_what_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    published(tmp_path / "snapshots")
    shown = CliRunner().invoke(trends, ["--withheld"]).output
    for part in ("Riverside Bridge", "death", "vocabulary: dead after (+4.2)", "[bold]dead[/bold]", "2 withheld"):
        assert part in shown
    answer = json.loads(CliRunner().invoke(trends, ["--withheld", "--json"]).output)
    assert [each["phrase"] for each in answer["withheld"]] == ["Riverside Bridge", "Alda Merrow"]
    assert CliRunner().invoke(trends, ["--withheld", "coffee"]).exit_code == 2
