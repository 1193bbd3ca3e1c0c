"""The chat adapter against a real loopback server: what it streams, what it asks, and how it fails."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx2
import openai
import pytest
from langchain_core import exceptions as langchain_errors

from serving.models.chat import ChatDescriber, ChatWriter, check_model, model_error
from serving.models.openai import close_chat_model, open_chat_model
from tests.fakes import IMAGE, FakeDescriber, FakeRetriever, found
from tests.serving.faulty_server import WORDS, Fault, FaultyServer, serving
from trendrag.chain import build_caption_chain
from trendrag.errors import ModelError, ModelInterrupted, ModelRejected, ModelTimeout, ModelUnavailable
from trendrag.ports import Chunk
from trendrag.settings import ModelSettings
from trendrag.types import CaptionRequest, Done, Usage

REQUEST = CaptionRequest(image=IMAGE, note="from this morning")
SECRET = "sk-a-secret-of-the-user"


@contextlib.asynccontextmanager
async def writing(settings: ModelSettings, seed: int | None = None) -> AsyncIterator[ChatWriter]:
    model = open_chat_model(settings)
    try:
        yield ChatWriter(model, "tiny", settings, seed=seed)
    finally:
        await close_chat_model(model)


def settings_for(server: FaultyServer, **changes: object) -> ModelSettings:
    fields: dict[str, object] = {
        "provider": "openai",
        "base_url": server.base_url,
        "name": "tiny",
        "api_key": SECRET,
        "connect_timeout_s": 60,
        "token_timeout_s": 60,
        "total_timeout_s": 120,
    }
    return ModelSettings.model_validate(fields | changes)


async def write_all(writer: ChatWriter, candidate: int = 0) -> list[Chunk]:
    async with aclosing(writer.write(REQUEST, "", (), candidate)) as chunks:
        return [chunk async for chunk in chunks]


async def failure(server: FaultyServer, **changes: object) -> tuple[ModelError, str]:
    """The error that ends the caption, and the text that came before it."""
    text = ""
    async with serving(server), writing(settings_for(server, **changes)) as writer:
        with pytest.raises(ModelError) as caught:
            async with aclosing(writer.write(REQUEST, "", (), 0)) as chunks:
                async for chunk in chunks:
                    text += chunk.text
    assert SECRET not in str(caught.value)
    return caught.value, text


class TestStreaming:
    async def test_text_logprobs_and_usage(self) -> None:
        server = FaultyServer()
        async with serving(server), writing(settings_for(server)) as writer:
            chunks = await write_all(writer)
        assert [chunk.text for chunk in chunks] == [*WORDS, ""]
        # five tokens: the one that ends the text has none of its own, and counts
        assert sum(chunk.tokens for chunk in chunks) == 5
        assert sum(chunk.logprob for chunk in chunks) == pytest.approx(-1.25)
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * 4
        assert chunks[-1].usage == Usage(prompt_tokens=120, cached_tokens=96, completion_tokens=5)

    async def test_a_server_that_tells_its_usage_on_the_way_is_believed_to_the_end(self) -> None:
        server = FaultyServer(running_usage="told")
        async with serving(server), writing(settings_for(server)) as writer:
            chunks = await write_all(writer)
        told = [chunk.usage and (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks]
        assert told == [(120, 1), (120, 2), (120, 3), (120, 4), (120, 5)]
        assert chunks[-1].usage == Usage(prompt_tokens=120, cached_tokens=96, completion_tokens=5)

    async def test_a_caption_that_is_cut_has_the_tokens_that_it_cost(self) -> None:
        server = FaultyServer("endless", words=("word " * 10,) * 9, running_usage="told")
        request = CaptionRequest(image=IMAGE, note="a dog in the snow, at home", max_chars=40, trends=False)
        async with serving(server), writing(settings_for(server)) as writer:
            chain = build_caption_chain(FakeDescriber(), FakeRetriever(), writer)
            events = [event async for event in chain.astream(request)]
        done = events[-1]
        assert isinstance(done, Done)
        assert done.usage.prompt_tokens >= 120
        assert done.usage.completion_tokens >= 1

    async def test_a_server_that_refuses_to_tell_it_on_the_way_is_asked_without_from_then_on(self) -> None:
        server = FaultyServer(running_usage="refused")
        async with serving(server), writing(settings_for(server)) as writer:
            for _ in range(2):
                chunks = await write_all(writer)
                assert "".join(chunk.text for chunk in chunks) == "".join(WORDS)
                assert chunks[-1].usage == Usage(prompt_tokens=120, cached_tokens=96, completion_tokens=5)
        asked = [request["stream_options"].get("continuous_usage_stats") for request in server.requests]
        assert asked == [True, None, None]

    async def test_text_is_passed_on_at_once(self) -> None:
        server = FaultyServer(next_word=asyncio.Event())
        async with serving(server), writing(settings_for(server)) as writer, aclosing(chunks := stream(writer)):
            assert (await anext(chunks)).text == WORDS[0]  # the server holds the rest back until now
            assert server.next_word is not None
            server.next_word.set()
            assert [chunk.text async for chunk in chunks] == [*WORDS[1:], ""]

    @pytest.mark.parametrize(("sent", "kept"), [(-1e9, -500.0), (1e-7, 0.0), (None, 0.0)])
    async def test_logprobs_stay_in_range(self, sent: float | None, kept: float) -> None:
        server = FaultyServer(logprob=sent)
        async with serving(server), writing(settings_for(server)) as writer:
            chunks = await write_all(writer)
        assert sum(chunk.logprob for chunk in chunks) == kept
        assert sum(chunk.tokens for chunk in chunks) == (0 if sent is None else 5)

    async def test_closing_early_reaches_the_server(self) -> None:
        server = FaultyServer(fault="endless")
        async with serving(server), writing(settings_for(server)) as writer:
            async with aclosing(stream(writer)) as chunks:
                assert (await anext(chunks)).text
            await asyncio.wait_for(server.client_left.wait(), 60)

    async def test_cancelling_reaches_the_server(self) -> None:
        server = FaultyServer(fault="hang")
        async with serving(server), writing(settings_for(server)) as writer:
            task = asyncio.create_task(write_all(writer))
            await asyncio.wait_for(server.asked.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.client_left.wait(), 60)

    async def test_connections_are_closed_with_the_model(self) -> None:
        server = FaultyServer()
        async with serving(server):
            async with writing(settings_for(server)) as writer:
                await write_all(writer)
                assert not server.client_left.is_set()  # kept for the next request
            await asyncio.wait_for(server.client_left.wait(), 60)


class TestRequests:
    async def test_what_is_sent(self) -> None:
        server = FaultyServer()
        async with serving(server), writing(settings_for(server, temperature=0.7, max_tokens=99)) as writer:
            await write_all(writer)
        (sent,) = server.requests
        assert sent["model"] == "tiny"
        assert sent["stream"] is True
        assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert sent["logprobs"] is True
        assert (sent["temperature"], sent["max_completion_tokens"]) == (0.7, 99)
        assert server.headers[0]["authorization"] == f"bearer {SECRET}"

    async def test_logprobs_can_be_left_out(self) -> None:
        server = FaultyServer()
        async with serving(server), writing(settings_for(server, logprobs=False)) as writer:
            await write_all(writer)
        assert "logprobs" not in server.requests[0]

    async def test_candidates_have_different_seeds_that_can_be_repeated(self) -> None:
        server = FaultyServer()
        async with serving(server):
            for _ in range(2):
                async with writing(settings_for(server), seed=7) as writer:
                    await asyncio.gather(*(write_all(writer, candidate) for candidate in range(3)))
        seeds = [sent["seed"] for sent in server.requests]
        assert len(set(seeds[:3])) == 3
        assert sorted(seeds[:3]) == sorted(seeds[3:])

    async def test_describe_and_caption_share_everything_up_to_the_image(self) -> None:
        server = FaultyServer()
        async with serving(server):
            settings = settings_for(server)
            async with writing(settings) as writer:
                description = await ChatDescriber(writer._model, "tiny", settings).describe(IMAGE)
                async with aclosing(writer.write(REQUEST, description.text, found("slow coffee").trends, 0)) as chunks:
                    assert [chunk async for chunk in chunks]
        assert description.text == "Morning light, slow coffee."
        assert description.usage.completion_tokens == 5
        describe, caption = server.requests
        assert describe["max_completion_tokens"] == 48
        assert describe["temperature"] == 0
        first, second = (json.dumps(sent["messages"]) for sent in (describe, caption))
        shared = first[: next(at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])]
        assert '"image_url"' in shared
        assert shared.endswith('"text": "')
        assert "slow coffee" in second


class TestFailures:
    async def test_refused_connection(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and it refuses
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            async with writing(ModelSettings(provider="openai", base_url=url, name="tiny")) as writer:
                with pytest.raises(ModelUnavailable) as caught:
                    await write_all(writer)
        assert f"at {url} can't be reached" in str(caught.value)
        assert "TRENDRAG_MODEL__BASE_URL" in str(caught.value)

    @pytest.mark.parametrize(
        ("status", "kind", "words"),
        [
            (400, ModelRejected, "refused the request (HTTP 400)"),
            (401, ModelRejected, "TRENDRAG_MODEL__API_KEY"),
            (403, ModelRejected, "TRENDRAG_MODEL__API_KEY"),
            (404, ModelRejected, "TRENDRAG_MODEL__NAME"),
            (413, ModelRejected, "HTTP 413"),
            (429, ModelUnavailable, "overloaded (HTTP 429)"),
            (500, ModelUnavailable, "failed (HTTP 500)"),
            (503, ModelUnavailable, "overloaded (HTTP 503)"),
        ],
    )
    async def test_http_errors(self, status: int, kind: type[ModelError], words: str) -> None:
        # hostile and long: what a server says ends up on pages and terminals
        message = f"no \x1b[31m<b>room</b> for {SECRET if status in (401, 403) else 'you'} " + "x" * 5000
        server = FaultyServer("status", status=status, message=message)
        error, text = await failure(server)
        assert type(error) is kind
        assert words in str(error)
        assert text == ""
        assert "\x1b" not in str(error)
        assert "<b>" not in str(error)
        assert len(str(error)) < 700
        assert ("no" in str(error).split("said:")[-1]) or status in (401, 403)
        again = status in (400, 422)  # it may be for an option of ours
        assert len(server.requests) == (2 if again else 1), "nothing that was not refused is sent twice"

    @pytest.mark.parametrize(
        ("fault", "kind", "words"),
        [
            ("not_json", ModelUnavailable, "failed (HTTP 502)"),
            ("redirect", ModelRejected, "HTTP 307"),
            ("empty", ModelInterrupted, "Try again"),
        ],
    )
    async def test_answers_that_are_no_stream(self, fault: Fault, kind: type[ModelError], words: str) -> None:
        error, text = await failure(FaultyServer(fault))
        assert type(error) is kind
        assert words in str(error)
        assert text == ""

    @pytest.mark.parametrize(
        ("fault", "limit"),
        [
            ("hang", "first_token_timeout_s"),
            ("slow_headers", "first_token_timeout_s"),
            ("slow_start", "first_token_timeout_s"),
            ("only_comments", "token_timeout_s"),
        ],
    )
    async def test_silence(self, fault: Fault, limit: str) -> None:
        server = FaultyServer(fault)
        error, _ = await failure(server, **{limit: 1})
        assert type(error) is ModelTimeout
        assert f"TRENDRAG_MODEL__{limit.upper()}" in str(error)
        assert error.server_failed
        assert not error.retriable, "another try would only add to the load"
        await asyncio.wait_for(server.client_left.wait(), 60)

    async def test_the_first_token_may_take_longer_than_the_others(self) -> None:
        server = FaultyServer("held", next_word=asyncio.Event())
        async with serving(server), writing(settings_for(server, token_timeout_s=0.5)) as writer:
            task = asyncio.create_task(write_all(writer))
            await asyncio.wait_for(server.asked.wait(), 60)
            done, _ = await asyncio.wait({task}, timeout=1.5)  # three times the silence that a stream may have
            assert not done
            assert server.next_word is not None
            server.next_word.set()
            assert "".join(chunk.text for chunk in await task) == "".join(WORDS)

    async def test_a_stream_without_end(self) -> None:
        server = FaultyServer("endless")
        error, text = await failure(server, total_timeout_s=3)
        assert type(error) is ModelTimeout
        assert "TRENDRAG_MODEL__TOTAL_TIMEOUT_S" in str(error)
        assert not error.server_failed, "it may be a reader who takes the text slowly"
        assert text.startswith("Morning light, and ")
        await asyncio.wait_for(server.client_left.wait(), 60)

    @pytest.mark.parametrize("fault", ["malformed", "error_event", "drop", "late_reset", "end_early"])
    async def test_broken_in_mid_stream(self, fault: Fault) -> None:
        error, text = await failure(FaultyServer(fault))
        assert type(error) is ModelInterrupted
        assert text == "Morning light, " or fault == "late_reset", "a reset may overtake what was sent before it"
        assert ("the engine is busy" in str(error)) == (fault == "error_event")

    async def test_lost_after_the_model_had_finished(self) -> None:
        server = FaultyServer("late_drop")
        async with serving(server), writing(settings_for(server)) as writer:
            chunks = await write_all(writer)
        assert "".join(chunk.text for chunk in chunks) == "".join(WORDS)
        assert chunks[-1].usage == Usage()  # not told any more

    async def test_given_up_by_the_server(self) -> None:
        error, text = await failure(FaultyServer("aborted"))
        assert type(error) is ModelInterrupted
        assert text == "".join(WORDS)

    async def test_stopped_by_a_content_filter(self) -> None:
        error, _ = await failure(FaultyServer("filtered"))
        assert type(error) is ModelRejected
        assert "content filter" in str(error)

    async def test_describing_fails_the_same_way(self) -> None:
        server = FaultyServer("drop")
        async with serving(server):
            settings = settings_for(server)
            async with writing(settings) as writer:
                with pytest.raises(ModelInterrupted):
                    await ChatDescriber(writer._model, "tiny", settings).describe(IMAGE)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (langchain_errors.ModelRateLimitError("slow down"), ModelUnavailable),
        (langchain_errors.ModelAPIError("oops"), ModelUnavailable),
        (langchain_errors.ContextOverflowError("too long"), ModelRejected),
        (langchain_errors.ModelAuthenticationError("who?"), ModelRejected),
        (langchain_errors.ModelTimeoutError("late"), ModelTimeout),
        (TimeoutError(), ModelTimeout),
        (openai.APITimeoutError(httpx2.Request("POST", "http://u:p@h/v1")), ModelTimeout),
        (KeyError("choices"), ModelInterrupted),
    ],
)
def test_errors_of_any_integration(error: Exception, kind: type[ModelError]) -> None:
    mapped = model_error(error)
    assert type(mapped) is kind
    assert "u:p" not in str(mapped)


class TestAnotherTry:
    """Which failures may pass by themselves, and which speak against the server."""

    @pytest.mark.parametrize(
        ("status", "retriable", "server_failed"),
        [
            (400, False, False),
            (401, False, False),
            (404, False, False),
            (429, True, False),
            (500, False, True),
            (502, True, True),
            (503, True, True),
            (504, True, True),
        ],
    )
    async def test_statuses(self, status: int, retriable: bool, server_failed: bool) -> None:
        error, _ = await failure(FaultyServer("status", status=status))
        assert (error.retriable, error.server_failed) == (retriable, server_failed)

    @pytest.mark.parametrize(
        ("said", "understood"),
        [
            ("7", 7),
            ("0", 0),
            (None, None),
            ("soon", None),
            ("-3", None),
            ("9" * 400, 3600),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
            ("Fri, 31 Dec 2999 23:59:59 GMT", 3600),
        ],
    )
    async def test_how_long_the_server_asks_to_wait(self, said: str | None, understood: float | None) -> None:
        for status in (429, 503):
            error, _ = await failure(FaultyServer("status", status=status, retry_after=said))
            assert error.retry_after == understood

    @pytest.mark.parametrize(
        ("fault", "retriable"),
        [("reset", True), ("closed", True), ("slow_start_drop", True), ("empty", False), ("drop", False)],
    )
    async def test_connections_that_break(self, fault: Fault, retriable: bool) -> None:
        error, text = await failure(FaultyServer(fault))
        assert type(error) is ModelInterrupted
        assert error.server_failed
        assert error.retriable == retriable
        assert not (text and retriable)


class TestCheck:
    @pytest.mark.parametrize(("fault", "status"), [("none", 200), ("status", 404)])
    async def test_a_server_that_answers(self, fault: Fault, status: int) -> None:
        async with serving(FaultyServer(fault, status=status)) as server, writing(settings_for(server)) as writer:
            await check_model(writer._model)

    @pytest.mark.parametrize(("status", "kind"), [(401, ModelRejected), (500, ModelUnavailable)])
    async def test_a_server_that_refuses(self, status: int, kind: type[ModelError]) -> None:
        async with serving(FaultyServer("status", status=status)) as server, writing(settings_for(server)) as writer:
            with pytest.raises(kind, match=f"at {server.base_url} "):
                await check_model(writer._model)

    async def test_nobody_there(self) -> None:
        async with writing(ModelSettings(provider="openai", base_url="http://127.0.0.1:9/v1", name="tiny")) as writer:
            with pytest.raises(ModelUnavailable, match=r"http://127\.0\.0\.1:9/v1 can't be reached"):
                await check_model(writer._model)


def stream(writer: ChatWriter) -> AsyncGenerator[Chunk, None]:
    return writer.write(REQUEST, "", (), 0)
