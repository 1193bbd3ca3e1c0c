"""The ways in which an image arrives: as a form with a file, by its address, and slowly or all at once."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from serving.http import middleware
from serving.http.middleware import Pace
from serving.http.schemas import CaptionBody
from serving.http.uploads import MAX_PARTS, MAX_TEXT
from serving.image_pool import ImagePool
from tests.ingest.server import Server, serving
from tests.serving.conftest import MakeClient, Serve
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.pictures import encoded, picture, png_bomb
from tests.serving.test_http_captions import PATHS, PHOTO, b64, body, refused, sse
from tests.serving.test_http_wire import connection, ends, post
from trendrag.errors import Busy
from trendrag.settings import FetchSettings, ImageSettings

Fields = list[tuple[str, str | bytes]]


def form(fields: Fields, boundary: str = "x") -> dict[str, Any]:
    """Arguments for a client: each field as it is written, bytes as a file."""
    content = b""
    for name, value in fields:
        content += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, bytes):
            content += b'; filename="photo.exe"\r\nContent-Type: text/html\r\n\r\n' + value + b"\r\n"
        else:
            content += b"\r\n\r\n" + value.encode() + b"\r\n"
    content += f"--{boundary}--\r\n".encode()
    return {"content": content, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


FILE: Fields = [("image", PHOTO)]


@pytest.mark.parametrize("path", PATHS)
def test_a_form_says_the_same_as_json(client: TestClient, service: FakeService, path: str) -> None:
    said = {
        "note": "grüße 🎃", "platform": "x", "tone": "dry", "language": "pt-BR", "candidates": 3, "max_chars": 99,
        "trends": False, "region": "us", "trend_language": "en", "categories": ["food", "true"],
    }  # fmt: skip
    client.post(path, json=body(**said)).raise_for_status()
    texts = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in said.items()]
    texts[-1:] = [("categories", "food"), ("categories", "true")]
    client.post(path, **form([*texts[:4], *FILE, *texts[4:]])).raise_for_status()
    by_json, by_form = service.requests
    assert by_form == by_json
    assert by_form.filters.categories == ("food", "true")


def test_a_form_by_a_usual_client(client: TestClient, service: FakeService) -> None:
    """With its own boundary, its own headers for each part, and one file."""
    answer = client.post(PATHS[1], files={"image": ("photo.jpg", PHOTO)}, data={"note": "hi", "categories": ["a"]})
    assert sse(answer.text)[-1][0] == "done"
    assert service.requests[0].note == "hi"
    assert service.requests[0].filters.categories == ("a",)
    assert service.requests[0].image.data == PHOTO


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("candidates", "0")], "candidates: should be greater than or equal to 1"),
        ([("candidates", "two")], "candidates: should be a valid integer"),
        ([("candidates", "")], "candidates: should be a valid integer"),
        ([("candidates", "9" * 5000)], "candidates: should be a valid integer"),
        ([("candidates", "1"), ("candidates", "2")], "candidates: should be a valid integer"),
        ([("max_chars", "[" * 50_000)], "max_chars: should be a valid integer"),
        ([("trends", "yes")], "trends: should be a valid boolean"),
        ([("platform", "myspace")], "platform: should be 'generic'"),
        ([("note", "x" * 5000)], "note: should have at most 4000 characters"),
        ([("note", "a"), ("note", "b")], "note: should be a valid string"),
        ([("notes", "hi")], "notes: there is no such field. Fields are image, "),
        ([("<script>", "hi")], "there is no such field"),
        ([("image", PHOTO)], "image: send one file"),
        ([("image_url", "https://x.example/")], "not in both"),
    ],
    ids=range(14),
)
def test_a_form_is_validated_like_json(
    client: TestClient, service: FakeService, path: str, fields: Fields, words: str
) -> None:
    message = refused(client, path, 422, "invalid_request", **form(FILE + fields))
    assert words in message
    assert "<script>" not in message
    assert service.requests == []


@pytest.mark.parametrize("name", ["candidates", "max_chars", "trends", "language", "region", "tone"])
@pytest.mark.parametrize("text", ["0", "true", "null", "x y", "1e400", '{"a": 1}', "NaN", "-1"])
def test_the_words_are_those_of_json(client: TestClient, name: str, text: str) -> None:
    try:
        value = json.loads(text) if name in ("candidates", "max_chars", "trends") else text
    except ValueError:
        value = text
    content = json.dumps(body(**{name: value})).encode()
    by_json = client.post(PATHS[0], content=content, headers={"content-type": "application/json"})
    by_form = client.post(PATHS[0], **form([*FILE, (name, text)]))
    assert by_form.status_code == by_json.status_code
    if by_json.status_code != 200:
        assert by_form.json() == by_json.json()


def test_a_form_without_an_image(client: TestClient) -> None:
    assert "either in `image`" in refused(client, PATHS[0], 422, "invalid_request", **form([("note", "hi")]))


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        (b"", 422, "invalid_image"),
        (b"no image", 422, "invalid_image"),
        (b64(PHOTO).encode(), 422, "invalid_image"),
        (PHOTO[: len(PHOTO) // 2], 422, "invalid_image"),
        (png_bomb(), 413, "image_too_large"),
        (bytes(300_001), 413, "image_too_large"),
    ],
    ids=["empty", "text", "base64", "truncated", "bomb", "bytes"],
)
def test_bad_files(client: TestClient, image: bytes, status: int, code: str) -> None:
    refused(client, PATHS[1], status, code, **form([("image", image)]))


GOOD = form(FILE)["content"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "multipart/form-data; boundary=x", 400, "invalid_form"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 400, "invalid_form"),
        (GOOD, "multipart/form-data", 400, "invalid_form"),
        (GOOD, "multipart/form-data; boundary=", 400, "invalid_form"),
        (GOOD, "multipart/form-data; boundary=" + "y" * 300, 400, "invalid_form"),
        (GOOD, "multipart/form-data; boundary=y", 400, "invalid_form"),
        (GOOD[:-10], "multipart/form-data; boundary=x", 400, "invalid_form"),
        (GOOD[:100], "multipart/form-data; boundary=x", 400, "invalid_form"),
        (GOOD.replace(b'name="image"', b"name"), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (GOOD.replace(b"Content-Disposition", b"X"), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (GOOD.replace(b"text/html", b"x" * 9000), "multipart/form-data; boundary=x", 400, "invalid_form"),
        (b"--x\r\n" + b"a: b\r\n" * 100 + b"\r\n\r\n--x--", "multipart/form-data; boundary=x", 400, "invalid_form"),
        (form([("note", "x")])["content"].replace(b"\r\nx\r\n", b"\r\n\xff\r\n"), "multipart/form-data; boundary=x",
         400, "invalid_form"),
        (form([("categories", "a")] * (MAX_PARTS + 1))["content"], "multipart/form-data; boundary=x", 413,
         "body_too_large"),
        (form([("note", "x" * (MAX_TEXT + 1))])["content"], "multipart/form-data; boundary=x", 413, "body_too_large"),
        (GOOD, "multipart/mixed; boundary=x", 415, "unsupported_media_type"),
    ],
    ids=range(16),
)  # fmt: skip
def test_forms_that_are_none(client: TestClient, content: bytes, kind: str, status: int, code: str) -> None:
    refused(client, PATHS[0], status, code, content=content, headers={"content-type": kind})


def test_the_description_is_true(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    for path in PATHS:
        content = described["paths"][path]["post"]["requestBody"]["content"]
        named = {kind: told["schema"]["$ref"].rpartition("/")[2] for kind, told in content.items()}
        assert named == {"application/json": "CaptionBody", "multipart/form-data": "CaptionBodyForm"}
        assert "408" in described["paths"][path]["post"]["responses"]
    as_form, as_json = schemas["CaptionBodyForm"]["properties"], schemas["CaptionBody"]["properties"]
    assert set(as_form) == set(as_json) == set(CaptionBody.model_fields)
    assert as_form["image"]["contentMediaType"] == "application/octet-stream"
    assert as_form["note"]["type"] == "string"
    assert as_form["candidates"] == as_json["candidates"]
    assert as_form["categories"]["items"]["type"] == "string"


# -- by address


@pytest.fixture
async def pictures() -> AsyncIterator[Server]:
    async with serving() as running:
        running.answer("/1.jpg", PHOTO)
        running.answer("/page", b"<html>this is a page</html>", Content_Type="image/jpeg")
        running.answer("/gone", status="404 Not Found")
        running.answer("/broken", status="500 Oops")
        running.answer("/large", bytes(300_001))
        yield running


@pytest.mark.parametrize("path", PATHS)
@ends
async def test_an_image_by_its_address(serve: Serve, pictures: Server, path: str) -> None:
    service = FakeService()
    fetch = FetchSettings(allow_http=True, allow_private=True, ports=(pictures.port,))
    port = serve(service, fetch=fetch)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        answer = await client.post(path, json={"image_url": pictures.url("/1.jpg"), "note": "hi"})
        assert answer.status_code == 200
        assert service.requests[0].image.data == PHOTO
        assert (await client.post(path, **form([("image_url", pictures.url("/1.jpg"))]))).status_code == 200
        for place, status, code in [
            ("/page", 422, "invalid_image"),
            ("/gone", 422, "invalid_image"),
            ("/broken", 502, "remote_image_failed"),
            ("/large", 413, "image_too_large"),
        ]:
            told = await client.post(path, json={"image_url": pictures.url(place)})
            assert (told.status_code, told.json()["code"]) == (status, code), told.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "https://localhost/", "https://[::1]/", "file:///etc/passwd", "", "https://0x7f.1/"]
)
def test_addresses_of_ours_are_refused(client: TestClient, path: str, url: str) -> None:
    refused(client, path, 422, "address_refused", json={"image_url": url})


# -- limits


@ends
async def test_a_file_that_is_too_large_is_refused_while_it_arrives(serve: Serve) -> None:
    port = serve(FakeService())
    begun = GOOD.split(PHOTO)[0] + PHOTO.ljust(300_001, b"\0")
    async with connection(port) as (reader, writer):
        head = post(PATHS[0], begun, length=400_000)
        writer.write(head.replace(b"application/json", b"multipart/form-data; boundary=x"))
        assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
        assert json.loads(await reader.readuntil(b"}"))["code"] == "image_too_large"


@ends
async def test_a_slow_upload_ends_with_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "Pace", lambda: Pace(grace_s=0.2, bytes_per_s=1e9))
    port = serve(FakeService())
    for kind, begun in (("application/json", b"{"), ("multipart/form-data; boundary=x", b"--x")):
        async with connection(port) as (reader, writer):
            writer.write(post(PATHS[0], begun, length=1000).replace(b"application/json", kind.encode()))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 408 " in head
            assert b"connection: close" in head.lower()
            assert json.loads(await reader.read())["code"] == "body_too_slow"


@ends
async def test_a_steady_upload_has_its_time_extended_and_the_answer_has_no_limit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little time for the first byte, an hour for each one after it; then a model that takes longer."""
    monkeypatch.setattr(middleware, "Pace", lambda: Pace(grace_s=0.2, bytes_per_s=1 / 3600))
    writer = GatedWriter()
    port = serve(FakeService(writer))
    content = json.dumps(body()).encode()
    async with connection(port) as (reader, sender), connection(port) as (other, silent):
        sender.write(post(PATHS[1], content[:1], length=len(content)))
        await sender.drain()
        silent.write(post(PATHS[1], b"", length=len(content)))
        assert b" 408 " in await other.readuntil(b"\r\n\r\n")  # by now the first one's grace is over too
        sender.write(content[1:])
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.begun.wait()


