"""`/v1` as OpenAI's own client and LangChain's ChatOpenAI use it, over real connections: the caption chain as a model,
and the model server behind our checks."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from starlette.testclient import TestClient

from serving.app import create_app
from serving.models.gateway import ModelGateway
from serving.models.openai import POOL
from serving.models.wire import Wire
from tests.fakes import NOW, FakeWriter, make_trend
from tests.serving.conftest import LogLines, Serve
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.faulty_server import WORDS, Fault, FaultyServer, delta, serving
from tests.serving.pictures import decoded, encoded, picture, png_bomb
from tests.serving.test_hostile_images import noise as noisy
from tests.serving.test_http_wire import ends, metric
from tests.serving.test_images import with_exif
from trendrag.errors import ModelInterrupted, ModelUnavailable
from trendrag.settings import ModelSettings, ServerSettings, Settings

PHOTO = "data:image/jpeg;base64," + base64.b64encode(encoded(picture())).decode()
TEXT = "My pumpkin spice latte."
KEY = "sk-ours"


def photo(url: str = PHOTO) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    texts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": texts}


MESSAGES: Any = [user("first coffee", photo())]


def client(port: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60)


async def post(port: int, body: object, path: str = "/v1/chat/completions") -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=60) as http:
        return await http.post(f"http://127.0.0.1:{port}{path}", json=body)


@asynccontextmanager
async def gateway(server: FaultyServer, **changes: object) -> AsyncIterator[FakeService]:
    """A service whose gateway leads to ``server``, whose model's name is `tiny`."""
    settings = ModelSettings.model_validate({"token_timeout_s": 60, "total_timeout_s": 120} | changes)
    async with serving(server), httpx2.AsyncClient(limits=POOL, timeout=60) as http:
        wire = Wire(http, server.base_url, SecretStr("sk-upstream"))
        yield FakeService(gateway=ModelGateway(wire, "tiny", settings))


def understood(answer: httpx2.Response, status: int, code: str) -> str:
    """An error that both kinds of client can read."""
    told = answer.json()
    assert answer.status_code == status, told
    assert (told["status"], told["code"], told["error"]["code"]) == ("error", code, code)
    assert told["error"]["message"] == told["message"]
    assert told["error"]["type"]
    message: str = told["message"]
    return message


