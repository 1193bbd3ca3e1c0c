"""Refreshes one after the other over a time: who is asked, what an unchanged list means, what errors do to the rest."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import ingest.refresh
from indexes.manifest import current_id
from indexes.snapshot import open_newest
from ingest.commands import refresh as command
from ingest.fetcher import Fetched, Fetcher, HttpFetcher, HttpStatus, NotModified
from ingest.leader import named_lock
from ingest.policy import FetchState
from ingest.read import SourceReport
from ingest.refresh import RefreshReport, current_origin, refresh
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.databases import environment
from tests.fakes import HashEmbedder
from tests.ingest.fakes import HOUR, NOW, seen, source
from tests.ingest.server import serving
from trendrag.errors import FetchError
from trendrag.settings import IngestSettings, Settings
from trendrag.types import Trend

MINUTE = timedelta(minutes=1)
TAGS = source('id = "tags"\ntype = "mastodon"\nhost = "m.example"')
FEED = source('id = "feed"\ntype = "rss"\nurl = "https://paper.example/feed"\npublisher = "Paper"')
TAGS_URL, FEED_URL = TAGS.urls(NOW)[0], FEED.urls(NOW)[0]
LATTE = json.dumps([{"name": "LatteArt", "history": [{"accounts": "50"}]}]).encode()
RAIN = LATTE.replace(b"LatteArt", b"RainyDay")
STORY = (
    b"<rss version='2.0'><channel><title>P</title><item><title>Baker wins chess final</title><guid>1</guid>"
    b"<pubDate>Fri, 20 Nov 2026 07:00:00 GMT</pubDate></item><item><title>An undated story</title><guid>2</guid></item>"
    b"</channel></rss>"
)


class HttpDouble:
    """``ingest.fetcher.Fetcher`` that answers as an HTTP server with validators would. An ETag is the body's number."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes | FetchError] = {}
        self.headers: dict[str, str] = {}
        self.moved: tuple[str, ...] = ()
        self.at = NOW
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        self.asked.append((url, dict(headers or {})))
        body = self.bodies.get(url, FetchError("no route"))
        if isinstance(body, FetchError):
            raise body
        etag = f'"{hash(body)}"'
        if (headers or {}).get("If-None-Match") == etag:
            raise NotModified("304", 304, {"etag": etag}, self.moved)
        return Fetched(body, {"etag": etag, **self.headers}, url, self.at, self.moved)


class Site:
    """An installation over a time: the same database and snapshots, refreshed at times that a test gives."""

    def __init__(self, settings: Settings, store: ObservationStore) -> None:
        self.settings, self.store = settings, store
        self.states = FetchStates(store.engine)
        self.web = HttpDouble()

    async def refresh(
        self, at: datetime, sources: Sequence[Source] = (TAGS,), *, everything: bool = False, by: Fetcher | None = None
    ) -> RefreshReport:
        self.web.at = at
        return await refresh(
            self.settings, sources=sources, fetcher=by or self.web, store=self.store, states=self.states,
            embedder=HashEmbedder(), now=at, everything=everything, jitter=lambda: 0.0,
        )  # fmt: skip

    @property
    def trends(self) -> dict[str, Trend]:
        return {trend.phrase: trend for trend in open_newest(self.settings.snapshots_dir, HashEmbedder()).trends}

    def state(self, entry: Source) -> FetchState:
        return self.states.load([entry])[entry.id]


@pytest.fixture
def settings(database_settings: Settings) -> Settings:
    """Every test here runs on every database."""
    return database_settings


@pytest.fixture
def site(settings: Settings, store: ObservationStore) -> Site:
    return Site(settings, store)


def statuses(report: RefreshReport) -> list[str]:
    return [each.status for each in report.sources]


