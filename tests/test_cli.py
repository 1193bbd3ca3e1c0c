"""The command as a user runs it: a process of its own, the real embedded engine, sample trends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trendrag.settings import default_data_dir
from trendrag.types import CAPTION_EVENT, CandidateDone, Delta, Described, Done, Highlight, TrendsRetrieved

PHOTOS = Path(__file__).parent / "photos"
TRENDRAG = Path(sys.executable).parent / "trendrag"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the weights and a snapshot of the sample."""
    directory = tmp_path_factory.mktemp("data")
    (directory / "models").symlink_to(default_data_dir() / "models")
    result = run(directory, "refresh", "--sample")
    assert result.returncode == 0, result.stderr
    return directory


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
    return clean | {"TRENDRAG_DATA_DIR": str(data_dir), "COLUMNS": "120"} | settings


def run(data_dir: Path, *args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [TRENDRAG, *args],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_caption_json_is_one_event_a_line(data_dir: Path) -> None:
    result = run(
        data_dir, "caption", PHOTOS / "coffee.jpg", "--note", "a slow rainy morning", "--candidates", "2", "--json"
    )
    assert result.returncode == 0, result.stderr
    events = [CAPTION_EVENT.validate_json(line) for line in result.stdout.splitlines()]
    kinds = [type(event) for event in events]
    assert kinds[:2] == [Described, TrendsRetrieved]
    assert kinds[-1] is Done
    assert kinds.count(CandidateDone) == 2
    assert kinds.count(Delta) > 4  # it streamed
    retrieved, done = events[1], events[-1]
    assert isinstance(retrieved, TrendsRetrieved)
    assert isinstance(done, Done)
    assert retrieved.snapshot is not None
    assert retrieved.snapshot.origin == "sample"
    assert done.draft
    assert done.snapshot_id == retrieved.snapshot.id
    texts = {event.candidate: event.text for event in events if isinstance(event, CandidateDone)}
    known = {found.trend.id for found in retrieved.trends}
    highlights = [event for event in events if isinstance(event, Highlight)]
    assert highlights
    for highlight in highlights:
        assert highlight.trend_id in known
        assert texts[highlight.candidate][highlight.start : highlight.end].strip()


def test_caption_takes_wishes_changes_and_another_try(data_dir: Path) -> None:
    arguments = ("caption", PHOTOS / "coffee.jpg", "--note", "slow sunday with my espresso", "--no-trends")
    asked = run(data_dir, *arguments, "--include", "my shop", "--no-emoji", "--k", "3", "--length", "short", "--json")
    assert asked.returncode == 0, asked.stderr
    first = next(
        done
        for line in asked.stdout.splitlines()
        if isinstance(done := CAPTION_EVENT.validate_json(line), CandidateDone)
    )
    assert "my shop" in first.text
    assert (first.missing, len(first.text) <= 100) == ((), True)
    other = run(data_dir, *arguments, "--unlike", first.text)
    assert other.returncode == 0, other.stderr
    assert first.text not in other.stdout
    refused = run(data_dir, *arguments, "--previous", first.text, "--change", "in French")
    assert refused.returncode == 1
    assert "The draft engine can't make this change" in refused.stderr
    assert "go together" in run(data_dir, *arguments, "--change", "shorter").stderr
    too_long = run(data_dir, *arguments, "--platform", "x", "--max-chars", "300")
    assert "has at most 280 characters" in too_long.stderr


def test_an_engine_that_cannot_judge_trends_offers_them_as_found(data_dir: Path) -> None:
    arguments = ("caption", PHOTOS / "coffee.jpg", "--note", "a slow rainy morning")
    asked = {"TRENDRAG_RETRIEVAL__JUDGE": "model"}
    result = run(data_dir, *arguments, "--json", **asked)
    assert result.returncode == 0, result.stderr
    events = [CAPTION_EVENT.validate_json(line) for line in result.stdout.splitlines()]
    retrieved = next(event for event in events if isinstance(event, TrendsRetrieved))
    assert retrieved.trends
    assert retrieved.judged == "failed"
    assert isinstance(events[-1], Done)
    assert "without the model's last look" in result.stderr
    assert "could not look at the trends" in run(data_dir, *arguments, **asked).stdout


def test_caption_for_people_shows_text_provenance_and_what_it_is(data_dir: Path) -> None:
    result = run(data_dir, "caption", PHOTOS / "coffee.jpg", "--note", "a slow rainy morning")
    assert result.returncode == 0, result.stderr
    assert "sample trends, recorded 20" in result.stdout
    assert "draft by" in result.stdout
    assert "https://" in result.stdout


def test_trends_shows_what_would_be_offered(data_dir: Path) -> None:
    result = run(data_dir, "trends", "coffee on a rainy day", "--json")
    answer = json.loads(result.stdout)
    assert answer["trends"]
    for found in answer["trends"]:
        assert found["trend"]["evidence"]
    table = run(data_dir, "trends", "coffee on a rainy day")
    assert answer["trends"][0]["trend"]["phrase"] in table.stdout
    assert " ago" not in table.stdout  # ages in a sample would say something about today
    assert "sample trends, recorded" in table.stdout


def test_a_region_counts_in_either_case_with_and_without_a_query(data_dir: Path) -> None:
    for query in (["coffee on a rainy day"], []):
        answers = [json.loads(run(data_dir, "trends", *query, "--region", r, "--json").stdout) for r in ("us", "US")]
        assert answers[0]["trends"] == answers[1]["trends"]
        regions = {found["trend"]["region"] for found in answers[0]["trends"]}
        assert regions <= {None, "US"}
    result = run(data_dir, "trends", "coffee", "--region", "USA")
    assert result.returncode == 1
    assert "--region" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_trend_is_an_answer(data_dir: Path) -> None:
    result = run(data_dir, "trends", "a spreadsheet about the depreciation of office furniture")
    assert result.returncode == 0
    assert "No trend fits" in result.stdout


def test_without_a_snapshot_captions_are_written_without_trends(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    result = run(tmp_path, "caption", PHOTOS / "cat.jpg", "--note", "my cat Chelsea")
    assert result.returncode == 0, result.stderr
    assert "trendrag refresh" in result.stdout
    result = run(tmp_path, "trends", "cat")
    assert result.returncode == 1
    assert "trendrag refresh" in result.stderr


def test_a_corrupt_snapshot_is_passed_over_and_named(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    assert run(tmp_path, "refresh", "--sample").returncode == 0
    assert run(tmp_path, "refresh", "--sample").returncode == 0
    newest = tmp_path / "snapshots" / (tmp_path / "snapshots" / "CURRENT").read_text().strip()
    (newest / "rows.npy").write_bytes(b"rubbish")
    result = run(tmp_path, "caption", PHOTOS / "coffee.jpg")
    assert result.returncode == 0, result.stderr
    assert newest.name in result.stdout
    assert "rows.npy" in result.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"this is text", "image"), (b"", "image"), ((PHOTOS / "coffee.jpg").read_bytes()[:5000], "cut short")],
    ids=["text", "empty", "truncated"],
)
def test_what_is_no_image_is_refused_in_one_line(data_dir: Path, tmp_path: Path, content: bytes, says: str) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(content)
    result = run(data_dir, "caption", photo)
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_note_that_is_too_long_is_refused(data_dir: Path) -> None:
    result = run(data_dir, "caption", PHOTOS / "coffee.jpg", "--note", "x" * 100_000)
    assert result.returncode == 1
    assert "--note" in result.stderr
    assert "4000" in result.stderr