class TestCaptions:
    @ends
    async def test_streamed(self, serve: Serve) -> None:
        service = FakeService()
        async with client(serve(service)) as asking:
            stream = await asking.chat.completions.create(
                model="trendrag", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
        *spoken, last = chunks
        assert all(len(chunk.choices) == 1 for chunk in spoken)
        assert spoken[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == TEXT
        assert [chunk.choices[0].finish_reason for chunk in spoken if chunk.choices[0].finish_reason] == ["stop"]
        assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 5)
        extras = [(chunk.model_extra or {}).get("trendrag") for chunk in spoken]
        events = [event for event in extras if event]
        assert [event["type"] for event in events] == ["described", "trends", "highlight", "candidate_done", "done"]
        trend = make_trend("pumpkin spice")
        assert (events[2]["start"], events[2]["end"], events[2]["trend_id"]) == (3, 16, trend.id)
        (request,) = service.requests
        assert (request.note, request.turns, request.trends) == ("first coffee", (), True)

    @ends
    async def test_whole(self, serve: Serve) -> None:
        async with client(serve(FakeService())) as asking:
            told = await asking.chat.completions.create(model="trendrag", messages=MESSAGES, n=2)
        assert [choice.index for choice in told.choices] == [0, 1]
        assert [choice.message.content for choice in told.choices] == [TEXT] * 2
        assert {choice.finish_reason for choice in told.choices} == {"stop"}
        ours = (told.choices[0].message.model_extra or {})["trendrag"]
        assert ours["highlights"] == [{"start": 3, "end": 16, "trend_id": make_trend("pumpkin spice").id}]
        assert 0 < ours["confidence"] <= 1
        whole = (told.model_extra or {})["trendrag"]
        assert [hit["trend"]["phrase"] for hit in whole["retrieved"]] == ["pumpkin spice"]
        assert whole["snapshot"]["label"].startswith("sample trends")
        assert told.usage is not None
        assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens

    @ends
    async def test_candidates_are_told_apart_in_the_stream(self, serve: Serve) -> None:
        async with client(serve(FakeService())) as asking:
            stream = await asking.chat.completions.create(model="trendrag", messages=MESSAGES, stream=True, n=3)
            texts, roles = dict.fromkeys(range(3), ""), []
            async for chunk in stream:
                choice = chunk.choices[0]
                texts[choice.index] += choice.delta.content or ""
                roles += [choice.index] if choice.delta.role else []
        assert list(texts.values()) == [TEXT] * 3
        assert roles == [0, 1, 2]

    @ends
    async def test_the_synchronous_client(self, serve: Serve) -> None:
        port = serve(FakeService())

        def ask() -> tuple[str, str | None, list[str]]:
            with openai.OpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60
            ) as asking:
                stream = asking.chat.completions.create(model="trendrag", messages=MESSAGES, stream=True)
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                whole = asking.chat.completions.create(model="trendrag", messages=MESSAGES)
                return streamed, whole.choices[0].message.content, [model.id for model in asking.models.list()]

        assert await asyncio.to_thread(ask) == (TEXT, TEXT, ["trendrag"])

    @ends
    async def test_langchains_client(self, serve: Serve) -> None:
        model = ChatOpenAI(
            model="trendrag",
            base_url=f"http://127.0.0.1:{serve(FakeService())}/v1",
            api_key=SecretStr(KEY),
            max_retries=0,
            timeout=60,
            stream_usage=True,
            use_responses_api=False,
        )
        asked = [HumanMessage(MESSAGES[0]["content"])]
        chunks = [chunk async for chunk in model.astream(asked)]
        assert "".join(str(chunk.text) for chunk in chunks) == TEXT
        assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 5
        assert (await model.ainvoke(asked)).text == TEXT

    @ends
    async def test_a_conversation_refines_and_wishes_reach_the_chain(self, serve: Serve) -> None:
        service = FakeService()
        body = {
            "model": "trendrag",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                user("hello"),
                user("my cup", photo()),
                {"role": "assistant", "content": "A cup."},
                user("shorter"),
                user("and warmer"),
            ],
            "temperature": 0.2,
            "max_tokens": 40,
            "seed": 7,
            "stop": "END",
            "user": "somebody",
            "trendrag": {"platform": "x", "tone": "dry", "region": "us"},
        }
        assert (await post(serve(service), body)).status_code == 200
        (request,) = service.requests
        assert request.note == "hello\nmy cup"
        assert [(turn.role, turn.text) for turn in request.turns] == [
            ("assistant", "A cup."),
            ("user", "shorter\nand warmer"),
        ]
        sampling = request.sampling
        assert (sampling.temperature, sampling.max_tokens, sampling.seed, sampling.stop) == (0.2, 40, 7, ("END",))
        assert (request.platform, request.tone, request.filters.region) == ("x", "dry", "US")

    @pytest.mark.parametrize("stream", [False, True])
    @ends
    async def test_a_model_that_is_away_has_a_status_even_where_a_stream_was_asked_for(
        self, serve: Serve, stream: bool
    ) -> None:
        port = serve(FakeService(FakeWriter(chunks=(), error=ModelUnavailable("The model server is away."))))
        answer = await post(port, {"model": "trendrag", "messages": MESSAGES, "stream": stream})
        assert understood(answer, 503, "model_unavailable") == "The model server is away."
        assert int(answer.headers["retry-after"]) > 0
        assert await metric(port, "trendrag_captions_in_flight") == 0

    @ends
    async def test_a_model_that_breaks_off_is_told_by_an_error_chunk(self, serve: Serve) -> None:
        writer = FakeWriter(chunks=("My ", "cup"), error=ModelInterrupted("It broke off."))
        async with client(serve(FakeService(writer))) as asking:
            stream = await asking.chat.completions.create(model="trendrag", messages=MESSAGES, stream=True)
            text = ""
            with pytest.raises(openai.APIError, match=r"It broke off\."):
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
        assert text.startswith("My")

    @ends
    async def test_leaving_stops_the_model(self, serve: Serve, log_lines: LogLines) -> None:
        writer = GatedWriter()
        port = serve(FakeService(writer))
        async with client(port) as asking:
            stream = await asking.chat.completions.create(model="trendrag", messages=MESSAGES, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            assert writer.open_streams == 1
            await stream.close()
        await writer.closed.wait()
        while await metric(port, "trendrag_clients_left_total") != 1:
            pass  # counted just after the model was closed
        assert await metric(port, "trendrag_captions_in_flight") == 0
        asked = {"method": "POST", "route": "/v1/chat/completions", "status": 200}
        while not any(asked.items() <= line.items() for line in log_lines()):
            await metric(port, "trendrag_captions_in_flight")
        assert [line for line in log_lines() if line["level"] in ("warning", "error")] == []

    @ends
    async def test_no_header_of_one_answer_is_in_the_next(self, settings: Settings) -> None:
        """Those that middlewares write: what another caller has left is nobody else's business."""
        server = ServerSettings(keys="off", hosts=("test",))
        app = create_app(settings.model_copy(update={"server": server}), FakeService().open, lambda: NOW)
        body = {"model": "trendrag", "messages": MESSAGES, "stream": True}
        told = []
        for peer in ("203.0.113.9", "127.0.0.1"):
            with TestClient(app, "http://test", client=(peer, 1)) as asking:
                told.append(asking.post("/v1/chat/completions", json=body).headers)
        assert ["ratelimit" in headers for headers in told] == [True, False]

    @pytest.mark.parametrize(
        ("messages", "words"),
        [
            ([user("no photo")], "one photo"),
            ([user(photo(), photo("data:image/png;base64,AAAA"))], "one photo"),
            ([user(photo()), {"role": "assistant", "content": "A cup."}], "the last one"),
            ([user(photo()), {"role": "assistant", "content": ""}, user("shorter")], "needs a text"),
            ([user(photo("data:image/jpeg;base64,@@@"))], "valid base64"),
            ([user(photo("data:text/html,hi"))], "data: URL"),
            ([user(photo("https://127.0.0.1/a.jpg"))], "public internet"),
            ([user({"type": "input_audio", "input_audio": {}})], "content"),
            ([{"role": "robot", "content": "hi"}], "role"),
            ([], "messages"),
        ],
    )
    @ends
    async def test_messages_that_are_no_request_for_a_caption(
        self, serve: Serve, messages: list[object], words: str
    ) -> None:
        service = FakeService()
        answer = await post(serve(service), {"model": "trendrag", "messages": messages, "stream": True})
        assert answer.status_code == 400
        assert words in understood(answer, 400, answer.json()["code"])
        assert not service.requests

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"tools": []}, "tools: not taken"),
            ({"top_p": 0.5}, "top_p: not taken"),
            ({"n": 9}, "n: "),
            ({"temperature": 3}, "temperature: "),
            ({"chat_template": "{{x}}"}, "chat_template: this field is not taken"),
            ({"trendrag": {"platform": "fax"}}, "trendrag: platform"),
            ({"trendrag": {"image": "x"}}, "trendrag.image"),
            ({"model": "gpt-7"}, "no such model"),
        ],
    )
    @ends
    async def test_fields_that_are_not_taken(self, serve: Serve, fields: dict[str, object], words: str) -> None:
        answer = await post(serve(FakeService()), {"model": "trendrag", "messages": MESSAGES} | fields)
        status = 404 if "model" in fields else 400
        assert words in understood(answer, status, "model_not_found" if status == 404 else "invalid_request")

    @ends
    async def test_errors_of_every_layer_are_understood(self, serve: Serve) -> None:
        port = serve(FakeService())
        understood(await post(port, {}, "/v1/nowhere"), 404, "not_found")
        understood(await post(port, {}, "/v1/models"), 405, "method_not_allowed")
        understood(await post(port, {"model": "x" * 1_000_000}), 413, "body_too_large")
        async with httpx2.AsyncClient(timeout=60) as http:
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            understood(await http.post(url, content=b"{}"), 415, "unsupported_media_type")
            kind = {"content-type": "application/json"}
            understood(await http.post(url, content=b"{", headers=kind), 400, "invalid_request")
        elsewhere = (await post(port, {}, "/api/v1/nowhere")).json()
        assert set(elsewhere) == {"status", "code", "message"}


