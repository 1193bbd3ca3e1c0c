"""What a caller is told who asks too much, and who is charged."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi import Request
from starlette.testclient import TestClient

from serving.app import create_app
from serving.http.callers import Caller, caller
from serving.http.errors import HttpError
from serving.http.limits import WRONG_KEYS
from tests.fakes import NOW, FakeDescriber, FakeWriter
from tests.serving.conftest import SMALL, Serve
from tests.serving.fakes import FailingDescriber, FakeService, GatedWriter
from tests.serving.pages import SCRIPT, TINY_PAGE
from tests.serving.test_http_captions import PATHS, body, refused
from tests.serving.test_http_wire import connection, ends
from trendrag.errors import ModelUnavailable
from trendrag.settings import LimitSettings, ServerSettings, Settings

FEW = LimitSettings(requests_per_minute=3, captions_per_day=10, concurrent=1)
OPEN = ServerSettings(keys="off", hosts=("test", "testserver"))
PROXY = OPEN.model_copy(update={"trusted_proxies": ("127.0.0.1/32",)})

Make = Callable[..., TestClient]


async def somebody(request: Request) -> Caller:
    """A stand-in for keys: `good…` is one, anything else is none."""
    key = request.headers.get("x-api-key")
    if key is None:
        return Caller("visitor:1", "visitor")
    if not key.startswith("good"):
        raise HttpError(401, "unauthorized", "There is no such key.")
    return Caller(f"key:{key}", "key")


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    with ExitStack() as stack:

        def client(service: FakeService | None = None, peer: str = "203.0.113.9", **limits: int) -> TestClient:
            changed = SMALL | {"server": OPEN, "limits": FEW.model_copy(update=limits)}
            app = create_app(
                settings.model_copy(update=changed), (service or FakeService()).open, lambda: NOW, built_page=TINY_PAGE
            )
            app.dependency_overrides[caller] = somebody
            return stack.enter_context(TestClient(app, raise_server_exceptions=False, client=(peer, 1)))

        yield client


def fields(header: str) -> dict[str, dict[str, int]]:
    """A structured list of `"name";r=1;t=2`."""
    items = {}
    for item in header.split(", "):
        name, *parameters = item.split(";")
        assert re.fullmatch(r'"[a-z]+"', name)
        items[name.strip('"')] = {key: int(value) for key, value in (each.split("=") for each in parameters)}
    return items


@pytest.mark.parametrize("path", PATHS)
def test_headers_say_what_is_left_and_a_refusal_when_to_come_again(make: Make, path: str) -> None:
    client = make(captions_per_day=100)
    answers = [client.post(path, json=body(candidates=2)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    policy = fields(answers[0].headers["ratelimit-policy"])
    assert policy == {"requests": {"q": 3, "w": 60}, "captions": {"q": 100, "w": 86_400}}
    left = [fields(answer.headers["ratelimit"]) for answer in answers]
    assert [each["requests"]["r"] for each in left] == [2, 1, 0, 0]
    assert [each["captions"]["r"] for each in left[:3]] == [98, 96, 94]
    told = answers[3].json()
    assert (told["status"], told["code"]) == ("error", "rate_limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 120


def test_captions_of_a_day_are_counted_by_candidates(make: Make) -> None:
    client = make(requests_per_minute=0)
    assert client.post(PATHS[0], json=body(candidates=8)).status_code == 200
    message = refused(client, PATHS[0], 429, "quota_exceeded", json=body(candidates=3))
    assert "10 captions in 24 hours" in message
    assert "2 are left" in message
    assert client.post(PATHS[0], json=body(candidates=2)).status_code == 200
    answer = client.post(PATHS[0], json=body())
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 3_600


def test_what_is_more_than_a_whole_day_is_never_promised(make: Make) -> None:
    answer = make(captions_per_day=3).post(PATHS[0], json=body(candidates=4))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert "retry-after" not in answer.headers


def test_a_bad_image_costs_a_request_and_no_caption(make: Make) -> None:
    client = make()
    assert client.post(PATHS[0], json={"image": "AAAA"}).status_code == 422
    answer = client.post(PATHS[0], json=body())
    assert fields(answer.headers["ratelimit"])["captions"]["r"] == 9


def test_errors_have_the_headers_too(make: Make) -> None:
    answer = make(FakeService(describer=FailingDescriber(ModelUnavailable("gone")))).post(PATHS[0], json=body())
    assert answer.status_code == 503
    assert set(fields(answer.headers["ratelimit"])) == {"requests", "captions"}


def test_a_good_key_is_counted_for_itself_and_not_for_its_address(make: Make) -> None:
    client = make()
    for _ in range(3):
        assert client.post(PATHS[0], json=body()).status_code == 200
    assert client.post(PATHS[0], json=body()).status_code == 429
    for key in ("good-1", "good-2"):
        for _ in range(3):
            assert client.post(PATHS[0], json=body(), headers={"X-API-Key": key}).status_code == 200
        assert client.post(PATHS[0], json=body(), headers={"X-API-Key": key}).status_code == 429


def test_a_header_that_only_looks_like_a_key_buys_nothing(make: Make) -> None:
    client = make()
    answers = [client.post(PATHS[0], json=body(), headers={"Authorization": "Bearer x"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_guessing_keys_ends(make: Make) -> None:
    client = make(requests_per_minute=0)
    for number in range(WRONG_KEYS):
        assert client.post(PATHS[0], json=body(), headers={"X-API-Key": f"guess-{number}"}).status_code == 401
    assert refused(client, PATHS[0], 429, "rate_limited", json=body(), headers={"X-API-Key": "guess"})
    assert client.post(PATHS[0], json=body()).status_code == 200, "who has no key may still ask"


@pytest.mark.parametrize(("peer", "limited"), [("127.0.0.1", False), ("::1", False), ("192.0.2.1", True)])
def test_programs_of_this_machine_are_not_counted(make: Make, peer: str, limited: bool) -> None:
    client = make(peer=peer)
    answers = [client.post(PATHS[0], json=body()) for _ in range(4)]
    assert (answers[-1].status_code == 429) is limited
    assert ("ratelimit" in answers[0].headers) is limited
    # A proxy here that speaks for others is no program of this machine, whether it was made known or not.
    spoken_for = client.post(PATHS[0], json=body(), headers={"X-Forwarded-For": "198.51.100.7"})
    assert "ratelimit" in spoken_for.headers


@pytest.mark.parametrize("path", ["/", SCRIPT, "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_pages_and_operators_are_not_counted(make: Make, path: str) -> None:
    client = make()
    assert [client.get(path).status_code for _ in range(5)] == [200] * 5
    assert "ratelimit" not in client.get(path).headers


def test_addresses_of_one_ipv6_network_are_one(settings: Settings) -> None:
    changed = {"limits": FEW, "server": PROXY}
    app = create_app(settings.model_copy(update=changed), FakeService().open, lambda: NOW)
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        told = [
            client.post(PATHS[0], json=body(), headers={"X-Forwarded-For": f"6.6.6.{n}, 2001:db8::{n}"}).status_code
            for n in range(4)
        ]
        assert told == [200, 200, 200, 429]
        answer = client.post(PATHS[0], json=body(), headers={"X-Forwarded-For": "2001:db8:0:1::1"})
        assert answer.status_code == 200


def proxied(path: str, client: str) -> bytes:
    content = json.dumps(body()).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nX-Forwarded-For: {client}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize("path", PATHS)
@ends
async def test_captions_at_a_time_are_counted_until_their_last_byte(serve: Serve, path: str) -> None:
    writer = GatedWriter()
    service = FakeService(writer, FakeDescriber())
    port = serve(service, limits=LimitSettings(concurrent=1), server=PROXY)
    async with connection(port) as (_, one):
        one.write(proxied(path, "198.51.100.1"))
        await writer.begun.wait()
        async with connection(port) as (reader, two):
            two.write(proxied(path, "198.51.100.1"))
            assert b" 429 " in await reader.readuntil(b"\r\n\r\n")
            assert json.loads(await reader.readuntil(b"}"))["code"] == "too_many_at_once"
            service.writer = FakeWriter()
            two.write(proxied(path, "198.51.100.2"))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n"), "another address is another caller"
    await writer.closed.wait()

    async def again() -> bytes:
        async with connection(port) as (reader, three):
            three.write(proxied(path, "198.51.100.1"))
            return await reader.readuntil(b"\r\n\r\n")

    # Given back just after the model was closed: ask until it is.
    while b" 429 " in (head := await again()):
        pass
    assert b" 200 " in head


@ends
async def test_a_refusal_does_not_wait_for_the_body(serve: Serve) -> None:
    port = serve(FakeService(), limits=LimitSettings(requests_per_minute=1), server=PROXY)
    for status in (b" 200 ", b" 429 "):
        async with connection(port) as (reader, writer):
            request = proxied(PATHS[0], "198.51.100.1")
            writer.write(request if status == b" 200 " else request[: request.index(b"\r\n\r\n") + 4])
            assert status in await reader.readuntil(b"\r\n\r\n")
