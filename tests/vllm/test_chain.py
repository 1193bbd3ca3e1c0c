"""The caption chain over a real vLLM server, with a retriever that always finds the same."""

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest
from langchain_core.language_models import BaseChatModel

from serving.models.chat import ChatDescriber, ChatWriter
from serving.models.openai import close_chat_model, open_chat_model
from tests.fakes import FakeRetriever, found
from tests.vllm.conftest import model_settings
from tests.vllm.server import MODEL, Vllm
from trendrag.chain import build_caption_chain
from trendrag.settings import ModelSettings
from trendrag.types import CandidateDone, CaptionEvent, CaptionRequest, Delta, Described, Done, PreparedImage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.vllm


def events_of(
    model: BaseChatModel, settings: ModelSettings, request: CaptionRequest
) -> "AsyncGenerator[CaptionEvent, None]":
    describer, writer = ChatDescriber(model, MODEL, settings), ChatWriter(model, MODEL, settings)
    chain = build_caption_chain(describer, FakeRetriever(found("slow coffee")), writer)
    return cast("AsyncGenerator[CaptionEvent, None]", chain.astream(request))


async def test_one_photo_three_candidates(model: BaseChatModel, vllm: Vllm, photo: PreparedImage) -> None:
    request = CaptionRequest(image=photo, candidates=3, max_chars=5_000)  # so that none is cut before its usage is told
    async with aclosing(events_of(model, model_settings(vllm), request)) as stream:
        events = [event async for event in stream]
    described, trends, *writing, done = events
    assert isinstance(described, Described)
    assert described.source == "model"
    assert trends.type == "trends"
    assert isinstance(done, Done)
    finished = [event for event in writing if isinstance(event, CandidateDone)]
    assert sorted(event.candidate for event in finished) == [0, 1, 2]
    for event in finished:
        deltas = [part.text for part in writing if isinstance(part, Delta) and part.candidate == event.candidate]
        assert event.text == "".join(deltas)
        assert len(deltas) > 10
        assert event.confidence is not None
    # one prefill of the photo served four calls
    assert done.usage.cached_tokens > 3 * 320
    assert done.usage.completion_tokens == 48 + 3 * 256


async def test_closing_the_chain_stops_all_candidates(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, max_tokens=3000)
    model = open_chat_model(settings)
    before = await vllm.metric("vllm:generation_tokens_total")
    async with aclosing(events_of(model, settings, CaptionRequest(image=photo, candidates=3))) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                break
        await vllm.wait_for_running(3)
    await vllm.wait_for_running(0)
    assert await vllm.metric("vllm:generation_tokens_total") - before < 3 * 3000 / 2
    await close_chat_model(model)
