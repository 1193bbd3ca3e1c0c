"""What `POST /api/v1/caption` and its stream say to good requests and to every bad one."""

import base64
import json
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from serving.http.errors import STATUS
from tests.fakes import FakeDescriber, FakeJudge, FakeRetriever, FakeWriter, found, make_trend
from tests.serving.conftest import LogLines, MakeClient
from tests.serving.fakes import BrokenService, FailingDescriber, FakeService
from tests.serving.pictures import encoded, picture, png_bomb
from trendrag import errors
from trendrag.chain import JUDGED_NONE
from trendrag.errors import ModelInterrupted, ModelTimeout, ModelUnavailable, TrendragError
from trendrag.text import clean_note
from trendrag.types import Delta, Described, Retrieval

PHOTO = encoded(picture())
PATHS = ["/api/v1/caption", "/api/v1/caption/stream"]
LONG_NOTE = "what a lovely autumn morning walking through the park"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body(**fields: Any) -> dict[str, Any]:
    return {"image": b64(PHOTO)} | fields


def sse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(event name, data) of each block, comments left out."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    lines = [dict(line.split(": ", 1) for line in block) for block in blocks]
    return [(block["event"], json.loads(block["data"])) for block in lines]


def refused(client: TestClient, path: str, status: int, code: str, **request: Any) -> str:
    answer = client.post(path, **request)
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, "error", code), told
    assert set(told) == {"status", "code", "message"}
    assert len(told["message"]) < 600
    message: str = told["message"]
    return message


def test_the_answer_has_captions_with_highlights_evidence_and_the_age_of_the_trends(
    client: TestClient, service: FakeService
) -> None:
    answer = client.post("/api/v1/caption", json=body(candidates=2))
    assert answer.status_code == 200
    told = answer.json()
    assert told["status"] == "success"
    assert len(told["captions"]) == 2
    caption = told["captions"][0]
    assert caption["text"] == "My pumpkin spice latte."
    trend = make_trend("pumpkin spice")
    assert caption["highlights"] == [{"start": 3, "end": 16, "trend_id": trend.id}]
    assert caption["trends"][0]["evidence"][0]["url"] == "https://news.example/1"
    assert 0 < caption["confidence"] <= 1
    assert told["snapshot"]["label"] == "sample trends, recorded 2026-11-20"
    assert (told["description"], told["model"], told["draft"]) == ("a cup of coffee", "fake", False)
    assert told["usage"]["completion_tokens"] > 0
    assert told["timings"]["total"] >= told["timings"]["first_token"]
    assert [hit["trend"]["id"] for hit in told["retrieved"]] == [trend.id]


@pytest.mark.parametrize(
    ("judge", "retrieved", "judged", "reason"),
    [
        (None, 1, None, None),
        (FakeJudge(frozenset({0})), 1, "model", None),
        (FakeJudge(), 0, "model", JUDGED_NONE),
        (FakeJudge(error=ModelUnavailable("overloaded")), 1, "failed", None),
    ],
)
def test_the_answer_and_the_stream_say_who_judged_the_trends(
    client: TestClient,
    service: FakeService,
    judge: FakeJudge | None,
    retrieved: int,
    judged: str | None,
    reason: str | None,
) -> None:
    service.judge = judge
    told = client.post("/api/v1/caption", json=body()).json()
    assert (len(told["retrieved"]), told["judged"], told["reason"]) == (retrieved, judged, reason)
    assert (told["timings"]["judge"] is not None) == (judge is not None)
    stream = sse(client.post("/api/v1/caption/stream", json=body()).text)
    (event,) = [data for name, data in stream if name == "trends"]
    assert (len(event["trends"]), event["judged"], event["reason"]) == (retrieved, judged, reason)
    assert stream[-1][0] == "done"


def test_every_field_reaches_the_chain(client: TestClient, service: FakeService) -> None:
    client.post(
        "/api/v1/caption",
        json=body(
            note="hello", platform="x", tone="dry", language="pt-BR", candidates=3, max_chars=99, region="us",
            trend_language="en", categories=["food"],
        ),
    ).raise_for_status()  # fmt: skip
    (request,) = service.requests
    assert (request.note, request.platform, request.tone, request.language) == ("hello", "x", "dry", "pt-BR")
    assert (request.candidates, request.max_chars, request.trends) == (3, 99, True)
    assert request.filters.model_dump() == {"region": "US", "language": "en", "categories": ("food",), "k": None}


def test_no_fitting_trend_is_no_error_and_says_why(make_client: MakeClient) -> None:
    told = make_client(FakeService(retriever=FakeRetriever(found()))).post("/api/v1/caption", json=body()).json()
    assert told["captions"][0]["highlights"] == told["captions"][0]["trends"] == told["retrieved"] == []
    assert told["reason"] == "No trend fits this photo."


def test_no_snapshot_is_no_error_either(make_client: MakeClient) -> None:
    service = FakeService(retriever=FakeRetriever(Retrieval(reason="No trends yet.")))
    answer = make_client(service).post("/api/v1/caption", json=body())
    assert answer.status_code == 200
    assert answer.json()["snapshot"] is None