async def test_only_what_is_due_is_asked(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: STORY}
    assert statuses(await site.refresh(NOW, [TAGS, FEED])) == ["ok", "ok"]
    early = await site.refresh(NOW + 5 * MINUTE, [TAGS, FEED])
    assert [each.says for each in early.sources] == ["not due (in 10 min)", "not due (in 25 min)"]
    assert early.idle
    assert len(site.web.asked) == 2
    assert statuses(await site.refresh(NOW + 15 * MINUTE, [TAGS, FEED])) == ["unchanged", "not_due"]
    assert statuses(await site.refresh(NOW + 16 * MINUTE, [TAGS, FEED], everything=True)) == ["unchanged", "unchanged"]
    assert [url for url, _ in site.web.asked[2:]] == [TAGS_URL, TAGS_URL, FEED_URL]


async def test_where_nothing_is_due_trends_decay_and_the_same_is_not_published_twice(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE}
    site.web.headers = {"cache-control": "max-age=80000"}
    first = await site.refresh(NOW)
    at_once = await site.refresh(NOW + 2 * MINUTE)
    assert (at_once.published, at_once.snapshot, at_once.trends) == (False, first.snapshot, 1)
    before = site.trends["Latte Art"].score
    later = await site.refresh(NOW + 12 * HOUR)
    assert (later.published, later.idle) == (True, True)
    assert site.trends["Latte Art"].score == pytest.approx(before / 2)
    assert len(site.web.asked) == 1


@pytest.mark.parametrize("validators", [True, False], ids=["304", "same bytes"])
async def test_a_live_list_that_has_not_changed_was_seen_again_now(site: Site, validators: bool) -> None:
    site.web.bodies = {TAGS_URL: LATTE}
    site.web.headers = {} if validators else {"etag": ""}
    await site.refresh(NOW)
    report = await site.refresh(NOW + 5 * HOUR)
    assert ("If-None-Match" in site.web.asked[-1][1]) is validators
    assert (statuses(report), report.sources[0].items, report.sources[0].new) == (["unchanged"], 1, 1)
    assert site.trends["Latte Art"].last_seen == NOW + 5 * HOUR
    assert site.state(TAGS).last_changed == NOW
    site.web.bodies = {TAGS_URL: RAIN}
    assert statuses(await site.refresh(NOW + 9 * HOUR)) == ["ok"]
    assert site.trends["Latte Art"].last_seen == NOW + 5 * HOUR


@pytest.mark.parametrize("validators", [True, False], ids=["304", "same bytes"])
async def test_dated_items_that_have_not_changed_are_not_new(site: Site, validators: bool) -> None:
    site.web.bodies = {FEED_URL: STORY}
    site.web.headers = {} if validators else {"etag": ""}
    await site.refresh(NOW, [FEED])
    before = site.store.latest(NOW - 100 * HOUR)
    report = await site.refresh(NOW + 5 * HOUR, [FEED])
    assert statuses(report) == ["unchanged"]
    assert site.store.latest(NOW - 100 * HOUR) == before != []
    assert site.store.statuses()["feed"].last_success == NOW + 5 * HOUR
    assert site.store.statuses()["feed"].items == 2
    assert site.state(FEED).body is None  # never needed again, so not kept


async def test_what_would_be_removed_at_once_is_not_stored(site: Site) -> None:
    site.web.bodies = {FEED_URL: STORY.replace(b"20 Nov 2026", b"20 Nov 2024")}
    report = await site.refresh(NOW, [FEED])
    assert (report.sources[0].items, report.sources[0].new) == (2, 1)
    assert [each.title for each in site.store.latest(NOW - timedelta(days=9999))] == ["An undated story"]


async def test_an_answer_that_can_not_be_read_is_not_what_later_ones_are_compared_to(site: Site) -> None:
    site.web.bodies = {FEED_URL: STORY}
    await site.refresh(NOW, [FEED])
    site.web.bodies = {FEED_URL: b"<html>blocked</html>"}
    assert statuses(await site.refresh(NOW + HOUR, [FEED])) == ["failed"]
    again = await site.refresh(NOW + 2 * HOUR, [FEED])
    assert statuses(again) == ["failed"]  # not "unchanged", as the broken page is the same
    site.web.bodies = {FEED_URL: STORY}
    assert statuses(await site.refresh(NOW + 4 * HOUR, [FEED])) == ["unchanged"]
    assert site.state(FEED).errors == 0