@ends
async def test_a_slow_upload_holds_no_slot(serve: Serve) -> None:
    port = serve(FakeService())
    async with connection(port) as (_, one), connection(port) as (_, two), connection(port) as (_, three):
        for each in (one, two, three):  # two captions at once are the limit
            each.write(post(PATHS[0], b"{", length=1000))
            await each.drain()
        async with httpx2.AsyncClient(timeout=60) as client:
            assert (await client.post(f"http://127.0.0.1:{port}{PATHS[0]}", json=body())).status_code == 200


@ends
async def test_a_stream_under_way_no_longer_counts_its_upload(serve: Serve) -> None:
    """Its image is long prepared: what all bodies together may hold is free for others."""
    gates = [GatedWriter() for _ in range(2)]
    service = FakeService(gates[0])
    large = b64(encoded(picture(), quality=95) + bytes(290_000))
    port = serve(service, image=ImageSettings(max_bytes=300_000))
    content = json.dumps({"image": large}).encode()
    async with connection(port) as (_, one):
        one.write(post(PATHS[1], content))
        await gates[0].begun.wait()
        service.writer = FakeService().writer
        async with httpx2.AsyncClient(timeout=60) as client:
            for _ in range(10):  # eight of this size are the limit
                answer = await client.post(f"http://127.0.0.1:{port}{PATHS[0]}", json={"image": large})
                assert answer.status_code == 200


@pytest.fixture
def pool() -> Iterator[ImagePool]:
    with ImagePool.open(1, 1) as opened:
        yield opened


@ends
async def test_work_that_waits_is_bounded(pool: ImagePool) -> None:
    go, begun = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go.wait()
        return threading.current_thread().name

    one, two = asyncio.create_task(pool.run(work)), asyncio.create_task(pool.run(work))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(Busy):
        await pool.run(work)
    # One that has begun keeps its place when its caller leaves; one that only waits gives it back.
    one.cancel()
    await asyncio.wait({one})
    with pytest.raises(Busy):
        await pool.run(work)
    two.cancel()
    await asyncio.wait({two})
    go.set()
    assert (await pool.run(work)).startswith("image")


def test_a_full_pool_is_told_with_retry_after(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise Busy("Too many.")

    monkeypatch.setattr(ImagePool, "run", full)
    answer = make_client(FakeService()).post(PATHS[0], json=body())
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0
