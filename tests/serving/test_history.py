"""What was written is found again by who asked for it, and by nobody else."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import update
from starlette.testclient import TestClient

from serving.records.history import History, NewEntry
from serving.records.thumbnail import SIDE
from serving.store.database import Database
from serving.store.tables import CaptionRow
from tests.fakes import NOW, FakeWriter
from tests.serving.conftest import Serve
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.owners import captioned, of, opened
from tests.serving.pictures import RED, decoded, encoded, near, picture
from tests.serving.test_http_captions import PATHS, b64, body, sse
from tests.serving.test_http_wire import REQUEST, connection, ends, post
from trendrag.errors import ModelInterrupted
from trendrag.settings import HistorySettings, Settings

HISTORY = "/api/v1/history"
NEVER = "0" * 32
Param = str | int | bool | list[str] | None


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service_settings: Settings, service: FakeService) -> Iterator[TestClient]:
    with opened(service_settings, service) as made:
        yield made


def said(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def page(client: TestClient, owner: str = "visitor:one", **params: Param) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = said(client.get(HISTORY, params=params, headers=of(owner)))["items"]
    return found


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


# --- what is kept


def test_an_answer_is_found_again_as_it_was_given(client: TestClient) -> None:
    photo = encoded(picture(1200, 800))
    first = captioned(client)
    asked = body(image=b64(photo), note="Café, first snow", platform="x", candidates=2, region="US")
    answer = client.post(f"/api/v1/caption?parent={first}", json=asked)
    given = said(answer)
    assert (given["history"], answer.headers["x-caption-id"], answer.headers["x-history"]) == ("on", given["id"], "on")
    kept = said(client.get(f"{HISTORY}/{given['id']}"))["caption"]
    assert kept["answer"] == given
    assert (kept["note"], kept["platform"], kept["parent"]) == ("Café, first snow", "x", first)
    assert [each["text"] for each in kept["captions"]] == ["My pumpkin spice latte."] * 2
    assert kept["request"]["filters"]["region"] == "US"
    assert "image" not in kept["request"]
    assert b64(photo)[:40] not in json.dumps(kept)
    assert len(kept["image_sha256"]) == 64


def test_a_stream_tells_its_id_before_it_begins_and_is_kept_like_any_other(client: TestClient) -> None:
    answer = client.post(PATHS[1], json=body(candidates=2))
    kept = said(client.get(f"{HISTORY}/{answer.headers['x-caption-id']}"))["caption"]
    written = {data["candidate"]: data for name, data in sse(answer.text) if name == "candidate_done"}
    assert [each["text"] for each in kept["captions"]] == [written[0]["text"], written[1]["text"]]
    assert kept["answer"]["captions"][0]["highlights"] == [
        {"start": 3, "end": 16, "trend_id": written[0]["trend_ids"][0]}
    ]
    assert kept["answer"]["usage"] == sse(answer.text)[-1][1]["usage"]


def test_a_thumbnail_is_small_upright_and_good_for_ever(client: TestClient) -> None:
    found = captioned(client, image=b64(encoded(picture(1600, 800))))
    answer = client.get(f"{HISTORY}/{found}/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    small = decoded(answer.content)
    assert small.size == (SIDE, SIDE // 2)
    assert near(small.getpixel((10, 10)), RED)
    assert len(answer.content) < 20_000


@pytest.mark.parametrize("path", PATHS)
def test_what_fails_is_not_kept(client: TestClient, service: FakeService, path: str) -> None:
    service.writer = FakeWriter(error=ModelInterrupted("gone"))
    client.post(path, json=body())
    assert page(client) == []


@ends
async def test_a_stream_that_its_client_leaves_is_not_kept_and_one_that_is_read_to_its_end_is(serve: Serve) -> None:
    service = FakeService(GatedWriter())
    port = serve(service)
    async with connection(port) as (reader, sender):
        sender.write(post(PATHS[1], REQUEST))
        await reader.readuntil(b' caption."')
    assert isinstance(service.writer, GatedWriter)
    await service.writer.closed.wait()
    service.writer = FakeWriter()
    async with connection(port) as (reader, sender):
        sender.write(post(PATHS[1], REQUEST))
        await reader.readuntil(b"event: done")
        # At once, while that answer's last bytes may not even be sent.
        async with httpx2.AsyncClient(timeout=60) as client:
            found = (await client.get(f"http://127.0.0.1:{port}{HISTORY}")).json()["items"]
    assert len(found) == 1


def test_without_a_history_answers_have_no_id_and_what_there_was_can_be_removed(service_settings: Settings) -> None:
    with opened(service_settings) as client:
        found = captioned(client)
    off = service_settings.model_copy(update={"history": HistorySettings(keep_days=0)})
    with opened(off) as client:
        answer = client.post("/api/v1/caption", json=body())
        assert (answer.json()["id"], answer.json()["history"]) == (None, "off")
        assert "x-caption-id" not in answer.headers
        assert answer.headers["x-history"] == "off"
        assert [each["id"] for each in page(client)] == [found]
        assert said(client.delete(HISTORY)) == {"status": "success", "removed": 1}
        assert page(client) == []


async def test_an_answer_of_another_version_that_can_not_be_read_is_null_and_the_rest_is_there(
    settings: Settings,
) -> None:
    with opened(settings) as client:
        found = captioned(client)
        said(client.get(HISTORY))
        database = Database.of(settings)
        async with database.begin() as connection:
            await connection.execute(update(CaptionRow).values(answer={"captions": "?"}, request={}))
        await database.aclose()
        kept = said(client.get(f"{HISTORY}/{found}"))["caption"]
        assert (kept["answer"], kept["captions"][0]["text"]) == (None, "My pumpkin spice latte.")


# --- lists


def test_the_newest_comes_first_and_pages_go_on_where_the_last_ended(client: TestClient) -> None:
    made = [captioned(client) for _ in range(5)]
    captioned(client, "visitor:two")
    first = said(client.get(HISTORY, params={"limit": 2}))
    newer = captioned(client)  # what comes meanwhile moves nothing
    second = said(client.get(HISTORY, params={"limit": 2, "cursor": first["next"]}))
    third = said(client.get(HISTORY, params={"limit": 2, "cursor": second["next"]}))
    found = [each["id"] for part in (first, second, third) for each in part["items"]]
    assert found == made[::-1]
    assert third["next"] is None
    assert page(client)[0]["id"] == newer


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ПЕРВЫЙ", ["ru"]),
        ("cafe creme", ["fr"]),
        ("straße", ["de"]),
        ("STRASSE", ["de"]),
        ("100%", ["de"]),
        ("100 x", []),
        ("寿司", ["ja"]),
        ("#snow", ["fr"]),
        ("#SnowDay", ["fr"]),
        ("pumpkin-spice", ["ja", "de", "fr", "ru"]),
        ("spice latte first", []),  # of two texts
        ("nothing of the kind", []),
    ],
)
def test_search_finds_words_of_notes_and_captions_in_any_script(client: TestClient, q: str, found: list[str]) -> None:
    notes = {"ru": "Первый снег", "fr": "Un café crème #SnowDay", "de": "Lange Straße, 100 % nass", "ja": "夜の寿司"}
    ids = {captioned(client, note=note): name for name, note in notes.items()}
    assert [ids[each["id"]] for each in page(client, q=q)] == found


@pytest.mark.parametrize("q", ["%", "_", "😀", "\x00", "'; drop table caption"])
def test_a_search_for_what_no_text_has_finds_nothing_or_says_so(client: TestClient, q: str) -> None:
    captioned(client, note="100 % snow_ball")
    answer = client.get(HISTORY, params={"q": q})
    assert answer.status_code == 422 or said(answer)["items"] == []
    assert len(page(client)) == 1


def test_favourites_are_marked_and_can_be_listed_alone(client: TestClient) -> None:
    plain, chosen = captioned(client), captioned(client, candidates=3)
    for _ in range(2):  # saying it twice is saying it once
        assert client.put(f"{HISTORY}/{chosen}/candidates/1/favourite").status_code == 204
    (found,) = page(client, favourite=True)
    assert found["id"] == chosen
    assert [each["favourite"] for each in found["captions"]] == [False, True, False]
    assert [each["id"] for each in page(client, favourite=False)] == [plain]
    for _ in range(2):
        assert client.delete(f"{HISTORY}/{chosen}/candidates/1/favourite").status_code == 204
    assert page(client, favourite=True) == []


@pytest.mark.parametrize("number", [1, 7])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_caption_that_the_answer_has_not_can_be_no_favourite(client: TestClient, method: str, number: int) -> None:
    url = f"{HISTORY}/{captioned(client)}/candidates/{number}/favourite"
    refused(client.request(method, url), 404, "not_found")


def test_the_last_word_on_a_caption_counts_and_can_be_taken_back(client: TestClient) -> None:
    url = f"{HISTORY}/{captioned(client)}/candidates/0/feedback"
    nothing = {"status": "success", "verdict": None, "edited": None}
    assert said(client.get(url)) == nothing
    assert said(client.put(url, json={"verdict": "like"}))["verdict"] == "like"
    put = said(client.put(url, json={"verdict": "dislike", "edited": "  Better\u202e said.\x00\n"}))
    assert put == {"status": "success", "verdict": "dislike", "edited": "Better said."}
    assert said(client.get(url)) == put
    (listed,) = page(client)
    assert (listed["captions"][0]["verdict"], listed["captions"][0]["edited"]) == ("dislike", "Better said.")
    assert said(client.put(url, json={"edited": "   "})) == nothing
    assert said(client.get(url)) == nothing


@pytest.mark.parametrize(
    "sent", [{"verdict": "meh"}, {"edited": "x" * 5_001}, {"stars": 5}, {"verdict": 1}, [], {"edited": "\ud800"}]
)
def test_feedback_that_can_not_be_used_says_why(client: TestClient, sent: object) -> None:
    url = f"{HISTORY}/{captioned(client)}/candidates/0/feedback"
    told = client.put(url, content=json.dumps(sent), headers={"Content-Type": "application/json"})
    refused(told, 422, "invalid_request")
    assert "5001" not in told.text or "x" * 100 not in told.text


def test_what_is_removed_is_gone_with_all_that_belongs_to_it(client: TestClient) -> None:
    one, other = captioned(client), captioned(client)
    client.put(f"{HISTORY}/{one}/candidates/0/favourite")
    client.put(f"{HISTORY}/{one}/candidates/0/feedback", json={"verdict": "like"})
    assert client.delete(f"{HISTORY}/{one}").status_code == 204
    refused(client.delete(f"{HISTORY}/{one}"), 404, "not_found")
    refused(client.get(f"{HISTORY}/{one}"), 404, "not_found")
    refused(client.get(f"{HISTORY}/{one}/thumbnail"), 404, "not_found")
    assert [each["id"] for each in page(client)] == [other]
    assert client.get("/api/v1/feedback/export").text == ""


# --- whatever is sent


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!", "W10", "WzFd", "WyJhIiwiYiJd", "WzEsImFhIl0", "_" * 200, "W1tbW1tbW1tb", "bnVsbA"]
)
def test_a_cursor_that_is_not_ours_says_so(client: TestClient, cursor: str) -> None:
    refused(client.get(HISTORY, params={"cursor": cursor}), 422, "invalid_cursor")
    refused(client.get("/api/v1/trends", params={"cursor": cursor}), 422, "invalid_cursor")


@given(st.integers() | st.floats() | st.text(max_size=3), st.text("0123456789abcdef", max_size=33) | st.integers())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_cursor_with_any_values_is_no_fault_of_ours(client: TestClient, one: object, two: object) -> None:
    import base64

    cursor = base64.urlsafe_b64encode(json.dumps([one, two]).encode()).decode().rstrip("=")
    for url in (HISTORY, "/api/v1/trends"):
        assert client.get(url, params={"cursor": cursor}).status_code in (200, 422, 503)


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"favourite": "maybe"}])
def test_a_page_that_can_not_be_had_says_why(client: TestClient, params: dict[str, Param]) -> None:
    refused(client.get(HISTORY, params=params), 422, "invalid_request")


@pytest.mark.parametrize("caption", ["x", NEVER[1:], NEVER.replace("0", "G"), "%00", NEVER + "%0a"])
def test_an_id_that_is_none_says_so(client: TestClient, caption: str) -> None:
    refused(client.get(f"{HISTORY}/{caption}"), 422, "invalid_request")


# --- laws


def entry(number: int, second: int, owner: str = "one", text: str = "") -> NewEntry:
    return NewEntry(
        id=f"{number:032x}",
        owner=owner,
        created_at=NOW + timedelta(seconds=second),
        parent=None,
        image_sha256="0" * 64,
        thumbnail=None,
        request={"note": text},
        answer={"captions": [{"text": "A caption."}]},
    )


@given(seconds=st.lists(st.integers(0, 3), max_size=12), limit=st.integers(1, 5))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_pages_together_are_everything_once_in_order(
    service_settings: Settings, seconds: list[int], limit: int
) -> None:
    async def walk() -> None:
        database = Database.of(service_settings)
        history = History(database)
        entries = [entry(number, second) for number, second in enumerate(seconds)]
        try:
            await history.clear("one")
            if entries:
                await history.add(entries)
            found, after = [], None
            while part := await history.page("one", limit, after):
                found += part
                after = part[-1].created_at, part[-1].id
        finally:
            await database.aclose()
        expected = sorted(entries, key=lambda each: (each.created_at, each.id), reverse=True)
        assert [each.id for each in found] == [each.id for each in expected]

    asyncio.run(walk())


OWNERS = ("visitor:a", "visitor:b")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.sampled_from(["caption", "remove", "favour", "unfavour", "judge", "look", "clear"]),
        st.integers(0, 5),
        st.integers(0, 2),
        st.sampled_from(["like", "dislike", None]),
        st.sampled_from(["mine is better", None]),
    ),
    min_size=3,
    max_size=14,
)


@given(STEPS)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_whatever_two_owners_do_neither_sees_or_changes_what_is_the_others(
    client: TestClient, steps: list[tuple[str, str, int, int, str | None, str | None]]
) -> None:
    for owner in OWNERS:
        client.delete(HISTORY, headers=of(owner))
    made: list[str] = []
    # What each has: by id, for each of two captions whether it is a favourite, the verdict and the edited text.
    has: dict[str, dict[str, list[list[Any]]]] = {owner: {} for owner in OWNERS}
    for owner, step, which, number, verdict, edited in steps:
        caption = made[which % len(made)] if made else NEVER
        mine = has[owner].get(caption)
        there = mine is not None and number < 2
        url, headers = f"{HISTORY}/{caption}", of(owner)
        if step == "caption":
            made.append(captioned(client, owner, candidates=2))
            has[owner][made[-1]] = [[False, None, None], [False, None, None]]
        elif step == "remove":
            assert client.delete(url, headers=headers).status_code == (204 if mine else 404)
            has[owner].pop(caption, None)
        elif step == "clear":
            assert said(client.delete(HISTORY, headers=headers))["removed"] == len(has[owner])
            has[owner].clear()
        elif step == "look":
            for path, shown in ((url, 200), (f"{url}/thumbnail", 200), (f"{url}/candidates/0/feedback", 200)):
                assert client.get(path, headers=headers).status_code == (shown if mine else 404)
        elif step in ("favour", "unfavour"):
            method = "PUT" if step == "favour" else "DELETE"
            answer = client.request(method, f"{url}/candidates/{number}/favourite", headers=headers)
            assert answer.status_code == (204 if there else 404)
            if mine and there:
                mine[number][0] = step == "favour"
        else:
            sent = {"verdict": verdict, "edited": edited}
            answer = client.put(f"{url}/candidates/{number}/feedback", json=sent, headers=headers)
            assert answer.status_code == (200 if there else 404)
            if mine and there:
                mine[number][1:] = [verdict, edited]
    for owner in OWNERS:
        found = {
            each["id"]: [[text["favourite"], text["verdict"], text["edited"]] for text in each["captions"]]
            for each in page(client, owner, limit=100)
        }
        assert found == has[owner]
        rows = client.get("/api/v1/feedback/export", headers=of(owner)).text.splitlines()
        assert {json.loads(row)["metadata"]["caption"] for row in rows} <= set(has[owner])
        favourites = {each["id"] for each in page(client, owner, favourite=True)}
        assert favourites == {each for each, texts in has[owner].items() if any(text[0] for text in texts)}