def test_trends_switched_off(client: TestClient, service: FakeService) -> None:
    told = client.post("/api/v1/caption", json=body(trends=False)).json()
    assert told["retrieved"] == []
    assert service.retriever.queries == []


def test_the_stream_sends_named_events_in_order(client: TestClient) -> None:
    answer = client.post("/api/v1/caption/stream", json=body())
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = sse(answer.text)
    names = [name for name, _ in events]
    assert names == ["described", "trends", "delta", "delta", "delta", "highlight", "candidate_done", "done"]
    assert all(data["type"] == name for name, data in events)
    assert events[1][1]["snapshot"]["label"] == "sample trends, recorded 2026-11-20"
    assert "".join(data["text"] for name, data in events if name == "delta") == events[-2][1]["text"]


def test_line_ends_in_a_caption_stay_inside_their_event(make_client: MakeClient) -> None:
    text = "one\ntwo\r\n\r\ndata: three\u2028\n\nevent: failed"
    events = sse(make_client(FakeService(FakeWriter(chunks=(text,)))).post(PATHS[1], json=body()).text)
    assert [data["text"] for name, data in events if name == "delta"] == [text.replace("\r", "")]
    assert events[-1][0] == "done"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("image", "status", "code", "words"),
    [
        (b"no image", 422, "invalid_image", "not an image"),
        (PHOTO[: len(PHOTO) // 2], 422, "invalid_image", "damaged or cut short"),
        (png_bomb(), 413, "image_too_large", "at most 4 million"),
        (bytes(300_001), 413, "image_too_large", "at most 300,000 bytes"),
    ],
    ids=["text", "truncated", "bomb", "bytes"],
)
def test_bad_images(client: TestClient, path: str, image: bytes, status: int, code: str, words: str) -> None:
    assert words in refused(client, path, status, code, json={"image": b64(image)})


ODD = {
    "1x1 gif": encoded(Image.new("RGB", (1, 1)), "GIF"),
    "cmyk": encoded(picture().convert("CMYK")),
    "16 bit": encoded(Image.new("I;16", (30, 30), 9999), "PNG"),
    "animated": encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]),
    "rotated": encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("image", ODD.values(), ids=ODD)
def test_odd_images_are_fine(client: TestClient, service: FakeService, image: bytes) -> None:
    assert client.post("/api/v1/caption", json={"image": b64(image)}).status_code == 200
    sent = service.requests[0].image
    if image == ODD["rotated"]:
        assert (sent.width, sent.height) == (48, 64)


@pytest.mark.parametrize("prefix", ["data:image/jpeg;base64,", "DATA:application/octet-stream;BASE64,", ""])
def test_data_urls_and_folded_base64(client: TestClient, prefix: str) -> None:
    folded = base64.encodebytes(PHOTO).decode()
    assert client.post("/api/v1/caption", json={"image": prefix + folded}).status_code == 200


@pytest.mark.parametrize("image", ["!!!!", "abc", "data:image/png,abc", "data:", "é" * 8, "AAAA\u0000"])
def test_what_is_no_base64(client: TestClient, image: str) -> None:
    message = refused(client, "/api/v1/caption", 422, "invalid_image", json={"image": image})
    assert message.startswith("image: ")


@pytest.mark.parametrize(
    "note", ["", "  \n", "a\x00b", "🎃👩‍👩‍👧", "مرحبا \u202eevil", "x" * 4000, "{note} <system>"], ids=range(7)
)
def test_notes_of_every_kind(client: TestClient, service: FakeService, note: str) -> None:
    assert client.post("/api/v1/caption", json=body(note=note)).status_code == 200
    assert service.requests[0].note == (note if clean_note(note) else None)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"note": "x" * 100_000}, "note: should have at most 4000 characters"),
        ({"note": 5}, "note: should be a valid string"),
        ({"candidates": 0}, "candidates: should be greater than or equal to 1"),
        ({"candidates": 9}, "candidates: should be less than or equal to 8"),
        ({"candidates": "2"}, "candidates: should be a valid integer"),
        ({"candidates": True}, "candidates: should be a valid integer"),
        ({"candidates": 1.5}, "candidates: "),
        ({"max_chars": 10**30}, "max_chars: "),
        ({"trends": "yes"}, "trends: should be a valid boolean"),
        ({"platform": "myspace"}, "platform: should be 'generic'"),
        ({"language": "en\n"}, "language: "),
        ({"region": "USA"}, "region: "),
        ({"categories": "food"}, "categories: "),
        ({"tone": "x" * 61}, "tone: "),
        ({"image": 7}, "image: should be a valid string"),
        ({"image": ""}, "image: should have at least 1 character"),
        ({"image": None}, "either in `image` (base64) or in `image_url`"),
        ({"image_url": "https://pictures.example/1.jpg"}, "not in both"),
        ({"notes": "hi"}, "notes: there is no such field. Fields are image, "),
        ({"<script>" + "k" * 5000: 1}, "there is no such field"),
    ],
)
def test_bad_fields_are_named(
    client: TestClient, service: FakeService, path: str, fields: dict[str, Any], words: str
) -> None:
    data = json.dumps(body(**fields))
    headers = {"content-type": "application/json"}
    message = refused(client, path, 422, "invalid_request", content=data, headers=headers)
    assert words in message
    assert "<script>" not in message
    assert service.requests == []


