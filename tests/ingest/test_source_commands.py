"""`trendrag sources` as a user runs it, against a loopback server, files, and a database."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import ingest.refresh
from ingest.policy import FetchState
from ingest.refresh import run_refresh
from ingest.source_commands import sources
from ingest.source_report import plan, state
from ingest.sources import load_sources
from ingest.sources.rss import Rss
from ingest.states import FetchStates
from ingest.store import ObservationStore, SourceStatus
from tests.fakes import HashEmbedder
from tests.ingest.fakes import NOW, source
from tests.ingest.server import Server, serving
from trendrag.settings import IngestSettings, Settings

SAMPLE = Path(str(files("ingest.sample")))


def feed(*titles: str, age: timedelta = timedelta(hours=2)) -> bytes:
    date = f"{datetime.now(UTC) - age:%a, %d %b %Y %H:%M:%S} GMT"
    items = "".join(
        f"<item><title>{t}</title><guid isPermaLink='false'>{t}</guid><pubDate>{date}</pubDate></item>" for t in titles
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'.encode()


def page(*links: str) -> bytes:
    named = "".join(f'<link rel="alternate" type="application/rss+xml" href="{link}">' for link in links)
    return f"<!doctype html><html><head>{named}</head></html>".encode()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        running.answer("/feed", feed("Latte Art", "Roof Gardens", "Two dead in plane crash"), Content_Type="text/xml")
        yield running


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("TRENDRAG_INGEST__ALLOW_PRIVATE", "true")


def run(*args: str | Path) -> Result:
    result = CliRunner().invoke(sources, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


async def asked(*args: str | Path) -> Result:
    """As ``run``, while the test's server answers."""
    return await asyncio.to_thread(run, *args)


def printed(result: Result) -> dict[str, Any]:
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


# -- list


def test_the_list_is_shown_before_there_is_a_database(settings: Settings) -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "the built-in list" in result.stdout
    assert result.stdout.count("never read") == len(load_sources(None))
    assert "bbc-science  rss, en, science\n    https://feeds.bbci.co.uk/news/science_and_environment" in result.stdout
    assert not settings.database_path.exists()


def test_the_list_says_how_the_sources_are_doing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.data_dir.mkdir()
    settings.own_sources_file.write_text('[[source]]\nid = "hn"\ntype = "hackernews"\n')
    store = ObservationStore.at(settings.database_path)
    store.succeeded("hn", datetime.now(UTC) - timedelta(hours=5), items=30, new=4, size=812)
    store.failed("hn", datetime.now(UTC) - timedelta(minutes=20), "it answered with status 500")
    waiting = FetchState(errors=2, reason="500", next_due=datetime.now(UTC) + timedelta(minutes=10, seconds=30))
    FetchStates(store.engine).save(load_sources(settings.own_sources_file)[0], waiting)
    store.close()
    assert "failed 20 min ago: it answered with status 500 (30 items 5 h ago)" in run("list").stdout
    assert "asked every 15 min, 2 errors in a row, next in 10 min" in run("list").stdout
    listed = printed(run("list", "--json"))
    assert listed["file"] == str(settings.own_sources_file)
    (row,) = listed["sources"]
    assert (row["id"], row["items"], row["last_error"]) == ("hn", 30, "it answered with status 500")
    assert (row["bytes"], row["errors"], row["every_seconds"], row["muted"]) == (812, 2, 900, None)
    assert datetime.fromisoformat(row["next_due"]) > datetime.now(UTC)
    monkeypatch.setenv("TRENDRAG_INGEST__SOURCES_FILE", str(settings.data_dir / "other.toml"))
    result = run("list", "--json")
    assert result.exit_code == 1
    assert "other.toml" in printed(result)["error"]["message"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "never read"),
        (SourceStatus("a", NOW - timedelta(hours=3), None, None, 7, 1), "7 items 3 h ago"),
        (SourceStatus("a", None, NOW, "down", 0, 0), "failed 0 s ago: down (never read well)"),
    ],
)
def test_a_state_in_words(status: SourceStatus | None, said: str) -> None:
    assert state(status, NOW) == said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (FetchState(), "asked every 15 min, due now"),
        (FetchState(next_due=NOW - timedelta(hours=1), errors=1), "asked every 15 min, 1 error in a row, due now"),
        (FetchState(muted="410 (gone for good)"), "muted: 410 (gone for good); change or remove its entry"),
    ],
)
def test_a_plan_in_words(asked: FetchState, said: str) -> None:
    assert plan(source('id = "hn"\ntype = "hackernews"'), asked, NOW) == said


