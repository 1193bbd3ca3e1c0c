"""Opening a chat model: what the settings must hold, and what must never be sent or told."""

import asyncio
import sys
import types
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeMessagesListChatModel
from langchain_core.messages import AIMessage

from serving.models.chat import ChatWriter
from serving.models.openai import chat_model_name, close_chat_model, open_chat_model
from tests.serving.faulty_server import FaultyServer, serving
from tests.serving.test_chat import SECRET, settings_for, write_all
from trendrag.errors import ConfigurationError
from trendrag.settings import ModelSettings


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        (None, "Set TRENDRAG_MODEL__BASE_URL"),
        ("127.0.0.1:8001/v1", "not an http:// or https:// address"),
        ("ftp://host/v1", "not an http:// or https:// address"),
        ("http://host:99999/v1", "not an http:// or https:// address"),
        (f"http://me:{SECRET}@host/v1", "TRENDRAG_MODEL__API_KEY"),
        (f"http://host/v1?key={SECRET}", "TRENDRAG_MODEL__API_KEY"),
    ],
)
def test_unusable_addresses(base_url: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_chat_model(ModelSettings(provider="openai", base_url=base_url, name="tiny"))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_key_that_no_header_can_hold() -> None:
    settings = {
        "provider": "openai",
        "base_url": "http://127.0.0.1:9/v1",
        "name": "tiny",
        "api_key": f"{SECRET}\r\nX: y",
    }
    with pytest.raises(ConfigurationError, match="TRENDRAG_MODEL__API_KEY") as caught:
        open_chat_model(ModelSettings.model_validate(settings))
    assert SECRET not in str(caught.value)


async def test_the_key_is_sent_without_the_line_end_of_its_file() -> None:
    server = FaultyServer()
    async with serving(server):
        await ask(settings_for(server, api_key=f"{SECRET}\n"))
    assert server.headers[0]["authorization"] == f"bearer {SECRET}"


async def test_nothing_of_other_programs_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a key for OpenAI in the environment does not hand it to this server, nor go through a proxy."""
    server = FaultyServer()
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(server):
        await ask(settings_for(server, api_key=None))
    assert server.headers[0]["authorization"] == "bearer none"


async def test_the_key_does_not_show() -> None:
    model = open_chat_model(
        ModelSettings.model_validate(
            {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "name": "tiny", "api_key": SECRET}
        )
    )
    assert SECRET not in repr(model)
    assert SECRET not in str(model.model_dump())
    await close_chat_model(model)


class TestModelName:
    async def test_the_only_one_is_taken(self) -> None:
        server = FaultyServer(models=("qwen",))
        async with serving(server):
            model = await opened_in_a_thread(settings_for(server, name=None))
        assert chat_model_name(model) == "qwen"
        await close_chat_model(model)

    async def test_several_are_listed(self) -> None:
        server = FaultyServer(models=("qwen", "llava"))
        async with serving(server):
            with pytest.raises(ConfigurationError, match=r"TRENDRAG_MODEL__NAME.*qwen, llava"):
                await opened_in_a_thread(settings_for(server, name=None))

    def test_nobody_to_ask(self) -> None:
        with pytest.raises(ConfigurationError, match=r"TRENDRAG_MODEL__NAME.*ConnectError"):
            open_chat_model(ModelSettings(provider="openai", base_url="http://127.0.0.1:9/v1"))


class TestOtherProviders:
    def test_a_missing_package_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"pip install langchain.anthropic"):
            open_chat_model(ModelSettings(provider="anthropic", name="claude"))

    def test_an_unknown_provider(self) -> None:
        with pytest.raises(ConfigurationError, match=r"'nosuch' can't be opened"):
            open_chat_model(ModelSettings(provider="nosuch", name="x"))

    def test_a_name_is_needed(self) -> None:
        with pytest.raises(ConfigurationError, match="TRENDRAG_MODEL__NAME"):
            open_chat_model(ModelSettings(provider="anthropic"))

    async def test_an_integration_is_used_with_standard_parameters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: dict[str, Any] = {}

        class ChatXAI(FakeMessagesListChatModel):
            def __init__(self, **options: Any) -> None:
                asked.update(options)
                answer = AIMessage("A caption.", response_metadata={"stop_reason": "end_turn"})
                super().__init__(responses=[answer])

        package = types.ModuleType("langchain_xai")
        package.ChatXAI = ChatXAI  # type: ignore[attr-defined] # a module made on the spot
        monkeypatch.setitem(sys.modules, "langchain_xai", package)
        settings = ModelSettings.model_validate(
            {"provider": "xai", "name": "grok", "api_key": SECRET, "max_tokens": 50}
        )
        model = open_chat_model(settings)
        assert asked["model"] == "grok"
        assert (asked["temperature"], asked["max_tokens"]) == (0.8, 50)
        assert asked["api_key"].get_secret_value() == SECRET
        writer = ChatWriter(model, "grok", settings)
        assert [chunk.text for chunk in await write_all(writer)] == ["A caption.", ""]
        await close_chat_model(model)


async def ask(settings: ModelSettings) -> None:
    model = open_chat_model(settings)
    await write_all(ChatWriter(model, "tiny", settings))
    await close_chat_model(model)


async def opened_in_a_thread(settings: ModelSettings) -> BaseChatModel:
    return await asyncio.to_thread(open_chat_model, settings)
