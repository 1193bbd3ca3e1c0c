"""The sources that are not in the default list: their real formats, their own failures, and the key of one of them."""

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from ingest.refresh import RefreshReport, refresh
from ingest.sources import parse_sources
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.fakes import HashEmbedder
from tests.ingest.fakes import NOW, CannedFetcher, source
from trendrag.errors import ConfigurationError, ParseError
from trendrag.settings import IngestSettings, Settings, load_settings

PAYLOADS = Path(__file__).parent / "payloads"
BLUESKY = source('id = "b"\ntype = "bluesky"')
GDELT = source('id = "g"\ntype = "gdelt"\nquery = "latte art"\nlanguage = "en"')
REDDIT = source('id = "r"\ntype = "reddit"\nsubreddit = "food"')
YOUTUBE = source('id = "y"\ntype = "youtube"\nregion = "GB"')

KEY = "AIza-s3cret-key"


def article(title: str = "A bakery by night", **fields: object) -> dict[str, object]:
    return {
        "url": "https://a.example/1",
        "title": title,
        "seendate": "20261120T060000Z",
        "language": "English",
    } | fields


def test_bluesky_topics_are_phrases_with_their_posts() -> None:
    latte, snow, sunday = BLUESKY.parse((PAYLOADS / "bluesky.json").read_bytes(), NOW).observations
    assert (latte.title, latte.kind, latte.volume) == ("Latte Art Championship", "phrase", 4210)
    assert latte.url == "https://bsky.app/profile/trending.example/feed/771"
    assert latte.published_at == datetime(2026, 11, 20, 5, 12, 30, 123_000, tzinfo=UTC)
    assert (latte.at, latte.categories, snow.categories) == (NOW, ("pop-culture",), ())
    assert (sunday.title, sunday.kind, sunday.published_at) == (
        "#SilentSunday", "hashtag", datetime(2026, 11, 19, 20, tzinfo=UTC))  # fmt: skip
    assert BLUESKY.parse(b'{"trends": []}', NOW).observations == ()


@pytest.mark.parametrize("link", ["//evil.example/x", "@evil.example/x", "javascript:alert(1)", "/x y", None, 7])
def test_a_link_of_bluesky_leads_nowhere_else(link: object) -> None:
    payload = json.dumps({"trends": [{"topic": "latte", "link": link}]}).encode()
    (found,) = BLUESKY.parse(payload, NOW).observations
    assert found.url is None or found.url.startswith("https://bsky.app/")


def test_a_reworded_topic_of_bluesky_is_the_same_item() -> None:
    first, second = (
        BLUESKY.parse(json.dumps({"trends": [{"topic": "t", "displayName": name}]}).encode(), NOW).observations[0]
        for name in ("Latte Art", "Latte Art Finals")
    )
    assert first.key == second.key


def test_gdelt_articles_are_dated_headlines_with_language_and_country() -> None:
    english, german, spanish = GDELT.parse((PAYLOADS / "gdelt.json").read_bytes(), NOW).observations
    assert (english.kind, english.language, english.region) == ("headline", "en", "GB")
    assert (english.at, english.bucket) == (datetime(2026, 11, 20, 8, 45, tzinfo=UTC), "once")
    assert (english.name, english.family) == ("lanternpost.example (GDELT)", "lanternpost.example")
    assert (german.language, german.region) == ("de", "DE")
    assert (spanish.language, spanish.region) == ("es", None)  # a country that is in no table is unknown


def test_sites_that_gdelt_finds_are_publishers_of_their_own_and_an_agencys_story_counts_once() -> None:
    articles = [
        article("Latte art takes Milan", url=f"https://{n}.example/", domain=domain)
        for n, domain in enumerate(["www.Post.example", "times.example", "<b>", 7, None])
    ]
    articles[1]["title"] = "Milan pours latte art"
    articles[2]["title"], articles[4]["title"] = "Latte art everywhere", "More latte art"
    parsed = GDELT.parse(json.dumps({"articles": articles}).encode(), NOW)
    assert [each.family for each in parsed.observations] == ["post.example", "times.example", "gdelt", "gdelt"]
    assert parsed.dropped["the same headline at another site"] == 1


def test_gdelt_puts_the_query_into_the_address_whole() -> None:
    wanted = source('id = "g"\ntype = "gdelt"\nquery = \'"latte art" sourcelang:english&mode=x\'')
    (url,) = wanted.urls(NOW)
    assert "query=%22latte%20art%22%20sourcelang%3Aenglish%26mode%3Dx&mode=artlist" in url