# -- check


async def test_a_feed_is_fetched_parsed_and_judged_and_nothing_is_stored(server: Server, settings: Settings) -> None:
    server.answer("/old", status="301 Moved", Location="/feed")
    answer = printed(await asked("check", server.url("/old"), "--json"))
    assert answer["usable"]
    assert (answer["type"], answer["items"], answer["dropped"]) == ("rss", 3, {})
    assert answer["answer"] == answer["answer"] | {
        "asked": server.url("/old"),
        "url": server.url("/feed"),
        "status": 200,
        "content_type": "text/xml",
        "bytes": len(feed("Latte Art", "Roof Gardens", "Two dead in plane crash")),
    }
    assert set(answer["trends"]) == {"Latte Art", "Roof Gardens"}
    assert len(answer["trends"]) + sum(answer["withheld"].values()) + sum(answer["left_out"].values()) == 3
    assert answer["observations"][0]["title"] == "Latte Art"
    assert not settings.data_dir.exists()


async def test_the_same_for_people(server: Server) -> None:
    result = await asked("check", server.url("/feed"))
    assert result.exit_code == 0
    for said in ("status 200, text/xml", "items    3", "newest", "2 h ago", "2 by itself", "Roof Gardens", "headline"):
        assert said in result.stdout


async def test_what_was_dropped_and_what_is_too_old_is_told(server: Server) -> None:
    server.answer("/feed", feed("Latte Art", "", age=timedelta(days=30)))
    result = await asked("check", server.url("/feed"))
    assert "items    1\nrefused  1 (no usable title 1)" in result.stdout
    assert "too old 1" in result.stdout
    assert "TRENDRAG_INGEST__MAX_AGE_HOURS" in result.stdout


async def test_a_page_names_the_feeds_to_check(server: Server) -> None:
    server.answer("/", page("/feed", "/comments"))
    result = await asked("check", server.url("/"))
    assert result.exit_code == 1
    assert "web page" in result.stdout
    assert server.url("/feed") in result.stdout
    answer = printed(await asked("check", server.url("/"), "--json"))
    assert [each["url"] for each in answer["feeds"]] == [server.url("/feed"), server.url("/comments")]
    assert answer["error"]["code"] == "parse_failed"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("403 No", b"", "TRENDRAG_INGEST__CONTACT"),
        ("404 No", b"", "site's own page"),
        ("429 No", b"", "Wait"),
        ("500 No", b"", "later"),
        ("200 OK", b"", "empty"),
        ("200 OK", b"hello", "not an RSS or Atom feed"),
        ("200 OK", page(), "consent or block page"),
        ("200 OK", feed(), "in order and empty"),
        ("200 OK", b"x" * (6 << 20), "TRENDRAG_INGEST__MAX_BYTES"),
    ],
)
async def test_where_nothing_usable_comes_it_says_what_to_do(
    server: Server, status: str, body: bytes, said: str
) -> None:
    server.answer("/feed", body, status=status)
    result = await asked("check", server.url("/feed"))
    assert result.exit_code == 1
    assert said in result.stdout
    assert not printed(await asked("check", server.url("/feed"), "--json"))["usable"]


