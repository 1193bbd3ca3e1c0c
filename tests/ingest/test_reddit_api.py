"""Reddit through an app: real praw against a loopback server that answers in Reddit's form, and what it refuses."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import praw.config
import pytest
from pydantic import SecretStr

from ingest.fetcher import HttpFetcher, HttpStatus
from ingest.policy import retry_after
from ingest.reddit_api import Places, RedditApi, with_reddit_app
from ingest.refresh import refresh
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.fakes import HashEmbedder
from tests.ingest.fakes import NOW, source
from tests.ingest.server import Server, serving
from trendrag.errors import ConfigurationError, FetchError, ParseError
from trendrag.settings import IngestSettings, Settings, load_settings

ATOM = (Path(__file__).parent / "payloads" / "reddit.atom").read_bytes()
FOOD = source('id = "r"\ntype = "reddit"\nsubreddit = "food"')
URL = FOOD.urls(NOW)[0]
TOP = "/r/food/top?t=day&limit=100&raw_json=1"
TOKEN = {"access_token": "t0ken-of-the-app", "token_type": "bearer", "expires_in": 86400, "scope": "*"}
ID, SECRET = "the-apps-id", "the-apps-s3cret"
LIMITED = IngestSettings(allow_private=True, host_delay_s=0, max_bytes=50_000)


def post(title: str, number: int = 1, **fields: object) -> dict[str, object]:
    """A submission with the fields that count here, as the API has them."""
    said = {
        "title": title, "name": f"t3_1abc{number}", "score": 812, "num_comments": 64, "over_18": False,
        "created_utc": NOW.timestamp() - 3600, "permalink": f"/r/food/comments/1abc{number}/x/", "subreddit": "food",
        "url": "https://i.redd.it/a.jpg", "stickied": False,
    }  # fmt: skip
    return {"kind": "t3", "data": said | fields}


def listing(*posts: object) -> bytes:
    return json.dumps({"kind": "Listing", "data": {"after": None, "dist": len(posts), "children": posts}}).encode()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        running.answer("/api/v1/access_token", json.dumps(TOKEN).encode(), Content_Type="application/json")
        running.answer(TOP, listing(post("Cardamom buns")), Content_Type="application/json")
        yield running


async def ask(server: Server, url: str = URL, settings: IngestSettings = LIMITED) -> bytes:
    async with HttpFetcher.open(settings) as http:
        api = RedditApi(http, (ID, SECRET), Places(server.url(""), server.url("")))
        return (await api.get(url)).body


async def test_the_app_signs_in_once_and_the_posts_come_with_their_scores(server: Server) -> None:
    server.answer("/r/art/top?t=day&limit=100&raw_json=1", listing())
    async with HttpFetcher.open(IngestSettings(allow_private=True, host_delay_s=0, contact="ops@x.example")) as http:
        api = RedditApi(http, (ID, SECRET), Places(server.url(""), server.url("")))
        body = (await api.get(URL, headers={"If-None-Match": '"1"'})).body
        await api.get("https://www.reddit.com/r/art/top.rss?t=day")
    (found,) = FOOD.parse(body, NOW).observations
    assert (found.title, found.volume, found.published_at) == ("Cardamom buns", 812, NOW - timedelta(hours=1))
    assert found.url == "https://www.reddit.com/r/food/comments/1abc1/x/"
    signing, top, _ = server.requests
    assert signing.startswith("POST /api/v1/access_token ")
    assert signing.endswith("\r\n\r\ngrant_type=client_credentials")
    assert base64.b64encode(f"{ID}:{SECRET}".encode()).decode() in signing
    assert top.startswith(f"GET {TOP} ")
    assert "authorization: bearer t0ken-of-the-app\r\n" in top.lower()
    assert all("(+ops@x.example)" in request for request in server.requests)


async def test_other_addresses_are_asked_where_they_are(server: Server) -> None:
    server.answer("/feed", b"plain")
    assert await ask(server, server.url("/feed")) == b"plain"
    assert ID not in server.requests[0]


def test_a_post_is_the_same_in_the_feed_and_in_the_api() -> None:
    by_feed = FOOD.parse(ATOM, NOW).observations[0]
    (by_api,) = FOOD.parse(listing(post("Buns, edited", name="t3_1abc23")), NOW).observations
    assert (by_feed.key, by_feed.bucket) == (by_api.key, by_api.bucket)


def test_posts_for_adults_and_what_is_no_post_are_left_out_with_their_reason() -> None:
    posts = [
        post("Fine", 1), post("Adult", 2, over_18=True), post("Unknown", 3, over_18=None), post("Soup [NSFW]", 4),
        {"kind": "t1", "data": {"body": "a comment"}}, None, {"kind": "t3"}, post("", 5), post("Hated", 6, score=-40),
        post("Tomorrow", 7, created_utc=NOW.timestamp() + 90_000), post("No date", 8, created_utc="soon"),
    ]  # fmt: skip
    parsed = FOOD.parse(listing(*posts), NOW)
    assert [(each.title, each.volume) for each in parsed.observations] == [
        ("Fine", 812), ("Hated", 0), ("No date", 812)]  # fmt: skip
    assert parsed.dropped == {
        "marked for adults": 2, "not known to be for everyone": 1, "not a post": 3, "no usable title": 1,
        "date in the future": 1,
    }  # fmt: skip


@pytest.mark.parametrize("payload", [b"[]", b'{"kind": "Listing"}', b'{"error": 403}', b'{"kind": "t5", "data": {}}'])
def test_other_json_is_no_listing(payload: bytes) -> None:
    with pytest.raises(ParseError, match="no list of posts"):
        FOOD.parse(payload, NOW)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/v1/access_token", 401, "Reddit refuses the app"),
        (TOP, 401, "Reddit refuses the app"),
        (TOP, 403, "r/food (403): it is private or quarantined"),
        (TOP, 404, "There is no r/food"),
        (TOP, 302, "There is no r/food"),
        (TOP, 429, "429 (too many requests)"),
        (TOP, 500, "status 500"),
        (TOP, 503, "status 503"),
    ],
)
async def test_refusals_say_what_to_do_at_once_and_hold_no_secret(
    server: Server, path: str, status: int, said: str
) -> None:
    server.answer(path, b"{}", f"{status} No", Location="/subreddits/search?q=food", X_Ratelimit_Reset="312.0")
    with pytest.raises(HttpStatus) as raised:
        await ask(server)
    assert said in str(raised.value)
    assert raised.value.status == status
    assert ("TRENDRAG_INGEST__REDDIT_CLIENT_SECRET" in str(raised.value)) is (status in (401, 403))
    for secret in (ID, SECRET, "t0ken"):
        assert secret not in str(raised.value)
    if status == 429:
        assert retry_after(raised.value.headers, NOW) == timedelta(seconds=312)
    assert sum(path in request for request in server.requests) == 1  # no retries of praw's own


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"access_token": 1}', b'{"access_token": "x", "expires_in": "y"}'],
)
async def test_a_sign_in_that_can_not_be_read_is_one_clear_error(server: Server, answer: bytes) -> None:
    server.answer("/api/v1/access_token", answer)
    with pytest.raises(ParseError, match="another format"):
        await ask(server)


async def test_a_sign_in_refused_with_status_200_is_a_refusal(server: Server) -> None:
    server.answer("/api/v1/access_token", b'{"error": "unsupported_grant_type"}')
    with pytest.raises(HttpStatus, match=r"unsupported_grant_type.*TRENDRAG_INGEST__REDDIT_CLIENT_ID"):
        await ask(server)


async def test_the_limits_of_the_fetcher_hold_for_praw(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await never.wait()

    server.answer(TOP, b" " * 60_000)
    with pytest.raises(FetchError, match="more than"):
        await ask(server)
    server.handlers[TOP] = hang
    try:
        with pytest.raises(FetchError, match=r"took longer than 0\.5 s"):
            await ask(server, settings=LIMITED.model_copy(update={"timeout_s": 0.5}))
    finally:
        never.set()
    with pytest.raises(FetchError, match="private network"):
        await ask(server, settings=LIMITED.model_copy(update={"allow_private": False}))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.answer(TOP, listing())
    assert await ask(server)


async def test_a_full_rate_limit_makes_nobody_sleep(server: Server) -> None:
    """prawcore would sleep for the whole window, in a thread that nothing can stop."""
    window = {"X_Ratelimit_Remaining": "0", "X_Ratelimit_Used": "100", "X_Ratelimit_Reset": "600"}
    server.answer(TOP, listing(), **window)
    async with HttpFetcher.open(LIMITED) as http, asyncio.timeout(60):
        api = RedditApi(http, (ID, SECRET), Places(server.url(""), server.url("")))
        await api.get(URL)
        await api.get(URL)


async def test_a_praw_ini_in_the_working_directory_turns_nothing_elsewhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "http://127.0.0.1:9"
    mine = f"reddit_url={elsewhere}\noauth_url={elsewhere}\nusername=u\npassword=p\nrefresh_token=r\nclient_id=c"
    (tmp_path / "praw.ini").write_text(f"[DEFAULT]\n{mine}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("praw_site", "other")
    monkeypatch.setenv("praw_check_for_updates", "true")
    monkeypatch.setattr(praw.config.Config, "CONFIG", None)  # read again, as in a new process
    with pytest.warns(UserWarning, match=r"praw\.ini"):
        assert await ask(server)
    assert "grant_type=client_credentials" in server.requests[0]
    (tmp_path / "praw.ini").write_text("no section")
    monkeypatch.setattr(praw.config.Config, "CONFIG", None)
    with pytest.raises(FetchError, match=r"praw\.ini can't be read"):
        await ask(server)


async def test_cancelling_leaves_no_thread_behind(server: Server) -> None:
    """As Ctrl-C does: the visit is cancelled, then all that still runs, and then threads are waited for."""
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        asked.set()
        await never.wait()

    server.handlers[TOP] = hang
    async with HttpFetcher.open(LIMITED.model_copy(update={"timeout_s": 300, "read_timeout_s": 300})) as http:
        api = RedditApi(http, (ID, SECRET), Places(server.url(""), server.url("")))
        visit = asyncio.create_task(api.get(URL))
        await asked.wait()
        visit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visit
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"reddit_client_id": SecretStr(ID)}, "needs TRENDRAG_INGEST__REDDIT_CLIENT_SECRET too"),
        ({"reddit_client_secret": SecretStr(SECRET)}, "needs TRENDRAG_INGEST__REDDIT_CLIENT_ID too"),
        ({"reddit_client_id": SecretStr("a b"), "reddit_client_secret": SecretStr(SECRET)}, "no key has"),
        ({"reddit_client_id": SecretStr(ID), "reddit_client_secret": SecretStr(SECRET + "\n\x00")}, "no key has"),
    ],
)
async def test_an_app_that_is_set_up_by_half_fails_its_sources_alone(
    settings: Settings, keys: Mapping[str, SecretStr], complaint: str
) -> None:
    settings = settings.model_copy(update={"ingest": IngestSettings(**keys)})
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        FOOD.headers(settings.ingest)
    assert SECRET not in str(raised.value)
    async with HttpFetcher.open(settings.ingest) as http:
        assert with_reddit_app(http, settings.ingest) is http


def test_without_praw_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.reddit.find_spec", lambda _name: None)
    keys = IngestSettings(reddit_client_id=SecretStr(ID), reddit_client_secret=SecretStr(SECRET))
    with pytest.raises(ConfigurationError, match=r"pip install 'trendrag\[reddit\]'"):
        FOOD.headers(keys)
    assert FOOD.headers(IngestSettings()) == {}


async def test_the_keys_come_from_the_environment_and_reach_nothing_that_is_kept(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRENDRAG_INGEST__REDDIT_CLIENT_ID", ID)
    monkeypatch.setenv("TRENDRAG_INGEST__REDDIT_CLIENT_SECRET", SECRET)
    caplog.set_level("DEBUG")
    ingest = load_settings().ingest
    settings = settings.model_copy(update={"ingest": ingest})
    store = ObservationStore.at(settings.database_path)
    async with HttpFetcher.open(LIMITED) as http:
        assert isinstance(with_reddit_app(http, ingest), RedditApi)
        report = await refresh(
            settings,
            sources=[FOOD],
            fetcher=RedditApi(http, (ID, SECRET), Places(server.url(""), server.url(""))),
            store=store,
            states=FetchStates(store.engine),
            embedder=HashEmbedder(),
            now=NOW,
        )
    assert report.sources[0].items == 1
    kept = repr((report, ingest, store.statuses(), store.latest(NOW - timedelta(days=9)))) + caplog.text
    store.close()
    kept += "".join(each.read_bytes().decode("latin-1") for each in settings.data_dir.rglob("*") if each.is_file())
    for secret in (SECRET, "t0ken-of-the-app", base64.b64encode(f"{ID}:{SECRET}".encode()).decode()):
        assert secret not in kept