@pytest.mark.parametrize("payload", [b"{}", b"{ }\n", b'{"articles": []}'])
def test_gdelt_finding_nothing_is_no_error(payload: bytes) -> None:
    parsed = GDELT.parse(payload, NOW)
    assert (parsed.observations, parsed.dropped) == ((), {})


@pytest.mark.parametrize(
    ("damage", "titles", "damaged"),
    [
        (lambda text: text, ["One", "Two", "Three"], 0),
        (lambda text: text.replace("One", r"One \'of\' \x many"), ["One \\'of\\' \\x many", "Two", "Three"], 0),
        (lambda text: text.replace("One", "One\nof\x01many\t"), ["One of many", "Two", "Three"], 0),
        (lambda text: "\ufeff" + text + "\n<!-- served by 7 -->", ["One", "Two", "Three"], 0),
        (lambda text: text + text, ["One", "Two", "Three"], 0),
        (lambda text: text[: text.index("Three")], ["One", "Two"], 1),
        (lambda text: text.replace("Two", 'T "w" o'), ["One", "Three"], 1),
        (lambda text: text.replace("Two", '{"a": {"b": } T "w" o'), ["One", "Three"], 3),
        (lambda text: text.replace("One", "On{e}"), ["On(e)", "Two", "Three"], 0),
        (lambda text: text[:-1].replace("One", '{"url": "x"}'), ["Two", "Three"], 1),
    ],
)
def test_damaged_answers_of_gdelt_keep_their_whole_articles(damage: object, titles: list[str], damaged: int) -> None:
    articles = [article(title, url=f"https://a.example/{n}") for n, title in enumerate(("One", "Two", "Three"))]
    payload = damage(json.dumps({"articles": articles})).encode()  # type: ignore[operator]  # a lambda of the table
    parsed = GDELT.parse(payload, NOW)
    assert [each.title for each in parsed.observations] == titles
    assert parsed.dropped["damaged item"] == damaged


def test_bytes_that_are_no_utf8_cost_gdelt_one_letter_only() -> None:
    payload = json.dumps({"articles": [article("Bratäpfel")]}, ensure_ascii=False).encode("latin-1")
    (found,) = GDELT.parse(payload, NOW).observations
    assert found.title == "Brat\ufffdpfel"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"The specified phrase is too short.\n", 'GDELT: it answered "The specified phrase is too short."'),
        (b"Please <b>limit</b>\x1b[31m requests", "another format"),
        (b"Query of \xe2\x80\xaeone\xe2\x80\xac word", "another format"),
        (b"Trop court: " + b"x " * 5_000, "Trop court: x x"),
        (b"<!DOCTYPE html><title>503</title>", "web page"),
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00", "another format"),
        (b'{"articles": [{"url": "https://a.ex', "cut off"),
        (b'{"status": "error"}', "no list of articles"),
    ],
)
def test_a_complaint_of_gdelt_is_passed_on_cleaned_and_short(payload: bytes, said: str) -> None:
    with pytest.raises(ParseError) as caught:
        GDELT.parse(payload, NOW)
    message = str(caught.value)
    assert said in message
    assert len(message) < 260
    assert message.isprintable()


def test_reddit_posts_are_dated_headlines_known_by_their_id() -> None:
    payload = (PAYLOADS / "reddit.atom").read_bytes()
    parsed = REDDIT.parse(payload, NOW)
    buns, noodles = parsed.observations
    assert (buns.title, buns.kind, buns.volume) == (
        "[Homemade] Cinnamon buns with “too much” cardamom", "headline", None)  # fmt: skip
    assert (buns.at, buns.name) == (datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC), "Reddit (r/food)")
    assert noodles.title == "Night Market & noodles"
    assert parsed.dropped == {"marked for adults": 1}
    moved = payload.replace(b"/homemade_cinnamon_buns/", b"/another_slug/").replace(b"Cinnamon", b"Cardamom")
    assert REDDIT.parse(moved, NOW).observations[0].key == buns.key


def test_youtube_videos_are_headlines_with_their_views() -> None:
    parsed = YOUTUBE.parse((PAYLOADS / "youtube.json").read_bytes(), NOW)
    song, game = parsed.observations
    assert (song.kind, song.volume, song.language, song.region) == ("headline", 2_210_345, "en-GB", "GB")
    assert (song.url, song.categories) == ("https://www.youtube.com/watch?v=dQ4-_latte1", ("music",))
    assert (song.at, song.published_at) == (NOW, datetime(2026, 11, 18, 17, 0, 6, tzinfo=UTC))
    assert (game.language, game.categories) == ("und", ("gaming",))
    assert parsed.dropped == {"marked for adults": 1}


