"""The model's last look at trends, against a real vLLM server."""

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest
from langchain_core.language_models import BaseChatModel

from serving.models.chat import ChatDescriber, ChatWriter, stream_chat, tuned
from serving.models.judge import ChatJudge, chosen_places
from tests.fakes import FakeRetriever, found
from tests.vllm.conftest import model_settings
from tests.vllm.server import MODEL, Vllm
from trendrag.chain import build_caption_chain
from trendrag.errors import ModelError
from trendrag.prompting import judge_messages
from trendrag.types import CaptionRequest, Done, PreparedImage, TrendsRetrieved

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trendrag.types import CaptionEvent

pytestmark = pytest.mark.vllm

PHOTO_TOKENS = 320
FOUND = found(*(f"night market number {number}" for number in range(12)))


async def test_an_answer_is_bound_and_the_photo_is_read_once(
    model: BaseChatModel, vllm: Vllm, photo: PreparedImage
) -> None:
    settings = model_settings(vllm)
    request = CaptionRequest(image=photo, note="slow coffee")
    # Weights of chance write gibberish where nothing binds them: what follows is the schema's doing.
    unbound = tuned(model, max_tokens=64, temperature=0.0)
    async with aclosing(stream_chat(unbound, judge_messages(request, FOUND.trends), settings)) as chunks:
        text = "".join([chunk.text async for chunk in chunks])
    with pytest.raises(ModelError):
        chosen_places(text, len(FOUND.trends))

    judgement = await ChatJudge(model, settings, timeout_s=30).judge(request, FOUND.trends)
    assert judgement.chosen <= set(range(len(FOUND.trends)))
    assert judgement.usage.cached_tokens >= PHOTO_TOKENS


async def test_the_chain_describes_judges_and_writes_over_one_reading_of_the_photo(
    model: BaseChatModel, vllm: Vllm, photo: PreparedImage
) -> None:
    settings = model_settings(vllm)
    chain = build_caption_chain(
        ChatDescriber(model, MODEL, settings),
        FakeRetriever(FOUND),
        ChatWriter(model, MODEL, settings),
        ChatJudge(model, settings, timeout_s=30),
    )
    stream = cast("AsyncGenerator[CaptionEvent, None]", chain.astream(CaptionRequest(image=photo)))
    async with aclosing(stream):
        events = [event async for event in stream]
    trends, done = events[1], events[-1]
    assert isinstance(trends, TrendsRetrieved)
    assert trends.judged == "model"
    assert {hit.trend.id for hit in trends.trends} <= {hit.trend.id for hit in FOUND.trends}
    assert isinstance(done, Done)
    assert done.timings.judge is not None
    assert done.usage.cached_tokens >= 2 * PHOTO_TOKENS  # of three calls, the first read it
