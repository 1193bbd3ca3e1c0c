"""What is rising now, over HTTP."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from indexes.retriever import TrendRetriever
from tests.fakes import NOW, make_trend
from tests.indexes.test_retriever import open_retriever, publish_trends
from tests.serving.fakes import FakeService
from tests.serving.owners import opened
from tests.serving.test_history import Param, refused, said
from trendrag.settings import Settings

TRENDS = "/api/v1/trends"
LATER = NOW + timedelta(minutes=90, seconds=30)
PATHS = [TRENDS, "/api/v1/snapshot", "/api/v1/snapshot/sources", f"{TRENDS}/{make_trend('topic 1').id}"]


@pytest.fixture
def retriever(tmp_path: Path) -> TrendRetriever:
    folder = tmp_path / "snapshots"
    publish_trends(
        folder,
        *[make_trend(f"topic {number}", score=number / 10) for number in range(5)],
        make_trend("Oktoberfest", region="DE", language="de", categories=("food",), stage="fading", score=0.05),
    )
    made = open_retriever(folder)
    made.load()
    return made


@pytest.fixture
def client(settings: Settings, retriever: TrendRetriever) -> Iterator[TestClient]:
    with opened(settings, FakeService(trends=retriever), lambda: LATER) as made:
        yield made


def phrases(client: TestClient, **params: Param) -> list[str]:
    return [each["phrase"] for each in said(client.get(TRENDS, params=params))["items"]]


def test_the_strongest_come_first_with_where_they_were_seen_and_of_when_that_is(client: TestClient) -> None:
    told = said(client.get(TRENDS))
    assert [each["score"] for each in told["items"]] == [0.4, 0.3, 0.2, 0.1, 0.05, 0.0]
    assert told["items"][0]["evidence"][0]["url"] == "https://news.example/1"
    assert (told["passing"], told["next"], told["withheld"]) == (6, None, 0)
    assert (told["snapshot"]["origin"], told["snapshot"]["count"]) == ("live", 6)


def test_pages_and_filters(client: TestClient) -> None:
    first = said(client.get(TRENDS, params={"limit": 4}))
    second = said(client.get(TRENDS, params={"limit": 4, "cursor": first["next"]}))
    assert [each["phrase"] for each in second["items"]] == ["Oktoberfest", "topic 0"]
    assert second["next"] is None
    assert phrases(client, q="OKTOBERFEST") == phrases(client, category="food") == ["Oktoberfest"]
    assert phrases(client, stage="fading", region="de", language="de") == ["Oktoberfest"]
    assert phrases(client, region="US", category=["food", "sport"]) == []
    assert "Oktoberfest" not in phrases(client, language="en")


def test_one_trend_and_one_that_is_not_there(client: TestClient) -> None:
    told = said(client.get(PATHS[-1]))
    assert told["trend"]["phrase"] == "topic 1"
    for other in ("nothing", "%00", "x" * 200):
        refused(client.get(f"{TRENDS}/{other}"), 404, "not_found")


def test_the_snapshot_tells_its_age_in_whole_minutes(client: TestClient) -> None:
    told = said(client.get("/api/v1/snapshot"))
    assert (told["age_s"], told["trends_age_s"], told["withheld"]) == (5400, 5400, 0)
    assert told["snapshot"]["label"] == "trends last seen 2026-11-20 12:00 UTC"


def test_sources_are_told_with_how_new_they_are(client: TestClient) -> None:
    told = said(client.get("/api/v1/snapshot/sources"))
    assert told["items"] == [{"source": "test", "trends": 6, "newest": None}]


@pytest.mark.parametrize("path", PATHS)
def test_what_has_not_changed_is_not_sent_again(client: TestClient, retriever: TrendRetriever, path: str) -> None:
    first = client.get(path)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    assert first.headers["cache-control"] == "private, no-cache"
    for asked in (tag, f'"other", W/{tag}', "*"):
        again = client.get(path, headers={"If-None-Match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    publish_trends(retriever._snapshots_dir, make_trend("topic 1"), now=NOW + timedelta(hours=1))
    retriever.load()
    renewed = client.get(path, headers={"If-None-Match": tag})
    assert renewed.status_code == 200
    assert renewed.headers["etag"] != tag


def test_another_question_has_another_tag(client: TestClient) -> None:
    questions: list[dict[str, Any]] = [
        {}, {"q": "topic"}, {"limit": 3}, {"stage": "fading"}, {"region": "US"}, {"category": "food"},
        {"cursor": said(client.get(TRENDS, params={"limit": 2}))["next"]},
    ]  # fmt: skip
    assert len({client.get(TRENDS, params=each).headers["etag"] for each in questions}) == len(questions)


@pytest.mark.parametrize("path", PATHS)
def test_without_trends_there_is_nothing_to_look_through(settings: Settings, path: str) -> None:
    with opened(settings) as client:
        answer = client.get(path)
        refused(answer, 503, "no_snapshot")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    "params", [{"region": "USA"}, {"language": "x y"}, {"stage": "gone"}, {"limit": 0}, {"q": "x" * 201}]
)
def test_a_question_that_can_not_be_answered_says_why(client: TestClient, params: dict[str, str]) -> None:
    refused(client.get(TRENDS, params=params), 422, "invalid_request")
