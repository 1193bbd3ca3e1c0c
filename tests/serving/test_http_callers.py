"""Who gets in, as whom, and what they may: over HTTP, with keys in both databases."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from serving.app import create_app
from serving.drain import Drain
from serving.http.callers import CallerDep, needs
from serving.http.jobs import writing
from serving.http.state import STATE_KEY, AppState
from serving.identity.keyring import FRESH
from serving.identity.keys import Scope, new_key
from serving.identity.store import KeyStore
from serving.identity.visitors import COOKIE, SECURE_COOKIE
from serving.jobs.worker import NotWritten
from serving.store.database import Database
from tests.fakes import NOW, FakeWriter
from tests.serving.conftest import SMALL, Serve
from tests.serving.fakes import FakeService
from tests.serving.identities import Clock, away, claim_of, made
from tests.serving.pages import SCRIPT, TINY_PAGE
from tests.serving.test_http_captions import PATHS, body
from tests.serving.test_http_jobs import finished
from tests.serving.test_http_wire import connection, ends, post
from tests.serving.test_openai_chat import MESSAGES
from trendrag.errors import ModelInterrupted, ModelRejected, ModelUnavailable
from trendrag.settings import LimitSettings, Settings

ELSEWHERE = ("203.0.113.9", 40_000)
HERE = ("127.0.0.1", 40_000)
Ask = Callable[..., TestClient]


class Keys:
    """Makes keys beside the server, as the command does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make(self, *scopes: Scope, **limits: Any) -> str:
        async def run() -> str:
            database = Database.of(self._settings)
            try:
                return (await made(KeyStore(database), scopes or ("captions", "history"), **limits))[0]
            finally:
                await database.aclose()

        return asyncio.run(run())

    def used(self, key: str) -> int:
        async def run() -> int:
            database = Database.of(self._settings)
            try:
                return (await KeyStore(database).uses(NOW.date()))[claim_of(key).id]
            finally:
                await database.aclose()

        return asyncio.run(run())

    def revoke(self, key: str) -> None:
        async def run() -> None:
            database = Database.of(self._settings)
            await KeyStore(database).revoke(claim_of(key).id, NOW)
            await database.aclose()

        asyncio.run(run())


