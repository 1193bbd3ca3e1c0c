"""Every fault of a model server, seen by a client of ours: a real faulty server behind, our real server in front.

Whatever happens, the client hears the truth, and one place in front of the model is enough for the next request.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx2
import pytest

from tests.fakes import FakeDescriber, FakeWriter, HashEmbedder
from tests.serving.conftest import serving_app
from tests.serving.faulty_server import WORDS, Fault, FaultyServer, serving
from tests.serving.test_http_captions import LONG_NOTE, PATHS, body, sse
from trendrag.settings import ModelSettings, ServerSettings, Settings

CAPTION = "".join(WORDS)
SILENT: set[Fault] = {"hang", "slow_headers", "slow_start", "only_comments", "endless"}
ONE_AT_A_TIME = ServerSettings(max_concurrent=1, max_waiting=0)


@pytest.fixture(autouse=True)
def _without_weights_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.service.open_embedder", lambda _settings: HashEmbedder())
    monkeypatch.setattr("serving.service.random.random", lambda: 0.0)  # retries come at once


@asynccontextmanager
async def our_server(
    settings: Settings,
    upstream: FaultyServer,
    model: dict[str, object] | None = None,
    server: ServerSettings = ONE_AT_A_TIME,
) -> AsyncIterator[httpx2.AsyncClient]:
    there = {"provider": "openai", "base_url": upstream.base_url, "name": "tiny", "connect_timeout_s": 60}
    fields: dict[str, object] = there | (model or {})
    changes = {"model": ModelSettings.model_validate(fields), "server": server}
    async with serving_app(settings.model_copy(update=changes)) as client:
        yield client


def limits(fault: Fault) -> dict[str, object]:
    """Short where they end the fault, and long enough for the request after it on a busy machine."""
    return {"first_token_timeout_s": 1.5, "token_timeout_s": 1.5, "total_timeout_s": 4} if fault in SILENT else {}


async def ended(client: httpx2.AsyncClient, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The text and the last event of a stream. The note says enough, so that writing is the model's first task."""
    answer = await client.post(PATHS[1], json=body(note=LONG_NOTE, **fields))
    assert answer.status_code == 200, answer.text
    events = sse(answer.text)
    return "".join(data["text"] for name, data in events if name == "delta"), events[-1][1]


async def works_again(client: httpx2.AsyncClient, upstream: FaultyServer) -> None:
    upstream.fault = "none"
    async with asyncio.timeout(60):
        # On a busy machine this one too may take longer than the short limits.
        while (answer := await client.post(PATHS[0], json=body(note=LONG_NOTE))).status_code == 504:
            pass
        assert answer.status_code == 200, answer.text
        assert answer.json()["captions"][0]["text"] == CAPTION
        while upstream.connections > 1:  # one may be kept for the next request; the broken ones are closed
            upstream.closed.clear()
            await upstream.closed.wait()


BEFORE_THE_FIRST_TOKEN: list[tuple[Fault, int, str]] = [
    ("hang", 504, "model_timeout"),
    ("slow_headers", 504, "model_timeout"),
    ("slow_start", 504, "model_timeout"),
    ("status", 503, "model_unavailable"),
    ("not_json", 503, "model_unavailable"),
    ("redirect", 502, "model_rejected"),
    ("reset", 502, "model_interrupted"),
    ("closed", 502, "model_interrupted"),
    ("slow_start_drop", 502, "model_interrupted"),
    ("empty", 502, "model_interrupted"),
]


@pytest.mark.parametrize(("fault", "status", "code"), BEFORE_THE_FIRST_TOKEN)
@pytest.mark.parametrize("path", PATHS)
async def test_a_fault_before_anything_was_sent_is_an_error_answer(
    settings: Settings, path: str, fault: Fault, status: int, code: str
) -> None:
    async with (
        serving(FaultyServer(fault)) as upstream,
        our_server(settings, upstream, limits(fault)) as client,
    ):
        answer = await client.post(path, json=body())  # without a note: the photo is described first
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert ("retry-after" in answer.headers) == (status == 503)
        await works_again(client, upstream)


@pytest.mark.parametrize(("fault", "_status", "code"), BEFORE_THE_FIRST_TOKEN)
async def test_a_fault_before_the_first_token_ends_a_stream_that_has_begun(
    settings: Settings, fault: Fault, _status: int, code: str
) -> None:
    async with (
        serving(FaultyServer(fault)) as upstream,
        our_server(settings, upstream, limits(fault)) as client,
    ):
        text, last = await ended(client)
        assert (text, last["type"], last["code"]) == ("", "failed", code)
        await works_again(client, upstream)


