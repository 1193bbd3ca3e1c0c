"""Feedback becomes rows that trainers take."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from serving.feedback_commands import feedback
from serving.records.history import History, Opinion
from serving.records.opinions import Opinions
from serving.records.training import BATCH, Rated, exported, pairs, wanted
from serving.store.database import Database
from tests.databases import environment
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.owners import captioned, of, opened
from tests.serving.test_history import HISTORY, entry, refused
from trendrag.prompting import caption_text, prompt
from trendrag.settings import Settings

EXPORT = "/api/v1/feedback/export"
TEXT = "My pumpkin spice latte."


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service_settings: Settings, service: FakeService) -> Iterator[TestClient]:
    with opened(service_settings, service) as made:
        yield made


def rows(client: TestClient, **params: str) -> list[dict[str, Any]]:
    answer = client.get(EXPORT, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


def judged(client: TestClient, caption: str, number: int = 0, **said: str) -> None:
    client.put(f"{HISTORY}/{caption}/candidates/{number}/feedback", json=said).raise_for_status()


def test_a_liked_text_follows_the_prompt_that_the_model_had(client: TestClient, service: FakeService) -> None:
    caption = captioned(client, note="«Größe» {x} first snow", tone="dry")
    captioned(client)  # nothing was said of it
    judged(client, caption, verdict="like")
    (row,) = rows(client)
    offered = service.retriever.answer.trends
    assert row["messages"] == [
        {"role": "system", "content": prompt("system")},
        {"role": "user", "content": caption_text(service.requests[0], offered)},
        {"role": "assistant", "content": TEXT},
    ]
    assert "pumpkin spice" in row["messages"][1]["content"]
    assert row["metadata"] == {
        "caption": caption,
        "candidate": 0,
        "image_sha256": service.requests[0].image.sha256,
        "model": "fake",
    }
    assert rows(client, format="preference") == []


def test_a_text_put_right_is_preferred_to_the_one_that_was_written(client: TestClient) -> None:
    caption = captioned(client, candidates=2)
    judged(client, caption, 1, verdict="dislike", edited="Mine is better.")
    (row,) = rows(client, format="preference")
    assert set(row) == {"prompt", "chosen", "rejected", "metadata"}
    assert [each["role"] for each in row["prompt"]] == ["system", "user"]
    assert row["chosen"] == [{"role": "assistant", "content": "Mine is better."}]
    assert row["rejected"] == [{"role": "assistant", "content": TEXT}]
    (example,) = rows(client, format="sft")
    assert example["messages"][-1]["content"] == "Mine is better."


@pytest.mark.parametrize(
    ("opinions", "liked", "preferred"),
    [
        ({}, [], []),
        ({0: Opinion(favourite=True)}, [], []),
        ({0: Opinion(verdict="like"), 1: Opinion(verdict="like")}, ["a", "b"], []),
        ({0: Opinion(verdict="dislike"), 1: Opinion(verdict="dislike")}, [], []),
        ({0: Opinion(verdict="like"), 1: Opinion(verdict="dislike")}, ["a"], [("a", "b")]),
        (
            {0: Opinion(verdict="like", edited="A"), 1: Opinion(verdict="dislike"), 2: Opinion(verdict="dislike")},
            ["A"],
            [("A", "a"), ("A", "b"), ("A", "c")],
        ),
        ({0: Opinion(verdict="dislike", edited="A")}, ["A"], [("A", "a")]),
        ({0: Opinion(edited="a")}, ["a"], []),
        ({0: Opinion(verdict="like", edited="b"), 1: Opinion(verdict="dislike")}, ["b"], [("b", "a")]),
        ({7: Opinion(verdict="like")}, [], []),
    ],
)
def test_what_is_learnt_from_what_was_said(
    opinions: dict[int, Opinion], liked: list[str], preferred: list[tuple[str, str]]
) -> None:
    rated = Rated("1", "", {}, {}, ["a", "b", "c"], opinions)
    assert [text for _, text in wanted(rated)] == liked
    assert pairs(rated) == preferred


def test_only_feedback_from_then_on_if_asked(client: TestClient) -> None:
    old, new = captioned(client), captioned(client)
    judged(client, old, verdict="like")
    judged(client, new, verdict="like")
    since = (NOW + timedelta(hours=1)).isoformat()
    assert rows(client, since=since) == []
    assert len(rows(client, since=NOW.isoformat())) == 2
    refused(client.get(EXPORT, params={"since": "2026-11-20T12:00:00"}), 422, "invalid_request")  # of no zone
    assert rows(client, since="0001-01-01T00:00:00+14:00") != []
    refused(client.get(EXPORT, params={"format": "csv"}), 422, "invalid_request")


async def test_more_than_fits_into_memory_at_once_comes_piece_by_piece(service_settings: Settings) -> None:
    database = Database.of(service_settings)
    try:
        many = 2 * BATCH + 3
        entries = [entry(number, number // 10) for number in range(many)]
        for each in entries:
            each.answer.update({"retrieved": [], "model": "fake"})  # type: ignore[attr-defined]
        await History(database).add(entries)
        for number in range(many):
            await Opinions(database).judge("one", f"{number:032x}", 0, "like", None, NOW)
        pieces = [piece async for piece in exported(database, "sft", "one")]
        assert [piece.count("\n") for piece in pieces] == [BATCH, BATCH, 3]
        found = [json.loads(line)["metadata"]["caption"] for piece in pieces for line in piece.splitlines()]
        assert found == [f"{number:032x}" for number in range(many)]
        assert [piece async for piece in exported(database, "sft", "two")] == []
    finally:
        await database.aclose()


def test_an_answer_that_can_not_be_read_costs_no_other(client: TestClient, service_settings: Settings) -> None:
    caption = captioned(client)
    judged(client, caption, verdict="like")

    async def add() -> None:
        database = Database.of(service_settings)
        await History(database).add([entry(1, 0, "visitor:one")])  # its answer says nothing of trends
        await Opinions(database).judge("visitor:one", f"{1:032x}", 0, "like", None, NOW)
        await database.aclose()

    assert client.portal
    client.portal.call(add)
    assert [row["metadata"]["caption"] for row in rows(client)] == [caption]


def test_the_operator_exports_what_everybody_said(
    service_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(service_settings) as client:
        for owner in ("visitor:one", "visitor:two"):
            caption = captioned(client, owner)
            url = f"{HISTORY}/{caption}/candidates/0/feedback"
            client.put(url, json={"edited": "Größer."}, headers=of(owner)).raise_for_status()
    for name, value in environment(service_settings).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "pairs.jsonl"
    result = CliRunner().invoke(feedback, ["export", "--format", "preference", "--output", str(file)])
    assert (result.exit_code, result.stderr) == (0, "2 rows\n")
    assert [json.loads(line)["chosen"][0]["content"] for line in file.read_text("utf-8").splitlines()] == [
        "Größer."
    ] * 2
    result = CliRunner().invoke(feedback, ["export", "--since", "2100-01-01"])
    assert (result.exit_code, result.stdout) == (0, "")