@pytest.mark.parametrize("note", ["", "  ", "🙂 שלום \u202e abc", '"quotes" \\ and \n lines'])
def test_odd_notes_are_fine(data_dir: Path, note: str) -> None:
    result = run(data_dir, "caption", PHOTOS / "coffee.jpg", "--note", note, "--json")
    assert result.returncode == 0, result.stderr


def test_a_model_server_that_is_not_there_is_named(data_dir: Path, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    result = run(
        data_dir,
        "caption",
        PHOTOS / "coffee.jpg",
        TRENDRAG_MODEL__PROVIDER="openai",
        TRENDRAG_MODEL__BASE_URL=url,
        TRENDRAG_MODEL__NAME="some-model",
    )
    assert result.returncode == 1
    assert url in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    result = run(tmp_path, "caption", PHOTOS / "coffee.jpg")
    assert result.returncode == 1
    assert "trendrag models fetch" in result.stderr


def test_settings_that_are_wrong_are_named(data_dir: Path) -> None:
    result = run(data_dir, "caption", PHOTOS / "coffee.jpg", TRENDRAG_RETRIEVAL__K="many")
    assert result.returncode == 1
    assert "TRENDRAG_RETRIEVAL__K" in result.stderr


def test_wrong_usage_exits_with_2(data_dir: Path) -> None:
    assert run(data_dir, "caption", PHOTOS / "coffee.jpg", "--candidates", "9").returncode == 2
    assert run(data_dir, "no-such-command").returncode == 2
    assert run(data_dir, "demo", "--json").returncode == 2


@pytest.fixture
def server(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603
        [TRENDRAG, "serve", "--port", "0"], env=environment(data_dir), stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_cleanly(server: subprocess.Popen[str], sent: signal.Signals) -> None:
    assert server.stderr is not None
    for line in server.stderr:
        if "startup complete" in line:
            break
    server.send_signal(sent)
    _, rest = server.communicate(timeout=60)
    assert "Traceback" not in rest
    assert server.returncode in (0, 130, -signal.SIGINT, -signal.SIGTERM)


def test_a_taken_port_is_named(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(data_dir, "serve", "--port", str(port))
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "--port" in result.stderr


def no_source_in_reach(folder: Path) -> dict[str, str]:
    sources = folder / "sources.toml"
    sources.write_text('[[source]]\nid = "away"\ntype = "rss"\nurl = "http://127.0.0.1:9/"\npublisher = "Away"\n')
    return {"TRENDRAG_INGEST__SOURCES_FILE": str(sources)}


def test_demo_once_json_is_events_only(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    result = run(tmp_path, "demo", "--once", "--json", **no_source_in_reach(tmp_path))
    assert result.returncode == 0, result.stderr
    events = [CAPTION_EVENT.validate_json(line) for line in result.stdout.splitlines()]
    assert isinstance(events[-1], Done)
    retrieved = next(event for event in events if isinstance(event, TrendsRetrieved))
    assert retrieved.trends
    assert retrieved.snapshot is not None
    assert retrieved.snapshot.label.startswith("sample trends, recorded")
    assert "bundled sample" in result.stderr


def test_a_sample_never_covers_live_trends(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    assert run(tmp_path, "refresh", "--sample").returncode == 0
    current = tmp_path / "snapshots" / (tmp_path / "snapshots" / "CURRENT").read_text()
    manifest = current / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"origin": "sample"', '"origin": "live"'))
    result = run(tmp_path, "refresh", "--or-sample", **no_source_in_reach(tmp_path))
    assert result.returncode == 1
    assert "No source could be read" in result.stderr
    assert (tmp_path / "snapshots" / "CURRENT").read_text() == current.name