async def test_an_answer_without_end_is_cut_where_it_is_long_enough(settings: Settings) -> None:
    async with (
        serving(FaultyServer("endless")) as upstream,
        our_server(settings, upstream, limits("endless")) as client,
    ):
        text, last = await ended(client)
        assert last["type"] == "done"
        assert text.startswith("Morning")
        assert len(text) <= 280
        await asyncio.wait_for(upstream.client_left.wait(), 60)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("drop", "model_interrupted"),
        ("late_reset", "model_interrupted"),
        ("malformed", "model_interrupted"),
        ("error_event", "model_interrupted"),
        ("end_early", "model_interrupted"),
        ("aborted", "model_interrupted"),
        ("filtered", "model_rejected"),
        ("only_comments", "model_timeout"),
    ],
)
async def test_a_fault_in_mid_stream_ends_it_with_what_was_there(settings: Settings, fault: Fault, code: str) -> None:
    async with (
        serving(FaultyServer(fault)) as upstream,
        our_server(settings, upstream, limits(fault)) as client,
    ):
        text, last = await ended(client)
        assert (last["type"], last["code"]) == ("failed", code)
        assert text.startswith("Morning") or fault == "late_reset"
        assert len(upstream.requests) == 1 or fault == "late_reset", "nothing is written twice"
        answer = await client.post(PATHS[0], json=body(note=LONG_NOTE))
        assert answer.json()["code"] == code
        await works_again(client, upstream)


@pytest.mark.parametrize("fault", ["reset", "closed", "not_json", "status", "slow_start_drop"])
async def test_a_fault_that_passes_is_not_noticed(settings: Settings, fault: Fault) -> None:
    upstream = FaultyServer(fault, status=429, retry_after="0", times=2)
    async with serving(upstream), our_server(settings, upstream) as client:
        text, last = await ended(client)
        assert (text, last["type"], last["degraded"]) == (CAPTION, "done", False)
        assert len(upstream.requests) == 3


@pytest.mark.parametrize(("said", "told"), [("37", "37"), (None, "5")])
async def test_the_time_that_the_server_asks_for_reaches_the_client(
    settings: Settings, said: str | None, told: str
) -> None:
    async with (
        serving(FaultyServer("status", status=429, retry_after=said)) as upstream,
        our_server(settings, upstream) as client,
    ):
        answer = await client.post(PATHS[0], json=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, told)


class TestNobodyThere:
    @asynccontextmanager
    async def gone(self, settings: Settings, fallback: str = "none") -> AsyncIterator[tuple[httpx2.AsyncClient, int]]:
        """Our server, and the port on which a model server should be."""
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and it refuses
            port: int = taken.getsockname()[1]
            upstream = FaultyServer(base_url=f"http://127.0.0.1:{port}/v1")
            async with our_server(settings, upstream, {"fallback": fallback}) as client:
                yield client, port

    async def test_the_circuit_opens_and_answers_at_once(self, settings: Settings) -> None:
        async with self.gone(settings) as (client, port):
            for _ in range(2):
                _, last = await ended(client)
                assert last["code"] == "model_unavailable"
            for path in PATHS:
                answer = await client.post(path, json=body(note=LONG_NOTE))
                assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
                assert 1 <= int(answer.headers["retry-after"]) <= 5
                assert f"127.0.0.1:{port}" in answer.json()["message"]
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
            assert "left alone" in ready.json()["message"]

    async def test_the_fallback_writes_and_says_so(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        @asynccontextmanager
        async def drafts(_: Settings) -> AsyncIterator[tuple[FakeDescriber, FakeWriter]]:
            yield FakeDescriber("espresso"), FakeWriter(name="tiny draft", draft=True)

        monkeypatch.setattr("serving.models.embedded.open_embedded", drafts)
        async with self.gone(settings, fallback="embedded") as (client, _):
            for _ in range(3):  # with the circuit closed, and open
                answer = await client.post(PATHS[0], json=body())
                assert answer.status_code == 200, answer.text
                assert answer.json()["captions"][0]["text"] == "A caption."
                assert answer.json()["description"] == "espresso"
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert "left alone" in ready.json()["message"]


async def test_requests_wait_for_their_turn_and_a_client_that_leaves_the_line_gives_it_up(settings: Settings) -> None:
    upstream = FaultyServer("held", next_word=asyncio.Event())
    assert upstream.next_word is not None
    server = ServerSettings(max_concurrent=1, max_waiting=1)
    async with serving(upstream), our_server(settings, upstream, server=server) as client:

        async def asked() -> httpx2.Response:
            return await client.post(PATHS[0], json=body(note=LONG_NOTE))

        async def until_the_line_is(state: str) -> None:
            """Seen at the door, which a request with a bad image passes and goes no further."""
            while True:
                answer = await client.post(PATHS[0], json=body(image="AAAA"))
                if (answer.json()["code"] == "busy") == (state == "full"):
                    return

        async def is_refused() -> None:
            answer = await client.post(PATHS[0], json=body(note=LONG_NOTE))
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert int(answer.headers["retry-after"]) >= 1

        writing = asyncio.create_task(asked())
        await upstream.asked.wait()
        leaving = asyncio.create_task(asked())
        async with asyncio.timeout(60):
            await until_the_line_is("full")
            await is_refused()
            leaving.cancel()
            await until_the_line_is("open")
            staying = asyncio.create_task(asked())
            await until_the_line_is("full")
            await is_refused()
            upstream.next_word.set()
            for each in (writing, staying):
                assert (await each).json()["captions"][0]["text"] == CAPTION
        assert len(upstream.requests) == 2