async def test_a_feed_is_left_alone_for_as_long_as_it_asks(site: Site) -> None:
    site.web.bodies = {FEED_URL: STORY.replace(b"<channel>", b"<channel><ttl>120</ttl>")}
    first = await site.refresh(NOW, [FEED])
    again = await site.refresh(NOW + 3 * HOUR, [FEED])  # a 304, which doesn't say it again
    assert [each.sources[0].wait for each in (first, again)] == [2 * HOUR, 2 * HOUR]
    assert statuses(again) == ["unchanged"]


async def test_a_304_that_nobody_asked_for_is_an_error(site: Site) -> None:
    site.web.bodies = {TAGS_URL: NotModified("304", 304, {})}
    assert statuses(await site.refresh(NOW)) == ["failed"]


async def test_errors_make_a_source_wait_and_a_success_ends_it(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: HttpStatus("429", 429, {"retry-after": "3600"})}
    failed = await site.refresh(NOW, [TAGS, FEED])
    assert (statuses(failed), failed.published) == (["ok", "failed"], True)
    report = await site.refresh(NOW + MINUTE, [TAGS, FEED])
    assert [each.says for each in report.sources] == ["not due (in 14 min)", "waiting (429, in 59 min)"]
    assert report.snapshot is not None
    assert not report.idle
    # It was the source that named the time, so that not even --all asks it earlier.
    assert statuses(await site.refresh(NOW + 2 * MINUTE, [TAGS, FEED], everything=True)) == ["unchanged", "waiting"]
    site.web.bodies[FEED_URL] = STORY
    assert statuses(await site.refresh(NOW + HOUR, [TAGS, FEED])) == ["unchanged", "ok"]
    assert site.state(FEED).reason is None


async def test_where_every_source_waits_nothing_is_published_and_the_way_out_is_named(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE}
    await site.refresh(NOW)
    current = current_id(site.settings.snapshots_dir)
    site.web.bodies = {TAGS_URL: HttpStatus("500", 500, {})}
    await site.refresh(NOW + HOUR)
    waiting = await site.refresh(NOW + HOUR + MINUTE)
    assert (statuses(waiting), waiting.snapshot, waiting.idle) == (["waiting"], None, False)
    assert waiting.note is not None
    assert "trendrag refresh --all" in waiting.note
    assert current_id(site.settings.snapshots_dir) == current
    site.web.bodies = {TAGS_URL: RAIN}
    assert statuses(await site.refresh(NOW + HOUR + 2 * MINUTE, everything=True)) == ["ok"]


async def test_a_day_without_network_is_over_in_minutes(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: STORY}
    await site.refresh(NOW, [TAGS, FEED])
    site.web.bodies = {}
    at = NOW + HOUR
    while at < NOW + 25 * HOUR:
        report = await site.refresh(at, [TAGS, FEED])
        assert statuses(report) == ["failed", "failed"]
        at += 30 * MINUTE
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: STORY}
    assert statuses(await site.refresh(at, [TAGS, FEED])) == ["unchanged", "unchanged"]


async def test_what_is_gone_stays_away_until_the_entry_is_edited(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: HttpStatus("410", 410, {})}
    assert statuses(await site.refresh(NOW, [TAGS, FEED])) == ["ok", "muted"]
    report = await site.refresh(NOW + timedelta(days=300), [TAGS, FEED], everything=True)
    assert report.sources[1].says.startswith("muted: 410")
    assert [url for url, _ in site.web.asked].count(FEED_URL) == 1
    edited = source('id = "feed"\ntype = "rss"\nurl = "https://paper.example/new"\npublisher = "Paper"')
    site.web.bodies[edited.urls(NOW)[0]] = STORY
    assert statuses(await site.refresh(NOW + timedelta(days=300, hours=1), [TAGS, edited])) == ["unchanged", "ok"]


