"""The lean chat model: LangChain's standard tests against a real server on loopback, and what it makes of bad answers.

How it fails for captions (deadlines, refusals, streams cut off) is in ``test_chat``, which runs over it.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from serving.models.lean import LeanChat
from serving.models.wire import ServerError
from tests.serving.faulty_server import WORDS, FaultyServer, serving
from trendrag.errors import ModelInterrupted


class TestStandardUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LeanChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": "http://127.0.0.1:9/v1"}


@contextmanager
def in_a_thread(server: FaultyServer) -> Iterator[FaultyServer]:
    """Serves from a loop of its own, for callers that block theirs."""
    up, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with serving(server):
            up.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    up.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="class")
def real_server(request: pytest.FixtureRequest) -> Iterator[None]:
    with in_a_thread(FaultyServer()) as server:
        request.cls.base_url = server.base_url
        yield


@pytest.mark.usefixtures("real_server")
class TestStandardIntegration(ChatModelIntegrationTests):
    base_url = ""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LeanChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": self.base_url, "http_async_client": httpx2.AsyncClient(timeout=60)}

    @property
    def model_override_value(self) -> str:
        return "tiny"

    @property
    def supports_image_inputs(self) -> bool:
        return False  # the test fetches its image from the web


async def ask(server: FaultyServer, **fields: Any) -> tuple[AIMessage, dict[str, Any]]:
    async with serving(server), httpx2.AsyncClient(timeout=60) as client:
        model = LeanChat(model="tiny", base_url=server.base_url, http_async_client=client, **fields)
        photo = {"type": "image", "base64": "/9j/", "mime_type": "image/jpeg"}
        told = await model.ainvoke([SystemMessage("Be brief."), HumanMessage([photo, {"type": "text", "text": "Hi"}])])
    return told, server.requests[0]


async def test_a_photo_goes_out_as_servers_take_it_and_the_whole_answer_comes_back() -> None:
    told, sent = await ask(FaultyServer(), logprobs=True)
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}},
                {"type": "text", "text": "Hi"},
            ],
        },
    ]
    assert told.text == "".join(WORDS)
    assert told.response_metadata["finish_reason"] == "stop"
    assert len(told.response_metadata["logprobs"]["content"]) == 5
    assert told.usage_metadata is not None
    assert told.usage_metadata["input_token_details"] == {"cache_read": 96}


async def test_what_is_not_set_is_left_to_the_server() -> None:
    _, sent = await ask(FaultyServer())
    assert set(sent) == {"model", "messages", "stream", "stream_options"}


async def test_extra_fields_and_stops_go_along() -> None:
    _, sent = await ask(FaultyServer(), extra_body={"top_k": 3}, stop=["\n"], seed=7)
    assert (sent["top_k"], sent["stop"], sent["seed"]) == (3, ["\n"], 7)


@pytest.mark.parametrize(
    "event",
    [
        "[]",
        "7",
        "{",
        '{"choices": ["x"]}',
        '{"choices": [{"delta": "x"}]}',
        '{"choices": [{"delta": {"content": 7}}]}',
        '{"choices": [], "usage": 3}',
    ],
)
async def test_what_is_no_event_of_a_chat_is_an_interruption(event: str) -> None:
    server = FaultyServer(events=(event,))
    with pytest.raises(ModelInterrupted):
        await ask(server)


async def test_counts_that_are_no_numbers_are_none() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": -1}})
    told, _ = await ask(FaultyServer(events=(usage,)))
    assert told.usage_metadata is not None
    assert told.usage_metadata["total_tokens"] == 0


async def test_a_refusal_keeps_its_status_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ServerError) as caught:
        await ask(FaultyServer(fault="status", status=429), api_key="sk-secret")
    assert caught.value.status_code == 429
    assert "sk-secret" not in f"{caught.value} {caught.value.body} {caplog.text}"