async def test_the_address_checks_of_a_refresh_hold(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_INGEST__ALLOW_PRIVATE", "false")
    result = await asked("check", server.url("/feed"))
    assert result.exit_code == 1
    assert "private network" in result.stdout
    assert server.requests == []


async def test_a_source_of_the_list_is_checked_by_its_id(server: Server, settings: Settings) -> None:
    settings.data_dir.mkdir()
    settings.own_sources_file.write_text(f'[[source]]\nid = "mine"\ntype = "rss"\nurl = "{server.url("/feed")}"\n')
    answer = printed(await asked("check", "mine", "--json"))
    assert (answer["target"], answer["items"], answer["type"]) == ("mine", 3, "rss")
    assert "--type" in (await asked("check", "mine", "--type", "rss")).stderr
    server.answer("/feed", page("/other"))
    assert server.url("/other") in (await asked("check", "mine")).stdout


@pytest.mark.parametrize(
    ("file", "kind"),
    [("google-trends-us.xml", "google_trends"), ("daybook.xml", "rss"), ("hackernews.json", "hackernews"),
     ("mastodon-links.json", "mastodon"), ("wikipedia-en.json", "wikimedia")],
)  # fmt: skip
def test_a_saved_answer_is_read_by_the_parser_for_it(file: str, kind: str) -> None:
    answer = printed(run("check", SAMPLE / file, "--json"))
    assert answer["type"] == kind
    assert answer["items"] >= 5
    assert answer["answer"]["status"] is None
    assert printed(run("check", SAMPLE / file, "--type", kind, "--json"))["items"] == answer["items"]


def test_a_saved_answer_may_be_read_by_another_parser(tmp_path: Path) -> None:
    # As an ordinary feed it has no searches and no news.
    answer = printed(run("check", SAMPLE / "google-trends-us.xml", "--type", "rss", "--json"))
    assert {each["volume"] for each in answer["observations"]} == {None}
    wrong = run("check", SAMPLE / "daybook.xml", "--type", "wikimedia")
    assert wrong.exit_code == 1
    assert "another format" in wrong.stdout
    large = tmp_path / "large.xml"
    large.write_bytes(b"x" * (6 << 20))
    assert "MAX_BYTES" in run("check", large).stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_target_that_is_nothing_is_named(flags: list[str]) -> None:
    result = run("check", "no-such-source", *flags)
    assert result.exit_code == 1
    assert "trendrag sources list" in result.output


# -- add


async def test_a_first_source_makes_a_list_that_is_used_from_then_on(server: Server, settings: Settings) -> None:
    result = await asked(
        "add", server.url("/feed"), "--id", "mine", "--language", "en", "--region", "US",
        "--category", "food", "--category", "art", "--every", "2h",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert str(settings.own_sources_file) in result.stdout
    *before, added = load_sources(settings.sources_file)
    assert before == list(load_sources(None))
    assert added == Rss(
        id="mine", type="rss", url=server.url("/feed"), language="en", region="US", categories=("food", "art"),
        every=timedelta(hours=2),
    )  # fmt: skip
    assert "mine" in run("list").stdout
    again = await asked("add", server.url("/feed"))
    assert again.exit_code == 1
    assert "already, as 'mine'" in again.stderr


@pytest.mark.parametrize(
    ("given", "language", "told"),
    [([], "pt-BR", True), (["--language", "es"], "es", False)],
    ids=["the feed's own", "another"],
)
async def test_a_feeds_own_language_is_taken_over(
    server: Server, settings: Settings, given: list[str], language: str, told: bool
) -> None:
    said = feed("Latte Art").replace(b"<channel>", b"<channel><language>pt-BR</language>")
    server.answer("/feed", said)
    result = await asked("add", server.url("/feed"), *given)
    assert result.exit_code == 0, result.output
    assert load_sources(settings.sources_file)[-1].model_dump()["language"] == language  # type: ignore[attr-defined]
    assert ("Its language is pt-BR" in result.stdout) is told


@pytest.mark.parametrize("said", ["", "not a language", "e" * 99, "&lt;b&gt;"])
async def test_what_is_no_language_is_not_taken_over(server: Server, settings: Settings, said: str) -> None:
    server.answer("/feed", feed("Latte Art").replace(b"<channel>", f"<channel><language>{said}</language>".encode()))
    assert (await asked("add", server.url("/feed"))).exit_code == 0
    assert "language" not in settings.own_sources_file.read_text().rpartition("[[source]]")[2]


async def test_a_refresh_reads_the_list_in_the_data_directory(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.refresh, "open_embedder", lambda _settings: HashEmbedder())
    settings.data_dir.mkdir()
    settings.own_sources_file.write_text(f'[[source]]\nid = "mine"\ntype = "rss"\nurl = "{server.url("/feed")}"\n')
    report = await run_refresh(settings.model_copy(update={"ingest": IngestSettings(allow_private=True)}))
    assert [(each.source, each.items) for each in report.sources] == [("mine", 3)]


async def test_a_page_with_one_feed_stands_for_it(server: Server, settings: Settings) -> None:
    server.answer("/", page("/feed"))
    assert (await asked("add", server.url("/"))).exit_code == 0
    assert load_sources(settings.sources_file)[-1].urls(NOW) == (server.url("/feed"),)


@pytest.mark.parametrize("flags", [[], ["--force"]])
async def test_a_page_with_several_feeds_is_the_users_choice(
    server: Server, settings: Settings, flags: list[str]
) -> None:
    server.answer("/", page("/feed", "/comments"))
    result = await asked("add", server.url("/"), *flags)
    assert result.exit_code == 1
    assert server.url("/comments") in result.stdout
    assert not settings.own_sources_file.exists()


async def test_what_gives_nothing_is_added_only_by_force(server: Server, settings: Settings) -> None:
    server.answer("/later", status="503 Down")
    refused = await asked("add", server.url("/later"))
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert not settings.own_sources_file.exists()
    assert (await asked("add", server.url("/later"), "--force")).exit_code == 0
    assert load_sources(settings.sources_file)[-1].urls(NOW) == (server.url("/later"),)


async def test_another_list_may_be_named(server: Server, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "lists" / "food.toml"
    result = await asked("add", server.url("/feed"), "--file", file)
    assert result.exit_code == 0
    assert f"TRENDRAG_INGEST__SOURCES_FILE={file}" in result.stdout
    assert len(load_sources(file)) == 1
    assert not settings.own_sources_file.exists()


async def test_the_configured_list_grows_and_keeps_its_comments(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    text = '# mine\n[[source]]\nid = "hn"  # the orange one\ntype = "hackernews"'
    file.write_text(text)
    monkeypatch.setenv("TRENDRAG_INGEST__SOURCES_FILE", str(file))
    result = await asked("add", server.url("/feed"))
    assert result.exit_code == 0
    assert "TRENDRAG_INGEST__SOURCES_FILE" not in result.stdout
    assert file.read_text().startswith(text)
    assert load_sources(file)[0].id == "hn"
    after = file.read_text()
    wrong = await asked("add", server.url("/feed"), "--id", "hn")
    assert wrong.exit_code == 1
    assert "'hn' already" in wrong.stderr
    assert file.read_text() == after


async def test_an_interface_is_added_as_its_type(server: Server, settings: Settings) -> None:
    server.answer("/trending/rss?geo=GB", (SAMPLE / "google-trends-gb.xml").read_bytes())
    result = await asked("add", server.url("/trending/rss?geo=GB"), "--file", settings.data_dir / "new.toml")
    assert result.exit_code == 0, result.output
    assert "It is read from https://trends.google.com/trending/rss?geo=GB" in result.stdout


def test_only_addresses_can_be_added() -> None:
    result = run("add", "example.org/feed")
    assert result.exit_code == 1
    assert "https://" in result.stderr


@pytest.mark.parametrize("name", sorted(sources.commands))
def test_every_command_has_a_help_that_teaches(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    for parameter in sources.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