async def test_over_real_http_a_moved_feed_is_asked_conditionally_where_it_lives_now(site: Site) -> None:
    async with serving() as server:
        server.answer("/old", status="301 Moved", Location="/new")
        server.answer("/new", STORY, ETag='"7"')
        feed = source(f'id = "f"\ntype = "rss"\nurl = "{server.url("/old")}"')
        settings = IngestSettings(allow_private=True, host_delay_s=0)
        async with HttpFetcher.open(settings) as fetcher:
            for hour in range(7):
                report = await site.refresh(NOW + hour * HOUR, [feed], by=fetcher)
                assert report.sources[0].error is None
                server.answer("/new", status="304 Not Modified", ETag='"7"')
    paths = [request.split(" ")[1] for request in server.requests]
    assert paths == ["/old", "/new"] * 5 + ["/new"] * 2
    assert 'If-None-Match: "7"' in server.requests[-1]
    assert "If-None-Match" not in server.requests[0]


async def test_a_source_with_a_key_never_sends_it_to_where_a_redirect_led(site: Site) -> None:
    ingest_settings = IngestSettings(youtube_key=SecretStr("k-1"))
    site.settings = site.settings.model_copy(update={"ingest": ingest_settings})
    charts = source('id = "charts"\ntype = "youtube"\nregion = "US"')
    url = charts.urls(NOW)[0]
    site.web.bodies = {url: b'{"kind": "youtube#videoListResponse", "items": []}', TAGS_URL: LATTE}
    site.web.moved = ("https://elsewhere.example/",)
    for hour in range(8):
        report = await site.refresh(NOW + hour * HOUR, [charts])
        assert report.sources[0].error is None
    assert {asked for asked, _ in site.web.asked} == {url}
    assert all("k-1" in headers.values() for _, headers in site.web.asked)
    assert site.web.asked[-1][1].keys() > {"If-None-Match"}
    for hour in range(8):
        await site.refresh(NOW + hour * HOUR, [TAGS])
    assert "https://elsewhere.example/" in [asked for asked, _ in site.web.asked]  # what has no key is adopted


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command with three sources at an address that is refused before anything is sent."""
    monkeypatch.setattr(ingest.refresh, "open_embedder", lambda _settings: HashEmbedder())
    monkeypatch.setattr("indexes.embedder.open_embedder", lambda _settings: HashEmbedder())  # for the scenes
    monkeypatch.setattr("indexes.concepts.make_concepts", lambda *_: None)  # whose number takes its time
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRENDRAG_INGEST__HOST_DELAY_S", "0")
    file = settings.data_dir.parent / "sources.toml"
    file.write_text("\n".join(f"[[source]]\n{entry(name)}" for name in "abc"))
    monkeypatch.setenv("TRENDRAG_INGEST__SOURCES_FILE", str(file))
    return CliRunner()


def entry(name: str) -> str:
    return f'id = "{name}"\ntype = "rss"\nurl = "http://127.0.0.1:9/{name}"\npublisher = "{name}"\n'


def remember(settings: Settings, trend: bool = True, **states: FetchState) -> None:
    """What earlier refreshes would have left: states, and a trend of now."""
    store = ObservationStore.of(settings)
    if trend:
        store.add([seen("#LatteArt", "hashtag", volume=50, at=datetime.now(UTC) - MINUTE)])
    for name, state in states.items():
        FetchStates(store.engine).save(source(entry(name)), state)
    store.close()


def in_an_hour() -> FetchState:
    return FetchState(next_due=datetime.now(UTC) + 61 * MINUTE)


def test_the_command_says_who_was_not_asked_and_why(run: CliRunner, settings: Settings) -> None:
    waiting = FetchState(next_due=datetime.now(UTC) + 3 * HOUR, errors=1, reason="429", told_to_wait=True)
    remember(settings, a=in_an_hour(), b=waiting, c=FetchState(muted="410 (gone for good)"))
    shown = run.invoke(command, [], terminal_width=200)
    assert shown.exit_code == 0, shown.output
    for line in (
        "a: not due (in 60 min)",
        "b: waiting (429, in 2 h)",
        "c: muted: 410 (gone for good); change or remove",
    ):
        assert line in shown.stderr
    assert "not due (in 60 min)" in " ".join(shown.stdout.split())
    told = json.loads(run.invoke(command, ["--json", "--quiet"]).stdout)
    assert [each["status"] for each in told["sources"]] == ["not_due", "waiting", "muted"]
    assert [each["ok"] for each in told["sources"]] == [True, False, False]
    assert [each["next_due"] is None for each in told["sources"]] == [False, False, True]
    assert told["published"] is False  # as a moment ago
    assert told["trends"] == 1


def test_sources_that_are_merely_not_due_are_no_failure(run: CliRunner, settings: Settings) -> None:
    remember(settings, trend=False, a=in_an_hour(), b=in_an_hour(), c=in_an_hour())
    shown = run.invoke(command, [])
    assert (shown.exit_code, "No source is due." in shown.stdout) == (0, True)
    assert run.invoke(command, ["--json"]).exit_code == 0
    asked = run.invoke(command, ["--all"])
    assert asked.exit_code == 1
    assert "private network" in asked.stderr


def test_one_refresh_at_a_time(run: CliRunner, settings: Settings, store: ObservationStore) -> None:
    with named_lock(store.engine, "refresh"):
        shown = run.invoke(command, ["--or-sample"])
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert "Another refresh is under way" in shown.stdout
        told = json.loads(run.invoke(command, ["--json"]).stdout)
        assert (told["busy"], told["published"], told["sources"]) == (True, False, [])
    assert current_origin(settings) is None
    assert json.loads(run.invoke(command, ["--json"]).stdout)["busy"] is False


def test_a_refresh_removes_what_is_too_old(run: CliRunner, settings: Settings, store: ObservationStore) -> None:
    remember(settings, a=in_an_hour(), b=in_an_hour(), c=in_an_hour())
    store.add([seen("long ago", at=datetime.now(UTC) - timedelta(days=40))])
    assert run.invoke(command, []).exit_code == 0
    assert [each.title for each in store.latest(NOW - timedelta(days=99))] == ["#LatteArt"]


def test_the_sample_comes_also_right_after_a_failed_refresh(run: CliRunner, settings: Settings) -> None:
    assert run.invoke(command, []).exit_code == 1
    waiting = run.invoke(command, [])
    assert waiting.exit_code == 1
    assert "waiting (no answer" in waiting.stderr
    assert "trendrag refresh --all" in waiting.stderr
    shown = run.invoke(command, ["--or-sample"])
    assert shown.exit_code == 0, shown.output
    assert "loading the bundled sample" in shown.stderr
    assert current_origin(settings) == "sample"


def test_the_sample_comes_also_where_no_source_is_due_and_there_are_no_trends(
    run: CliRunner, settings: Settings
) -> None:
    remember(settings, trend=False, a=in_an_hour(), b=in_an_hour(), c=in_an_hour())
    assert run.invoke(command, ["--or-sample"]).exit_code == 0
    assert current_origin(settings) == "sample"


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (SourceReport("s", error="x answered with status 500", status="failed"), "x answered with status 500"),
        (SourceReport("s", status="not_due", wait=timedelta(minutes=12)), "not due (in 12 min)"),
        (SourceReport("s", error="429", status="waiting", wait=HOUR), "waiting (429, in 60 min)"),
        (SourceReport("s", status="unchanged"), "unchanged"),
    ],
)
def test_a_status_in_words(report: SourceReport, says: str) -> None:
    assert report.says == says
