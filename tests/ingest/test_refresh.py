"""Refreshes from end to end: sample and canned sources, real parsers, store, decisions and snapshots."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import pytest
from click.testing import CliRunner, Result

import ingest.refresh
from indexes.manifest import current_id
from indexes.snapshot import open_newest
from ingest.commands import refresh as command
from ingest.fetcher import Fetched, HttpStatus
from ingest.read import SourceReport
from ingest.refresh import RefreshReport, current_origin, refresh, run_refresh
from ingest.sample import RECORDED_AT, SampleFetcher, sample_sources
from ingest.store import ObservationStore
from tests.databases import environment
from tests.fakes import HashEmbedder
from tests.ingest.fakes import HOUR, NOW, CannedFetcher, source
from trendrag.errors import ConfigurationError, FetchError
from trendrag.settings import Settings
from trendrag.types import Trend

TAGS = source('id = "tags"\ntype = "mastodon"\nhost = "m.example"')
WIKI = source('id = "wiki"\ntype = "wikimedia"\nproject = "en.wikipedia"')
TAGS_URL = TAGS.urls(NOW)[0]


def tags(*names: str) -> bytes:
    return json.dumps([{"name": name, "history": [{"accounts": "50"}]} for name in names]).encode()


@pytest.fixture
def settings(database_settings: Settings) -> Settings:
    """Every test here runs on every database."""
    return database_settings


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """``run_refresh`` with the weightless embedder."""
    monkeypatch.setattr(ingest.refresh, "open_embedder", lambda _settings: HashEmbedder())
    monkeypatch.setattr("indexes.embedder.open_embedder", lambda _settings: HashEmbedder())  # for the scenes
    monkeypatch.setattr("indexes.concepts.make_concepts", lambda *_: None)  # whose number takes its time


async def sample_refresh(settings: Settings, store: ObservationStore) -> RefreshReport:
    return await refresh(
        settings,
        sources=sample_sources(),
        fetcher=SampleFetcher(),
        store=store,
        embedder=HashEmbedder(),
        now=RECORDED_AT,
        created_at=NOW + timedelta(days=9),
        origin="sample",
    )


def published(settings: Settings) -> dict[str, Trend]:
    return {trend.phrase: trend for trend in open_newest(settings.snapshots_dir, HashEmbedder()).trends}


async def test_the_sample_gives_many_safe_varied_trends(settings: Settings, store: ObservationStore) -> None:
    report = await sample_refresh(settings, store)
    assert all(each.error is None and each.items for each in report.sources)
    trends = published(settings)
    assert len(trends) == report.trends >= 50
    assert {
        "Latte Art",
        "slow morning routine",
        "night rocket launch",
        "Glasshouse Festival",
        "Chess in the park pavilion",
    } <= set(trends)
    assert {trend.stage for trend in trends.values()} == {"rising", "peaking", "fading"}
    assert report.snapshot is not None
    assert report.snapshot.label == "sample trends, recorded 2026-11-20"
    assert report.snapshot.created_at == NOW + timedelta(days=9)
    assert all(trend.last_seen <= RECORDED_AT for trend in trends.values())
    assert len(trends["Latte Art"].evidence) >= 4


async def test_nothing_tragic_political_or_hostile_of_the_sample_gets_through(
    settings: Settings, store: ObservationStore
) -> None:
    report = await sample_refresh(settings, store)
    text = " ".join(trend.model_dump_json() for trend in published(settings).values())
    for unwanted in (
        "Riverside",
        "Quarry",
        "enate",
        "Merrow",
        "script",
        "javascript",
        "gnore all",
        "\u202e",
        "ooooooooo",
        "tomorrow",
        "mourning",
    ):
        assert unwanted not in text
    assert {"death", "politics", "disaster", "accident", "unclassifiable", "instructions"} <= set(report.withheld)
    assert all(set(trend.phrase).isdisjoint("<>`{}\n") for trend in published(settings).values())


async def test_the_same_lists_again_change_no_trend(settings: Settings, store: ObservationStore) -> None:
    await sample_refresh(settings, store)
    before = published(settings)
    again = await sample_refresh(settings, store)
    assert sum(each.new for each in again.sources) == 0
    assert published(settings) == before


async def test_a_failing_source_costs_the_others_nothing_and_keeps_what_it_said(
    settings: Settings, store: ObservationStore
) -> None:
    second = source('id = "more"\ntype = "mastodon"\nhost = "n.example"')
    fetcher = CannedFetcher({TAGS_URL: tags("LatteArt"), second.urls(NOW)[0]: tags("RainyDay")})

    async def at(hours: int) -> RefreshReport:
        fetcher.at = NOW + hours * HOUR
        return await refresh(
            settings, sources=[TAGS, second], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=fetcher.at
        )

    await at(0)
    fetcher.answers[TAGS_URL] = FetchError("down")
    report = await at(5)
    assert [each.error for each in report.sources] == ["down", None]
    trends = published(settings)
    assert trends["Latte Art"].last_seen == NOW  # not re-dated
    assert trends["Latte Art"].score < trends["Rainy Day"].score
    # An empty answer is one, and erases nothing either.
    fetcher.answers[TAGS_URL] = b"[]"
    assert [each.error for each in (await at(6)).sources] == [None, None]
    assert "Latte Art" in published(settings)
    await at(80)
    assert set(published(settings)) == {"Rainy Day"}


async def test_where_every_source_fails_the_old_snapshot_stays(settings: Settings, store: ObservationStore) -> None:
    good = CannedFetcher({TAGS_URL: tags("LatteArt")})
    bad = CannedFetcher({TAGS_URL: b"<html>blocked</html>"})

    async def read(fetcher: CannedFetcher) -> RefreshReport:
        return await refresh(settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)

    await read(good)
    current = current_id(settings.snapshots_dir)
    report = await read(bad)
    assert report.snapshot is None
    assert report.note is not None
    assert "trendrag refresh --sample" in report.note
    assert current_id(settings.snapshots_dir) == current
    assert store.statuses()["tags"].last_error is not None


async def test_where_nothing_is_fit_to_publish_the_old_snapshot_stays(
    settings: Settings, store: ObservationStore
) -> None:
    fetcher = CannedFetcher({TAGS_URL: tags("PlaneCrash")})
    report = await refresh(settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)
    assert report.snapshot is None
    assert report.withheld.total() == 1
    assert current_id(settings.snapshots_dir) is None


async def test_a_list_that_is_not_there_yet_is_taken_from_the_day_before(
    settings: Settings, store: ObservationStore
) -> None:
    newest, older = WIKI.urls(NOW)
    payload = {
        "items": [{"year": "2026", "month": "11", "day": "18", "articles": [{"article": "Latte_art", "views": 9}]}]
    }
    fetcher = CannedFetcher({newest: HttpStatus("not yet", 404, {}), older: json.dumps(payload).encode()})
    report = await refresh(settings, sources=[WIKI], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)
    assert fetcher.asked == [newest, older]
    assert report.sources[0].items == 1
    fetcher.answers[newest] = HttpStatus("broken", 500, {})
    await refresh(settings, sources=[WIKI], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)
    assert fetcher.asked[2:] == [newest]


async def test_sources_that_wait_for_their_turn_at_one_host_keep_no_other_waiting(
    settings: Settings, store: ObservationStore
) -> None:
    """Twenty subreddits at one request a minute: the others are read meanwhile."""
    subreddits = [source(f'id = "r{n}"\ntype = "reddit"\nsubreddit = "sub{n}"') for n in range(20)]
    read = asyncio.Event()

    class Slow(CannedFetcher):
        async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
            if "reddit" in url:
                await read.wait()
            return await super().get(url, headers=headers)

    def done(report: SourceReport) -> None:
        if report.source == "tags":
            read.set()

    async with asyncio.timeout(60):
        report = await refresh(
            settings, sources=[*subreddits, TAGS], fetcher=Slow({TAGS_URL: tags("LatteArt")}), store=store,
            embedder=HashEmbedder(), now=NOW, on_progress=done,
        )  # fmt: skip
    assert report.sources[-1].error is None


async def test_cancelling_publishes_nothing(settings: Settings, store: ObservationStore) -> None:
    class Hanging:
        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
            self.asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    fetcher = Hanging()
    running = asyncio.create_task(
        refresh(settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)
    )
    await fetcher.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert current_id(settings.snapshots_dir) is None


async def test_a_broken_database_is_one_clear_error(settings: Settings, store: ObservationStore) -> None:
    def broken(*_: object) -> int:
        raise ConfigurationError("The trend database can't be used")

    store.add = broken  # type: ignore[method-assign, assignment]  # a database that fails while in use
    fetcher = CannedFetcher({TAGS_URL: tags("LatteArt")})
    with pytest.raises(ConfigurationError, match="trend database"):
        await refresh(settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)


@pytest.mark.usefixtures("hashes")
async def test_the_sample_never_slips_over_live_trends(settings: Settings, store: ObservationStore) -> None:
    fetcher = CannedFetcher({TAGS_URL: tags("LatteArt")})
    await refresh(settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW)
    live = current_id(settings.snapshots_dir)
    report = await run_refresh(settings, sample=True)
    assert report.snapshot is None
    assert (current_id(settings.snapshots_dir), current_origin(settings)) == (live, "live")
    await run_refresh(settings, sample=True, replace_live=True)
    assert current_origin(settings) == "sample"
    seen_live = store.latest(NOW - timedelta(days=30))
    assert [each.title for each in seen_live] == ["#LatteArt"]  # the sample is never mixed with what was really seen


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    file = settings.data_dir.parent / "sources.toml"
    # Loopback, which is refused before anything is sent: every source fails, and at once.
    file.write_text('[[source]]\nid = "gone"\ntype = "rss"\nurl = "http://127.0.0.1:9/feed"\n')
    monkeypatch.setenv("TRENDRAG_INGEST__SOURCES_FILE", str(file))
    return CliRunner()


def answer(result: Result) -> dict[str, object]:
    parsed = json.loads(result.stdout)
    assert isinstance(parsed, dict)
    return parsed


@pytest.mark.usefixtures("hashes")
def test_the_command_shows_sources_trends_and_the_snapshot(run: CliRunner) -> None:
    result = run.invoke(command, ["--sample"])
    assert result.exit_code == 0
    assert "daybook: 20 items, 20 new" in result.stderr
    assert "google-trends-us" in result.stdout
    assert "withheld as unsafe or unclear" in result.stdout
    assert "sample trends, recorded 2026-11-20" in result.stdout


@pytest.mark.usefixtures("hashes")
def test_the_command_prints_one_json_object(run: CliRunner) -> None:
    result = run.invoke(command, ["--sample", "--json", "--quiet"])
    assert (result.exit_code, result.stderr) == (0, "")
    report = answer(result)
    assert report["snapshot"]["origin"] == "sample"  # type: ignore[index]  # JSON
    assert report["trends"] == report["snapshot"]["count"]  # type: ignore[index]  # JSON


@pytest.mark.usefixtures("hashes")
def test_the_command_says_what_to_do_where_no_source_is_reachable(run: CliRunner, settings: Settings) -> None:
    result = run.invoke(command, [])
    assert result.exit_code == 1
    assert "trendrag refresh --sample" in result.stderr
    assert "gone: " in result.stderr
    failed = run.invoke(command, ["--json"])
    assert failed.exit_code == 1
    assert answer(failed)["snapshot"] is None
    assert current_id(settings.snapshots_dir) is None


@pytest.mark.parametrize("as_json", [False, True])
def test_missing_weights_and_wrong_sources_are_named(
    run: CliRunner, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    flags = ["--json"] if as_json else []
    result = run.invoke(command, flags)
    assert result.exit_code == 1
    assert "trendrag models fetch" in result.output
    monkeypatch.setenv("TRENDRAG_INGEST__SOURCES_FILE", "/nowhere/sources.toml")
    result = run.invoke(command, flags)
    assert result.exit_code == 1
    assert "/nowhere/sources.toml" in result.output


def test_progress_reports_every_source(settings: Settings) -> None:
    done: list[SourceReport] = []

    async def read() -> None:
        memory = ObservationStore.in_memory()
        await refresh(
            settings,
            sources=[TAGS, WIKI],
            fetcher=CannedFetcher({TAGS_URL: tags("LatteArt")}),
            store=memory,
            embedder=HashEmbedder(),
            now=NOW,
            on_progress=done.append,
        )
        memory.close()

    asyncio.run(read())
    assert {each.source for each in done} == {"tags", "wiki"}


def test_the_double_keeps_the_ports_promise() -> None:
    vectors = HashEmbedder().embed(["a", "b", "a"])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert (vectors[0] == vectors[2]).all()