BODY = {"model": "tiny", "messages": MESSAGES}


class TestGateway:
    @ends
    async def test_models_and_their_names(self, serve: Serve) -> None:
        async with gateway(FaultyServer()) as service:
            port = serve(service)
            async with client(port) as asking:
                assert [model.id async for model in asking.models.list()] == ["trendrag", "trendrag-plain", "tiny"]
                assert (await asking.models.retrieve("trendrag-plain")).id == "trendrag-plain"
                with pytest.raises(openai.NotFoundError):
                    await asking.models.retrieve("gpt-7")

    @pytest.mark.parametrize("name", ["tiny", "trendrag-plain"])
    @ends
    async def test_the_callers_messages_go_to_the_server_as_they_are(self, serve: Serve, name: str) -> None:
        server = FaultyServer()
        async with gateway(server) as service, client(serve(service)) as asking:
            messages: Any = [{"role": "system", "content": "Be a pirate."}, *MESSAGES]
            told = await asking.chat.completions.create(
                model=name, messages=messages, temperature=0.3, max_tokens=9, top_p=0.5, user="u", seed=1,
                response_format={"type": "json_object"},
            )  # fmt: skip
        assert told.choices[0].message.content == "".join(WORDS)
        assert server.requests == [
            {
                "model": "tiny",
                "messages": messages,
                "temperature": 0.3,
                "max_tokens": 9,
                "top_p": 0.5,
                "seed": 1,
                "response_format": {"type": "json_object"},
            }
        ]
        assert server.headers[0]["authorization"] == "bearer sk-upstream", "the caller's key stays here"
        assert not service.requests

    @ends
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
    @pytest.mark.parametrize("size", [64, 330])
    async def test_where_a_photo_was_taken_never_reaches_the_server(self, serve: Serve, kind: str, size: int) -> None:
        data = encoded(noisy(size, size), kind, exif=with_exif(6))
        assert b"SecretCamera" in data
        server = FaultyServer()
        async with gateway(server) as service:
            content = user("what is this?", photo(f"data:image/{kind};base64,{base64.b64encode(data).decode()}"))
            answer = await post(serve(service), {"model": "tiny", "messages": [content]})
        assert answer.status_code == 200
        url = server.requests[0]["messages"][0]["content"][1]["image_url"]["url"]
        head, _, text = url.partition(",")
        assert head == f"data:image/{'jpeg' if kind == 'AVIF' else kind.lower()};base64"
        sent = base64.b64decode(text)
        assert b"SecretCamera" not in sent
        exif = decoded(sent).getexif()
        assert not exif.get_ifd(0x8825)
        assert exif.get(0x0112) == (None if kind == "AVIF" else 6), "how it is to be turned stays"

    @ends
    async def test_streamed_events_are_the_servers_own(self, serve: Serve) -> None:
        async with gateway(FaultyServer()) as service:
            port = serve(service)
            answer = await post(port, BODY | {"stream": True})
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line[6:] for line in answer.text.split("\n\n") if line]
            assert events[1] == delta({"content": WORDS[0]}, logprob=-0.25)
            assert events[-1] == "[DONE]"
            async with client(port) as asking:
                stream = await asking.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            assert text == "".join(WORDS)

    @pytest.mark.parametrize(
        ("fault", "status", "code"),
        [
            ("status", 503, "model_unavailable"),
            ("not_json", 503, "model_unavailable"),
            ("redirect", 502, "model_rejected"),
            ("empty", 502, "model_interrupted"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    @ends
    async def test_a_server_that_refuses(
        self, serve: Serve, fault: Fault, status: int, code: str, stream: bool
    ) -> None:
        if fault == "empty" and not stream:
            return
        async with gateway(FaultyServer(fault=fault)) as service:
            answer = await post(serve(service), BODY | {"stream": stream})
        message = understood(answer, status, code)
        assert "sk-upstream" not in message
        assert "<script>" not in message

    @pytest.mark.parametrize(
        ("fault", "code", "patience_s"),
        [
            ("malformed", "model_interrupted", 60),
            ("error_event", "model_interrupted", 60),
            ("drop", "model_interrupted", 60),
            ("end_early", "model_interrupted", 60),
            ("aborted", "model_interrupted", 60),
            ("only_comments", "model_timeout", 0.3),
        ],
    )
    @ends
    async def test_a_server_that_fails_in_mid_stream(
        self, serve: Serve, fault: Fault, code: str, patience_s: float
    ) -> None:
        """Every event before it arrives whole, then an error that OpenAI's client raises, and never a good end."""
        async with gateway(FaultyServer(fault=fault), token_timeout_s=patience_s) as service:
            answer = await post(serve(service), BODY | {"stream": True})
        *events, error, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert answer.status_code == 200
        assert all("choices" in json.loads(event) for event in events)
        assert (json.loads(error)["error"]["code"], done) == (code, "[DONE]")

    @pytest.mark.parametrize("fault", ["hang", "slow_headers"])
    @ends
    async def test_a_server_that_never_answers(self, serve: Serve, fault: Fault) -> None:
        async with gateway(FaultyServer(fault=fault), token_timeout_s=0.3, total_timeout_s=0.3) as service:
            port = serve(service)
            for stream in (False, True):
                understood(await post(port, BODY | {"stream": stream}), 504, "model_timeout")

    @ends
    async def test_leaving_stops_the_server(self, serve: Serve) -> None:
        server = FaultyServer(fault="endless")
        async with gateway(server) as service:
            port = serve(service)
            async with client(port) as asking:
                stream = await asking.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                await anext(aiter(stream))
                await stream.close()
            await server.client_left.wait()
            while await metric(port, "trendrag_captions_in_flight"):
                pass  # given back just after

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (photo("data:image/png;base64," + base64.b64encode(png_bomb()).decode()), "image_too_large"),
            (photo("data:image/jpeg;base64,AAAA"), "invalid_image"),
            (photo("data:image/jpeg;base64,/9j"), "invalid_image"),
            (photo("https://169.254.169.254/latest"), "address_refused"),
            (photo("file:///etc/passwd"), "address_refused"),
            ({"type": "video_url", "video_url": {"url": "http://127.0.0.1/"}}, "invalid_request"),
            ({"type": "image_embeds", "image_embeds": "x"}, "invalid_request"),
        ],
    )
    @ends
    async def test_what_the_server_is_never_sent(self, serve: Serve, content: dict[str, Any], code: str) -> None:
        server = FaultyServer()
        async with gateway(server) as service:
            answer = await post(serve(service), BODY | {"messages": [user("look", content)]})
        status = 413 if code == "image_too_large" else 400
        understood(answer, status, code)
        assert not server.requests

    @ends
    async def test_of_two_fields_of_one_name_the_server_gets_the_one_that_was_checked(self, serve: Serve) -> None:
        server = FaultyServer()
        bad = json.dumps([user(photo("http://10.0.0.1/a.jpg"))])
        raw = f'{{"model": "tiny", "messages": {bad}, "messages": {json.dumps(MESSAGES)}}}'
        async with gateway(server) as service, httpx2.AsyncClient(timeout=60) as http:
            url = f"http://127.0.0.1:{serve(service)}/v1/chat/completions"
            answer = await http.post(url, content=raw, headers={"content-type": "application/json"})
        assert answer.status_code == 200
        assert server.requests[0]["messages"] == MESSAGES

    @ends
    async def test_no_token_is_lost_changed_or_moved_with_many_streams(self, serve: Serve) -> None:
        """200 at once, all of them begun before any goes on, each with words of its own."""
        going = asyncio.Event()
        server = FaultyServer(next_word=going, words=tuple(f"w{number} " for number in range(12)))
        async with gateway(server) as service:
            port = serve(service, server=ServerSettings(max_concurrent=200))
            begun = 0

            async def one(asking: openai.AsyncOpenAI) -> str:
                nonlocal begun
                stream = await asking.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                text = ""
                async for chunk in stream:
                    if not text and chunk.choices and chunk.choices[0].delta.content:
                        begun += 1
                        if begun == 200:
                            going.set()
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                return text

            async with client(port) as asking:
                texts = await asyncio.gather(*(one(asking) for _ in range(200)))
        assert texts == ["".join(server.words)] * 200

    @ends
    async def test_no_more_at_once_than_set(self, serve: Serve) -> None:
        server = FaultyServer(fault="hang")
        async with gateway(server) as service:
            port = serve(service, server=ServerSettings(max_concurrent=1, max_waiting=0))
            first = asyncio.create_task(post(port, BODY))
            await server.asked.wait()
            answer = await post(port, BODY | {"stream": True})
            understood(answer, 503, "busy")
            first.cancel()
            await server.client_left.wait()


@ends
async def test_the_description_of_the_api_refers_to_nothing_that_is_not_there(serve: Serve) -> None:
    async with httpx2.AsyncClient(timeout=60) as http:
        document = (await http.get(f"http://127.0.0.1:{serve(FakeService())}/openapi.json")).text
    schemas = json.loads(document)["components"]["schemas"]
    assert "ChatBody" in schemas
    assert {name.split('"')[0] for name in document.split("#/components/schemas/")[1:]} <= set(schemas)
