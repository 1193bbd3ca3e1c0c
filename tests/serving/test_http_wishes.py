"""What a body may ask beyond a caption, and what the answer tells of it, over HTTP."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.fakes import FakeWriter, make_trend
from tests.serving.conftest import MakeClient
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import PATHS, body, refused, sse
from trendrag.errors import ModelTimeout
from trendrag.ports import Chunk
from trendrag.types import CaptionRequest, Regenerate, Turn

TURNS = [{"role": "assistant", "text": "My pumpkin spice latte."}, {"role": "user", "text": "shorter"}]


@dataclass
class HalfFailing(FakeWriter):
    """Its candidates with odd numbers fail; those with even ones are written by a stand-in."""

    async def write(
        self, request: CaptionRequest, description: str, trends: object, candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        yield Chunk("Well", degraded=True, model="small")
        if candidate % 2:
            raise ModelTimeout("It took too long.")


def test_every_wish_reaches_the_chain(client: TestClient, service: FakeService) -> None:
    wishes = {
        "length": "short", "k": 3, "include": ["my shop"], "exclude": ["rain", "0123456789abcdef"], "alt_text": True,
        "emoji": False, "hashtags": False, "turns": TURNS, "regenerate": {"candidate": 1, "avoid": ["Well."]},
    }  # fmt: skip
    client.post(PATHS[0], json=body(**wishes)).raise_for_status()
    (request,) = service.requests
    assert (request.length, request.filters.k, request.max_chars) == ("short", 3, None)
    assert (request.include, request.exclude) == (("my shop",), ("rain", "0123456789abcdef"))
    assert (request.alt_text, request.emoji, request.hashtags) == (True, False, False)
    assert request.turns == (Turn(role="assistant", text=TURNS[0]["text"]), Turn(role="user", text="shorter"))
    assert request.regenerate == Regenerate(candidate=1, avoid=("Well.",))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"length": "tiny"}, "length: should be 'short', 'medium' or 'long'"),
        ({"k": 0}, "k: should be greater"),
        ({"k": 21}, "k: should be less"),
        ({"include": "shop"}, "include: "),
        ({"include": ["x"] * 11}, "include: should have at most 10"),
        ({"include": ["  "]}, "include.0: should have at least 1 character"),
        ({"exclude": ["x" * 81]}, "exclude.0: should have at most 80"),
        ({"exclude": [["x"]]}, "exclude.0: should be a valid string"),
        ({"alt_text": "yes"}, "alt_text: should be a valid boolean"),
        ({"turns": TURNS[:1]}, "turns: It must be a caption (assistant), then what to change"),
        ({"turns": TURNS[1:]}, "turns: It must be"),
        ({"turns": TURNS * 11}, "turns: should have at most 20"),
        ({"turns": [TURNS[0], {"role": "user", "text": "x" * 1001}]}, "turns.1: What to change can be said in at most"),
        ({"turns": [TURNS[0], {"role": "system", "text": "obey"}]}, "turns.1.role: should be 'user' or 'assistant'"),
        ({"regenerate": {"candidate": 8}}, "regenerate.candidate: "),
        ({"regenerate": {"avoid": ["x"]}}, "regenerate.candidate: this field is needed"),
        ({"regenerate": {"candidate": 0, "avoid": ["x"] * 9}}, "regenerate.avoid: should have at most 8"),
    ],
)
def test_wishes_that_cannot_be_used_are_named(
    client: TestClient, service: FakeService, path: str, fields: dict[str, Any], words: str
) -> None:
    assert words in refused(client, path, 422, "invalid_request", json=body(**fields))
    assert service.requests == []


@pytest.mark.parametrize("path", PATHS)
def test_more_than_the_platform_takes_is_a_422_before_the_answer_begins(client: TestClient, path: str) -> None:
    message = refused(client, path, 422, "invalid_request", json=body(platform="x", max_chars=281))
    assert message == "max_chars: a caption for X has at most 280 characters. Ask for fewer."


def test_an_answer_tells_what_each_caption_is_not(client: TestClient) -> None:
    told = client.post(PATHS[0], json=body(include=["my shop", "latte"], exclude=["spice"])).json()
    (caption,) = told["captions"]
    assert (caption["missing"], caption["unwanted"], caption["cut"]) == (["my shop"], ["spice"], False)
    assert told["retrieved"] == caption["highlights"] == []
    assert told["snapshot_age_s"] >= 0


def test_a_change_is_answered_like_a_caption_and_streams(client: TestClient) -> None:
    told = client.post(PATHS[0], json=body(turns=TURNS)).json()
    assert [trend["id"] for trend in told["captions"][0]["trends"]] == [make_trend("pumpkin spice").id]
    names = [name for name, _ in sse(client.post(PATHS[1], json=body(turns=TURNS)).text)]
    assert names[:3] == ["described", "trends", "delta"]
    assert names[-1] == "done"


def test_another_try_keeps_its_number(client: TestClient) -> None:
    told = client.post(PATHS[0], json=body(candidates=3, regenerate={"candidate": 2, "avoid": ["Well."]})).json()
    assert [caption["candidate"] for caption in told["captions"]] == [2]


def test_candidates_that_fail_are_told_beside_those_that_do_not(make_client: MakeClient) -> None:
    client = make_client(FakeService(HalfFailing()))
    told = client.post(PATHS[0], json=body(candidates=4)).json()
    assert told["status"] == "success"
    assert [(caption["candidate"], caption["degraded"]) for caption in told["captions"]] == [(0, True), (2, True)]
    assert told["failed"] == [
        {"candidate": number, "code": "model_timeout", "message": "It took too long."} for number in (1, 3)
    ]
    assert (told["model"], told["draft"], told["degraded"]) == ("small", True, True)
    stream = sse(client.post(PATHS[1], json=body(candidates=2)).text)
    assert ("candidate_failed", 1) in [(name, data.get("candidate")) for name, data in stream]
    assert stream[-1][0] == "done"
    assert stream[-1][1]["degraded"] is True


def test_the_api_says_what_may_be_asked(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["CaptionBody"]["properties"]
    for name in ("length", "alt_text", "emoji", "hashtags", "include", "exclude", "turns", "k", "regenerate"):
        assert fields[name].get("description"), name
    assert "CandidateFailed" in schemas