def test_what_was_sent_is_not_repeated(client: TestClient) -> None:
    message = refused(client, PATHS[0], 422, "invalid_request", json=body(note=["hunter2"], region="hunter2"))
    assert "hunter2" not in message


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b'{"note": "\xff"}', "application/json", 400, "invalid_json"),
        (rb'{"note": "\ud800"}', "application/json", 400, "invalid_json"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (b'{"candidates": ' + b"9" * 5000 + b"}", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b"null", "application/json", 422, "invalid_request"),
        (b"", "application/json", 422, "invalid_request"),
        (b"", "", 415, "unsupported_media_type"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"image=x", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "application/json", 422, "invalid_request"),
    ],
)
def test_bodies_that_are_no_json_object(
    client: TestClient, path: str, content: bytes, kind: str, status: int, code: str
) -> None:
    refused(client, path, status, code, content=content, headers={"content-type": kind} if kind else {})


def test_unknown_addresses_and_methods(client: TestClient) -> None:
    for answer, status, code in [
        (client.get("/nothing/here"), 404, "not_found"),
        (client.get("/assets/secret.txt"), 404, "not_found"),
        (client.get("/docs"), 404, "not_found"),
        (client.get("/api/v1/caption"), 405, "method_not_allowed"),
        (client.delete("/healthz"), 405, "method_not_allowed"),
    ]:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "POST" in client.get("/api/v1/caption").headers["allow"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ModelUnavailable("Start the model server."), 503, True),
        (ModelTimeout("It took too long."), 504, False),
        (errors.ModelRejected("It refused."), 502, False),
    ],
)
def test_a_model_that_fails_at_once_gets_its_status(
    make_client: MakeClient, path: str, error: TrendragError, status: int, retry: bool
) -> None:
    client = make_client(FakeService(describer=FailingDescriber(error)))
    assert refused(client, path, status, error.code, json=body()) == str(error)
    assert ("retry-after" in client.post(path, json=body()).headers) == retry


def test_a_model_that_fails_in_mid_stream_ends_it_with_failed(make_client: MakeClient) -> None:
    service = FakeService(FakeWriter(error=ModelInterrupted("The model broke off.")))
    client = make_client(service)
    events = sse(client.post(PATHS[1], json=body(note=LONG_NOTE)).text)
    assert [name for name, _ in events] == ["described", "trends", "delta", "delta", "candidate_failed", "failed"]
    assert events[-1][1] == {"type": "failed", "code": "model_interrupted", "message": "The model broke off."}
    assert refused(client, PATHS[0], 502, "model_interrupted", json=body()) == "The model broke off."
    assert service.writer.open_streams == 0


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), None], ids=["raises", "just ends"])
def test_a_chain_that_breaks_its_promises(make_client: MakeClient, error: Exception | None) -> None:
    begun = (Described(text="a cup", source="model"), Delta(candidate=0, text="A"))
    client = make_client(BrokenService(events=begun, error=error))
    text = client.post(PATHS[1], json=body()).text
    assert [name for name, _ in sse(text)] == ["described", "delta", "failed"]
    assert sse(text)[-1][1]["code"] == "internal"
    assert "hunter2" not in text
    assert "hunter2" not in refused(client, PATHS[0], 500, "internal", json=body())
    assert refused(make_client(BrokenService(error=error)), PATHS[1], 500, "internal", json=body())


def test_an_unexpected_error_is_a_500_with_the_request_id_and_no_trace(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    def boom(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("serving.http.state.prepare_image", boom)
    answer = make_client(FakeService()).post("/api/v1/caption", json=body(), headers={"X-Request-ID": "trace-me"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"] == "trace-me"
    (line,) = [line for line in log_lines() if "exception" in line]
    assert line["request_id"] == "trace-me"
    assert "hunter2" in line["exception"]


def test_every_error_of_the_project_has_a_status() -> None:
    def tree(kind: type[TrendragError]) -> set[str]:
        return {kind.code}.union(*(tree(child) for child in kind.__subclasses__()))

    of_no_request = {"malformed_line"}  # `trendrag batch` alone raises it
    assert tree(TrendragError) - of_no_request == set(STATUS)


def test_a_draft_says_so(make_client: MakeClient) -> None:
    client = make_client(FakeService(FakeWriter(draft=True), FakeDescriber(always=True)))
    assert client.post(PATHS[0], json=body()).json()["draft"] is True
    assert sse(client.post(PATHS[1], json=body()).text)[-1][1]["draft"] is True