def with_key(key: str = KEY) -> IngestSettings:
    return IngestSettings.model_validate({"youtube_key": key})


def test_the_key_comes_from_the_environment_and_goes_into_the_header_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_INGEST__YOUTUBE_KEY", KEY)
    settings = load_settings()
    assert YOUTUBE.headers(settings.ingest) == {"X-Goog-Api-Key": KEY}
    parsed = YOUTUBE.parse((PAYLOADS / "youtube.json").read_bytes(), NOW)
    assert KEY not in repr([settings, YOUTUBE, YOUTUBE.urls(NOW), parsed])


@pytest.mark.parametrize("key", ["two words", "k\r\nX-Other: 1", "clé", "\n\n", "k\x00"])
def test_what_can_be_no_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="TRENDRAG_INGEST__YOUTUBE_KEY") as caught:
        YOUTUBE.headers(with_key(key))
    assert key not in str(caught.value)


def test_a_key_in_the_sources_file_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="unknown field") as caught:
        source(f'id = "y"\ntype = "youtube"\nregion = "GB"\nkey = "{KEY}"')
    assert KEY not in str(caught.value)


async def test_a_refresh_sends_the_key_to_its_source_alone_and_reports_nothing_of_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"ingest": with_key()})
    fetcher = CannedFetcher({YOUTUBE.urls(NOW)[0]: (PAYLOADS / "youtube.json").read_bytes()})
    store = ObservationStore.in_memory()
    report = await refresh(
        settings, sources=[YOUTUBE, BLUESKY], fetcher=fetcher, store=store, embedder=HashEmbedder(), now=NOW
    )
    assert fetcher.sent == {YOUTUBE.urls(NOW)[0]: {"X-Goog-Api-Key": KEY}, BLUESKY.urls(NOW)[0]: {}}
    assert KEY not in repr((report, store.statuses(), store.latest(NOW.replace(year=2000))))
    store.close()
    for file in (each for each in settings.data_dir.rglob("*") if each.is_file()):
        assert KEY.encode() not in file.read_bytes()


async def test_a_missing_key_costs_its_source_alone_and_counts_as_nothing_once_it_is_there(settings: Settings) -> None:
    answers = {BLUESKY.urls(NOW)[0]: "bluesky.json", YOUTUBE.urls(NOW)[0]: "youtube.json"}
    fetcher = CannedFetcher({url: (PAYLOADS / name).read_bytes() for url, name in answers.items()})
    store = ObservationStore.in_memory()

    async def read(settings: Settings) -> RefreshReport:
        return await refresh(
            settings, sources=[YOUTUBE, BLUESKY], fetcher=fetcher, store=store, states=FetchStates(store.engine),
            embedder=HashEmbedder(), now=NOW,
        )  # fmt: skip

    without = await read(settings)
    assert [each.status for each in without.sources] == ["failed", "ok"]
    assert fetcher.asked == [BLUESKY.urls(NOW)[0]]
    for said in (without.sources[0].error, store.statuses()["y"].last_error):
        assert said is not None
        assert "The source y needs a key" in said
        assert "TRENDRAG_INGEST__YOUTUBE_KEY" in said
    # No wait has begun: it is asked as soon as there is a key.
    with_it = await read(settings.model_copy(update={"ingest": with_key()}))
    assert [each.status for each in with_it.sources] == ["ok", "not_due"]
    store.close()


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('type = "gdelt"', "query: Field required"),
        ('type = "gdelt"\nquery = "ab"', "query"),
        ('type = "reddit"\nsubreddit = "food/../x"', "subreddit"),
        ('type = "reddit"\nsubreddit = "r"', "subreddit"),
        ('type = "youtube"\nregion = "us"', "region"),
        ('type = "bluesky"\nhost = "x.example"', "host: unknown field"),
    ],
)
def test_a_wrong_field_is_named(entry: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        source(f'id = "x"\n{entry}')


def test_the_examples_in_the_built_in_file_are_entries() -> None:
    text = (files("ingest") / "sources.toml").read_text("utf-8")
    start = text.index("# [[source]]")
    comment = text[start : text.index("\n\n", start)]
    examples = parse_sources("\n".join(line.removeprefix("#").strip() for line in comment.splitlines()), "the examples")
    assert {each.family for each in examples} == {"bluesky", "gdelt", "reddit", "youtube"}