@pytest.fixture
def keys(service_settings: Settings) -> Keys:
    return Keys(service_settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def who(caller: CallerDep) -> dict[str, str]:
    return {"owner": caller.owner, "kind": caller.kind}


def wired(app: FastAPI) -> FastAPI:
    """With two routes as other parts have them: one for any caller, one for those who may see a history."""
    app.add_api_route("/who", who)
    app.add_api_route("/history", who, dependencies=[needs("history")])
    return app


@pytest.fixture
def ask(service_settings: Settings, clock: Clock) -> Iterator[Ask]:
    """A client at an address, of a server with the settings given; keys are required unless said otherwise."""
    with ExitStack() as stack:

        def start(
            *,
            client: tuple[str, int] = ELSEWHERE,
            service: FakeService | None = None,
            url: str = "http://127.0.0.1",
            limits: LimitSettings | None = None,
            **server: object,
        ) -> TestClient:
            changed = service_settings.server.model_copy(update={"keys": "required"} | server)
            counted = {"limits": limits} if limits else {}
            settings = service_settings.model_copy(update=SMALL | {"server": changed} | counted)
            app = wired(create_app(settings, (service or FakeService()).open, clock, built_page=TINY_PAGE))
            return stack.enter_context(TestClient(app, url, raise_server_exceptions=False, client=client))

        yield start


def refusal(answer: httpx2.Response | Any, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert (told["status"], told["code"]) == ("error", code)
    return str(told["message"])


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# A key


@pytest.mark.parametrize("path", PATHS)
def test_a_key_opens_and_is_whose_it_is(ask: Ask, keys: Keys, path: str) -> None:
    client = ask()
    key = keys.make()
    for headers in (with_key(key), {"X-API-Key": key}):
        assert client.post(path, json=body(), headers=headers).status_code == 200
        assert client.get("/who", headers=headers).json() == {"owner": f"key:{claim_of(key).id}", "kind": "key"}


@pytest.mark.parametrize("path", PATHS)
def test_without_one_nothing_is_written_and_the_answer_says_how_to_send_it(ask: Ask, path: str) -> None:
    service = FakeService()
    answer = ask(service=service).post(path, json=body())
    assert "Authorization: Bearer" in refusal(answer, 401, "key_missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="TrendRAG"'
    assert not service.requests


def test_unknown_and_damaged_keys_are_told_the_same(ask: Ask, keys: Keys) -> None:
    client = ask()
    good = keys.make()
    stranger, _ = new_key("never kept", frozenset(), NOW)
    answers = [client.get("/who", headers=with_key(sent)) for sent in (stranger, good[:-1], "tr_", "x" * 5_000)]
    told = {refusal(answer, 401, "key_invalid") for answer in answers}
    assert len(told) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {
        'Bearer realm="TrendRAG", error="invalid_token"'
    }


def test_expired_and_revoked_keys_are_told_so(ask: Ask, keys: Keys, clock: Clock) -> None:
    client = ask()
    expired, revoked = keys.make(expires_at=NOW), keys.make()
    assert client.get("/who", headers=with_key(revoked)).status_code == 200
    keys.revoke(revoked)
    clock.at += FRESH
    assert "expired" in refusal(client.get("/who", headers=with_key(expired)), 401, "key_expired")
    assert "revoked" in refusal(client.get("/who", headers=with_key(revoked)), 401, "key_revoked")


HOSTILE = [
    [(b"authorization", b"Bearer KEY"), (b"authorization", b"Bearer OTHER")],
    [(b"x-api-key", b"KEY"), (b"authorization", b"Bearer OTHER")],
    [(b"x-api-key", b"KEYx")],
    [(b"x-api-key", b"\xff\xfe\x80")],
    [(b"authorization", b"Bearer \xc3\xa9\xf0\x9f\x8e\x83")],
    [(b"authorization", b"Bearer " + b"A" * 60_000)],
    [(b"authorization", b"Bearer")],
    [(b"cookie", b"trendrag_visitor=" + b"A" * 5_000)],
    [(b"cookie", b"trendrag_visitor=\xff; =; ;;")],
]


@pytest.mark.parametrize("headers", HOSTILE)
def test_hostile_headers_are_a_401(ask: Ask, keys: Keys, headers: list[tuple[bytes, bytes]]) -> None:
    key, other = keys.make().encode(), keys.make().encode()
    sent = [(name, value.replace(b"KEY", key).replace(b"OTHER", other)) for name, value in headers]
    answer = ask().get("/who", headers=sent)
    assert answer.status_code == 401
    assert answer.json()["code"] in ("key_invalid", "key_missing")


def test_a_missing_scope_is_named(ask: Ask, keys: Keys) -> None:
    client = ask()
    key = keys.make("metrics")
    answer = client.post(PATHS[0], json=body(), headers=with_key(key))
    assert "`captions`" in refusal(answer, 403, "scope_missing")
    assert 'error="insufficient_scope", scope="captions"' in answer.headers["www-authenticate"]
    assert "`history`" in refusal(client.get("/history", headers=with_key(key)), 403, "scope_missing")
    assert client.get("/history", headers=with_key(keys.make("history"))).status_code == 200


def test_no_key_gets_into_logs_or_answers(ask: Ask, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = ask()
    good, expired, weak = keys.make(), keys.make(expires_at=NOW), keys.make("metrics")
    shown = ""
    for key in (good, expired, weak, good[:-1]):
        for sent in ({"json": body()}, {"json": {"note": key}}, {"content": key}, {"json": body(candidates=9)}):
            answer = client.post(PATHS[0], headers=with_key(key), **sent)
            shown += f"{answer.text} {answer.headers}"
    shown += caplog.text
    for key in (good, expired, weak):
        assert claim_of(key).secret not in shown


# Nobody's body is read before they are known


@ends
async def test_a_stranger_is_refused_before_the_body_arrives(serve: Serve, service_settings: Settings) -> None:
    server = service_settings.server.model_copy(update={"keys": "required", "hosts": ("test",)})
    port = serve(FakeService(), server=server)
    for path in PATHS:
        async with connection(port) as (reader, sender):
            sender.write(post(path, b"{", length=250_000))
            assert b"401 Unauthorized" in await reader.readuntil(b"\r\n\r\n")


# The quota


@ends
async def test_a_hundred_requests_at_once_to_two_servers_get_ten_captions(
    serve: Serve, service_settings: Settings
) -> None:
    server = service_settings.server.model_copy(update={"keys": "required", "max_concurrent": 100})
    free = LimitSettings(requests_per_minute=0, captions_per_day=0, concurrent=0)  # the quota alone counts
    ports = [serve(FakeService(), server=server, data_dir=service_settings.data_dir, limits=free) for _ in range(2)]
    database = Database.of(service_settings)
    key, kept = await made(KeyStore(database), captions_per_day=10)
    async with httpx2.AsyncClient(headers=with_key(key), timeout=None) as client:
        urls = [f"http://127.0.0.1:{ports[n % 2]}{PATHS[n // 2 % 2]}" for n in range(100)]
        answers = await asyncio.gather(*(client.post(url, json=body()) for url in urls))
    statuses = [answer.status_code for answer in answers]
    assert {status: statuses.count(status) for status in set(statuses)} == {200: 10, 429: 90}
    assert await KeyStore(database).uses(NOW.date()) == {kept.id: 10}
    await database.aclose()


@pytest.mark.parametrize("path", PATHS)
def test_a_quota_that_is_used_up_says_when_to_come_back(ask: Ask, keys: Keys, clock: Clock, path: str) -> None:
    client = ask()
    headers = with_key(keys.make(captions_per_day=3))
    assert client.post(path, json=body(candidates=2), headers=headers).status_code == 200
    answer = client.post(path, json=body(candidates=2), headers=headers)
    assert "3 captions a day" in refusal(answer, 429, "quota_exceeded")
    assert answer.headers["retry-after"] == str(12 * 3600)
    clock.pass_(hours=12)
    assert client.post(path, json=body(candidates=2), headers=headers).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_captions_that_failed_are_given_back(ask: Ask, keys: Keys, path: str) -> None:
    service = FakeService(FakeWriter(error=ModelInterrupted("it broke off")))
    client = ask(service=service)
    headers = with_key(keys.make(captions_per_day=1))
    for _ in range(3):
        assert client.post(path, json=body(), headers=headers).status_code in (200, 502)
    service.writer = FakeService().writer
    assert client.post(path, json=body(), headers=headers).status_code == 200
    refusal(client.post(path, json=body(), headers=headers), 429, "quota_exceeded")


def test_a_job_that_is_asked_for_again_costs_nothing(ask: Ask, keys: Keys) -> None:
    client = ask(limits=LimitSettings(captions_per_day=1))
    key = keys.make(captions_per_day=1)
    headers = with_key(key) | {"Idempotency-Key": "k"}
    answers = [client.post("/api/v1/jobs", json=body(), headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len({answer.json()["job"]["id"] for answer in answers}) == 1
    refusal(client.post("/api/v1/jobs", json=body(), headers=with_key(key)), 429, "quota_exceeded")
    assert keys.used(key) == 1


def test_jobs_that_failed_are_given_back_and_those_that_did_not_are_not(ask: Ask, keys: Keys) -> None:
    service = FakeService(FakeWriter(error=ModelRejected("it said no")))
    client = ask(service=service)
    headers = with_key(keys.make(captions_per_day=2))

    def done() -> str:
        answer = client.post("/api/v1/jobs", json=body(candidates=2), headers=headers)
        assert answer.status_code == 202, answer.json()
        return str(finished(client, answer.json()["job"]["id"], headers)["state"])

    assert [done(), done(), done()] == ["failed"] * 3
    service.writer = FakeService().writer
    assert done() == "done"
    refusal(client.post("/api/v1/jobs", json=body(), headers=headers), 429, "quota_exceeded")


@dataclass
class Ending(FakeService):
    """Asked, it fails; with a ``drain``, our server's time is over just then."""

    name: str = "tiny"
    drain: Drain | None = None

    async def _end(self) -> None:
        if self.drain is None:
            raise ModelUnavailable("It is away.")
        self.drain.cut()
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    async def complete(self, body: bytes) -> bytes:
        await self._end()
        return b""

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        await self._end()
        yield b""


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["trendrag", "tiny"])
def test_chats_that_failed_are_given_back(
    service_settings: Settings, keys: Keys, clock: Clock, model: str, stream: bool, cut: bool
) -> None:
    drain = Drain()
    service = Ending(drain=drain if cut else None)
    service.gateway = service
    required = service_settings.server.model_copy(update={"keys": "required", "hosts": ("test",)})
    app = create_app(service_settings.model_copy(update={"server": required}), service.open, clock, drain=drain)
    key = keys.make(captions_per_day=1)
    asked = {"model": model, "messages": MESSAGES, "stream": stream}
    with TestClient(app, "http://test", raise_server_exceptions=False) as client:
        for _ in range(1 if cut else 3):
            answer = client.post("/v1/chat/completions", json=asked, headers=with_key(key))
            refusal(answer, 503, "shutting_down" if cut else "model_unavailable")
    assert keys.used(key) == 0


def test_an_answer_that_is_told_again_counts_as_a_request(ask: Ask, keys: Keys) -> None:
    client = ask(limits=LimitSettings(requests_per_minute=3))
    headers = with_key(keys.make()) | {"Idempotency-Key": "k"}
    answers = [client.post(PATHS[0], json=body(), headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true", None]


def test_bad_requests_cost_nothing(ask: Ask, keys: Keys) -> None:
    client = ask()
    headers = with_key(keys.make(captions_per_day=1))
    for bad in ({}, {"image": "bm8gaW1hZ2U="}, body(candidates=99)):
        assert client.post(PATHS[0], json=bad, headers=headers).status_code == 422
    assert client.post(PATHS[0], json=body(), headers=headers).status_code == 200


@ends
async def test_a_database_that_goes_away_stops_nobody_who_was_there(serve: Serve, service_settings: Settings) -> None:
    server = service_settings.server.model_copy(update={"keys": "required"})
    port = serve(FakeService(), server=server, data_dir=service_settings.data_dir)
    database = Database.of(service_settings)
    known, _ = await made(KeyStore(database), captions_per_day=1)
    new, _ = await made(KeyStore(database))
    url = f"http://127.0.0.1:{port}{PATHS[0]}"
    async with httpx2.AsyncClient(timeout=60) as client:
        assert (await client.post(url, json=body(), headers=with_key(known))).status_code == 200
        async with away(database):
            answer = await client.post(url, json=body(), headers=with_key(new))
            refusal(answer, 503, "storage_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert (await client.post(url, json=body(), headers=with_key(known))).status_code == 200
    await database.aclose()


def test_a_job_of_a_key_that_was_revoked_meanwhile_is_not_written(ask: Ask, keys: Keys, clock: Clock) -> None:
    service = FakeService()
    client = ask(service=service)
    key = keys.make()
    answer = client.post(PATHS[0], json=body(), headers=with_key(key))
    assert answer.status_code == 200
    state: AppState = client.app_state[STATE_KEY]
    write = writing(state.service, state.drain, state.keeper, state.door)
    owner = f"key:{claim_of(key).id}"
    assert client.portal
    assert client.portal.call(write, service.requests[0], owner)["captions"]
    keys.revoke(key)
    clock.at += FRESH
    written = len(service.requests)
    with pytest.raises(NotWritten, match="revoked"):
        client.portal.call(write, service.requests[0], owner)
    assert client.portal.call(write, service.requests[0], "local")["captions"]
    assert len(service.requests) == written + 1


# Who needs a key


@pytest.mark.parametrize(
    ("mode", "host", "client", "opens"),
    [
        ("auto", "127.0.0.1", HERE, True),
        ("auto", "::1", ("::1", 1), True),
        ("auto", "localhost", ("testclient", 1), True),
        ("auto", "127.0.0.1", ELSEWHERE, False),  # a proxy on this machine says from where
        ("auto", "0.0.0.0", HERE, False),  # noqa: S104 - and a proxy there may not say
        ("auto", "::", HERE, False),
        ("auto", "trendrag.example", HERE, False),
        ("required", "127.0.0.1", HERE, False),
        ("off", "0.0.0.0", ELSEWHERE, True),  # noqa: S104
    ],
)
def test_who_is_asked_for_a_key(ask: Ask, mode: str, host: str, client: tuple[str, int], opens: bool) -> None:
    answer = ask(keys=mode, host=host, client=client).get("/who")
    assert answer.status_code == (200 if opens else 401)
    if opens:
        assert answer.json() == {"owner": "local", "kind": "local"}


def test_where_nobody_is_asked_a_key_still_says_who_and_any_other_word_says_nothing(ask: Ask, keys: Keys) -> None:
    client = ask(keys="off")
    key = keys.make(captions_per_day=1)
    assert client.get("/who", headers=with_key(key)).json()["kind"] == "key"
    assert client.post(PATHS[0], json=body(), headers=with_key(key)).status_code == 200
    refusal(client.post(PATHS[0], json=body(), headers=with_key(key)), 429, "quota_exceeded")
    refusal(client.get("/who", headers=with_key(key[:-1])), 401, "key_invalid")
    refusal(client.get("/metrics", headers=with_key(key)), 403, "scope_missing")
    assert client.get("/who", headers=with_key("EMPTY")).json()["kind"] == "local"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", SCRIPT])
def test_what_is_open_to_everybody(ask: Ask, path: str) -> None:
    assert ask().get(path).status_code == 200


def test_every_other_route_asks_for_a_key(ask: Ask) -> None:
    client = ask()
    open_to_all = {"/", "/healthz", "/readyz", "/openapi.json", "/assets/{name}"}
    app = client.app
    assert isinstance(app, FastAPI)
    paths = app.openapi()["paths"]
    asked = {(method, path) for path, methods in paths.items() for method in methods if path not in open_to_all}
    assert asked >= {("post", PATHS[0]), ("post", PATHS[1]), ("get", "/metrics"), ("get", "/who")}
    for method, path in asked:
        answer = client.request(method, re.sub(r"\{\w+\}", "x", path), json=body() if method == "post" else None)
        assert answer.status_code == 401, (method, path)


def test_metrics_are_for_keys_of_that_scope(ask: Ask, keys: Keys) -> None:
    client = ask(visitors=True)
    refusal(client.get("/metrics"), 401, "key_missing")
    refusal(client.get("/metrics", headers=with_key(keys.make())), 403, "scope_missing")
    assert "trendrag_captions_total" in client.get("/metrics", headers=with_key(keys.make("metrics"))).text
    client.get("/")
    refusal(client.get("/metrics"), 403, "scope_missing")  # a visitor
    assert ask(keys="off").get("/metrics").status_code == 200


def test_why_the_server_is_not_ready_is_for_those_who_may_know(ask: Ask, keys: Keys) -> None:
    service = FakeService(model_error=ModelUnavailable("No model server at http://10.0.0.7:8001/v1."))
    client = ask(service=service)
    for headers in ({}, with_key(keys.make()), with_key("tr_no")):
        answer = client.get("/readyz", headers=headers)
        assert answer.status_code == 503
        assert "10.0.0.7" not in answer.text
    assert "10.0.0.7" in client.get("/readyz", headers=with_key(keys.make("metrics"))).text
    assert "10.0.0.7" in ask(service=service, keys="off").get("/readyz").text


# Visitors of the page


def test_the_page_gives_a_cookie_that_says_who(ask: Ask) -> None:
    one, other = ask(keys="auto", client=HERE), ask(keys="auto", client=HERE)
    answer = one.get("/")
    assert answer.headers["cache-control"] == "private, no-cache"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= flags
    assert "secure" not in flags
    first = one.get("/who").json()
    assert first["kind"] == "visitor"
    assert len(first["owner"]) <= 80
    assert one.get("/").status_code == 200  # comes again, and is the same
    assert one.get("/who").json() == first
    other.get("/")
    assert other.get("/who").json() != first
    assert one.post(PATHS[0], json=body()).status_code == 200


def test_over_https_the_cookie_is_bound_to_this_host(ask: Ask) -> None:
    client = ask(keys="off", url="https://127.0.0.1")
    cookie = client.get("/").headers["set-cookie"]
    assert cookie.startswith(f"{SECURE_COOKIE}=")
    assert "; Secure" in cookie
    assert "Domain" not in cookie
    assert client.get("/who").json()["kind"] == "visitor"
    value = client.cookies[SECURE_COOKIE]
    client.cookies.clear()
    client.cookies.set(COOKIE, value)
    assert client.get("/who").json()["kind"] == "local"  # a neighbour's host can plant one of this name


def test_programs_get_no_cookie(ask: Ask) -> None:
    client = ask(keys="off")
    for path in ("/healthz", "/readyz", "/metrics", "/who", "/openapi.json", SCRIPT):
        assert "set-cookie" not in client.get(path).headers
    assert "set-cookie" not in client.post(PATHS[0], json=body()).headers


def test_where_keys_are_needed_a_cookie_opens_nothing(ask: Ask) -> None:
    visitor = ask(visitors=True)
    visitor.get("/")
    closed = ask()
    assert "set-cookie" not in closed.get("/").headers
    closed.cookies.update(visitor.cookies)
    refusal(closed.get("/who"), 401, "key_missing")
    refusal(closed.post(PATHS[0], json=body()), 401, "key_missing")


def test_visitors_who_are_let_in_may_write_and_see_what_they_wrote(ask: Ask, keys: Keys) -> None:
    client = ask(visitors=True)
    refusal(client.post(PATHS[0], json=body()), 401, "key_missing")  # a program
    client.get("/")
    assert client.post(PATHS[0], json=body()).status_code == 200
    assert client.get("/history").json()["kind"] == "visitor"
    assert client.get("/who", headers=with_key(keys.make())).json()["kind"] == "key"  # a key says more


def test_a_forged_cookie_is_nobodys(ask: Ask) -> None:
    client = ask(visitors=True)
    client.get("/")
    forged = client.cookies[COOKIE].replace(client.cookies[COOKIE][:5], "AAAAA")
    client.cookies.clear()
    refusal(client.get("/who", headers={"Cookie": f"{COOKIE}={forged}"}), 401, "key_missing")


# The description


def test_the_description_says_what_each_route_asks(ask: Ask) -> None:
    described = ask().get("/openapi.json").json()
    schemes = described["components"]["securitySchemes"]
    assert schemes["ApiKey"]["name"] == "X-API-Key"
    assert schemes["Bearer"]["scheme"] == "bearer"
    assert schemes["Visitor"]["in"] == "cookie"
    for path, method, scope in (
        (PATHS[0], "post", "captions"),
        (PATHS[1], "post", "captions"),
        ("/metrics", "get", "metrics"),
    ):
        route = described["paths"][path][method]
        assert {"ApiKey": [scope]} in route["security"]
        assert {"Bearer": [scope]} in route["security"]
        assert {"401", "403"} <= set(route["responses"])
    assert "429" in described["paths"][PATHS[0]]["post"]["responses"]
    for path in ("/healthz", "/readyz"):
        assert "security" not in described["paths"][path]["get"]
