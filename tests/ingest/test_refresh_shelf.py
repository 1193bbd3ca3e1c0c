"""Refreshes that put their snapshots on a shelf, on several machines, with a shelf that may be away."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import ingest.refresh
from indexes.manifest import current_id
from indexes.shelf import Shelf
from indexes.snapshot import open_newest
from ingest.commands import refresh as command
from ingest.fetcher import Fetcher
from ingest.refresh import run_refresh
from tests.fakes import HashEmbedder
from tests.indexes.shelves import FailingFileSystem
from tests.ingest.fakes import CannedFetcher
from tests.ingest.test_refresh import TAGS_URL, tags
from trendrag.settings import IngestSettings, Settings, SnapshotSettings

SOURCES = '[[source]]\nid = "tags"\ntype = "mastodon"\nhost = "m.example"\n'
URL = "failing://shelf"


class Web:
    """What the one source says, to every machine."""

    names: tuple[str, ...] = ("LatteArt",)

    @asynccontextmanager
    async def open(self, *_: object) -> AsyncIterator[Fetcher]:
        yield CannedFetcher({TAGS_URL: tags(*self.names)}, datetime.now(UTC))


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    web = Web()
    monkeypatch.setattr(ingest.refresh, "HttpFetcher", web)
    monkeypatch.setattr(ingest.refresh, "open_embedder", lambda _settings: HashEmbedder())
    monkeypatch.setattr("indexes.embedder.open_embedder", lambda _settings: HashEmbedder())  # for the scenes
    FailingFileSystem.reset()
    return web


def machine(folder: Path) -> Settings:
    """One of those that share a database and a shelf."""
    database = SecretStr(f"sqlite:///{folder.parent}/shared.sqlite3")
    settings = Settings(
        data_dir=folder,
        snapshots=SnapshotSettings(url=SecretStr(URL)),
        ingest=IngestSettings(database_url=database),
    )
    folder.mkdir()
    settings.own_sources_file.write_text(SOURCES)
    return settings


def phrases(settings: Settings) -> set[str]:
    return {trend.phrase for trend in open_newest(settings.snapshots_dir, HashEmbedder()).trends}


async def test_a_snapshot_that_could_not_be_put_there_is_put_there_by_the_next_refresh(
    web: Web, tmp_path: Path
) -> None:
    ours = machine(tmp_path / "ours")
    FailingFileSystem.left = 0
    report = await run_refresh(ours)
    assert report.published
    assert phrases(ours) == {"Latte Art"}
    assert report.shelved
    assert report.shelved.error
    assert URL in report.shelved.error
    FailingFileSystem.left = None
    assert Shelf(URL).current() is None
    report = await run_refresh(ours)
    assert not report.published  # nothing has changed since
    assert report.shelved
    assert (report.shelved.error, report.shelved.files) == (None, 6)
    pointer = Shelf(URL).current()
    assert pointer
    assert pointer.id == current_id(ours.snapshots_dir)
    report = await run_refresh(ours)
    assert report.shelved
    assert (report.shelved.error, report.shelved.files) == (None, 0)


async def test_who_leads_next_begins_where_the_other_machine_ended(web: Web, tmp_path: Path) -> None:
    ours, theirs = machine(tmp_path / "ours"), machine(tmp_path / "theirs")
    await run_refresh(ours)
    first = current_id(ours.snapshots_dir)
    report = await run_refresh(theirs)
    assert not report.published  # what ours has published is here, and says the same
    assert current_id(theirs.snapshots_dir) == first
    web.names = ("LatteArt", "FirstSnow")
    await run_refresh(theirs, everything=True)
    await run_refresh(ours)
    assert current_id(ours.snapshots_dir) == current_id(theirs.snapshots_dir) != first
    assert phrases(ours) == {"Latte Art", "First Snow"}


async def test_a_sample_stays_here(web: Web, tmp_path: Path) -> None:
    ours = machine(tmp_path / "ours")
    report = await run_refresh(ours, sample=True)
    assert report.published
    assert report.shelved is None
    assert Shelf(URL).current() is None


def test_the_command_says_when_replicas_do_not_get_it(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = machine(tmp_path / "ours")
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(ours.data_dir))
    monkeypatch.setenv("TRENDRAG_SNAPSHOTS__URL", URL)
    monkeypatch.setenv("TRENDRAG_INGEST__DATABASE_URL", f"sqlite:///{tmp_path}/shared.sqlite3")
    FailingFileSystem.left = 0
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert (current_id(ours.snapshots_dir) or "no id") in result.stdout
    assert "Replicas elsewhere" in result.stderr
    assert URL in result.stderr
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 1
    assert URL in json.loads(result.stdout)["shelf"]["error"]
    FailingFileSystem.left = None
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert f"On {URL}: 6 files copied" in result.stdout
