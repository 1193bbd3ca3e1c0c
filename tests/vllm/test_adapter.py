"""The describer and the writer against a real vLLM server."""

import asyncio
import math
import time
from contextlib import aclosing

import pytest
from langchain_core.language_models import BaseChatModel

from serving.images import prepare_image
from serving.models.chat import ChatDescriber, ChatWriter
from serving.models.openai import chat_model_name, close_chat_model, open_chat_model
from tests.fakes import found
from tests.vllm.conftest import model_settings, unseen_photo
from tests.vllm.server import MODEL, Vllm
from trendrag.errors import ModelRejected
from trendrag.ports import Chunk
from trendrag.settings import ImageSettings
from trendrag.types import CaptionRequest, PreparedImage, Usage

pytestmark = pytest.mark.vllm

PHOTO_TOKENS = 320
LONG = 3000  # tokens; at 2 to 5 ms each the server writes for several seconds


async def written(writer: ChatWriter, request: CaptionRequest, candidate: int = 0) -> list[Chunk]:
    async with aclosing(writer.write(request, "", found("slow coffee").trends, candidate)) as chunks:
        return [chunk async for chunk in chunks]


async def test_text_comes_while_the_model_still_writes(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, max_tokens=LONG)
    model = open_chat_model(settings)
    tokens = 0
    async with aclosing(ChatWriter(model, MODEL, settings).write(CaptionRequest(image=photo), "", (), 0)) as chunks:
        async for chunk in chunks:
            if chunk.text and not tokens:
                await vllm.wait_for_running(1)
            tokens += chunk.tokens
            usage = chunk.usage
    assert tokens == LONG
    assert usage is not None
    assert usage.completion_tokens == LONG
    await close_chat_model(model)


async def test_a_description_is_short_and_one_line(model: BaseChatModel, vllm: Vllm, photo: PreparedImage) -> None:
    description = await ChatDescriber(model, MODEL, model_settings(vllm)).describe(photo)
    assert description.text
    assert "\n" not in description.text
    assert 0 < description.usage.completion_tokens <= 48
    assert description.usage.prompt_tokens > PHOTO_TOKENS


async def test_describing_and_writing_share_their_prefix(
    model: BaseChatModel, vllm: Vllm, photo: PreparedImage, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = ChatWriter(model, MODEL, model_settings(vllm))
    other = prepare_image(unseen_photo(), ImageSettings())
    cold, cold_s = await first_text(writer, other)
    hits = await vllm.metric("vllm:prefix_cache_hits_total")
    description = await ChatDescriber(model, MODEL, model_settings(vllm)).describe(photo)
    warm, warm_s = await first_text(writer, photo)
    hits = await vllm.metric("vllm:prefix_cache_hits_total") - hits
    # The picture and what comes before it, both as the answer tells it and as the server counts it.
    assert cold.cached_tokens < PHOTO_TOKENS <= warm.cached_tokens
    assert hits >= warm.cached_tokens
    with capsys.disabled():
        print(  # noqa: T201 - figures for the reader of the log
            f"\n  first text of a caption: {cold_s * 1000:.0f} ms with {cold.cached_tokens} of {cold.prompt_tokens} "
            f"prompt tokens from the prefix cache (unseen photo), {warm_s * 1000:.0f} ms with {warm.cached_tokens} "
            f"(after describing it, {description.usage.prompt_tokens} tokens)"
        )


async def first_text(writer: ChatWriter, photo: PreparedImage) -> tuple[Usage, float]:
    """The usage of a caption, and the seconds until its first text."""
    started = time.perf_counter()
    async with aclosing(writer.write(CaptionRequest(image=photo), "", (), 0)) as chunks:
        await anext(chunks)
        waited = time.perf_counter() - started
        usage = [chunk.usage async for chunk in chunks][-1]
    assert usage is not None
    return usage, waited


async def test_closing_the_stream_stops_the_model(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, max_tokens=LONG)
    model = open_chat_model(settings)
    before = await vllm.metric("vllm:generation_tokens_total")
    async with aclosing(ChatWriter(model, MODEL, settings).write(CaptionRequest(image=photo), "", (), 0)) as chunks:
        assert (await anext(chunks)).text
        await vllm.wait_for_running(1)
    await vllm.wait_for_running(0)
    # it did not just finish
    assert await vllm.metric("vllm:generation_tokens_total") - before < LONG / 2
    await close_chat_model(model)


async def test_three_candidates_are_written_in_parallel(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, max_tokens=600)
    model = open_chat_model(settings)
    writer = ChatWriter(model, MODEL, settings)
    order: list[tuple[int, bool]] = []  # (candidate, whether it is its end)

    async def candidate(number: int) -> str:
        text = ""
        async with aclosing(writer.write(CaptionRequest(image=photo), "", (), number)) as chunks:
            async for chunk in chunks:
                text += chunk.text
                order.append((number, not chunk.text))
        return text

    texts = await asyncio.gather(*(candidate(number) for number in range(3)))
    first_end = order.index(next(entry for entry in order if entry[1]))
    assert {number for number, _ in order[:first_end]} == {0, 1, 2}
    assert len(set(texts)) == 3
    await close_chat_model(model)


async def test_confidence_comes_from_the_models_own_probabilities(
    model: BaseChatModel, vllm: Vllm, photo: PreparedImage
) -> None:
    chunks = await written(ChatWriter(model, MODEL, model_settings(vllm)), CaptionRequest(image=photo))
    tokens = sum(chunk.tokens for chunk in chunks)
    confidence = math.exp(sum(chunk.logprob for chunk in chunks) / tokens)
    assert tokens == 256
    assert 0 < confidence < 1


async def test_an_unknown_model_is_told_apart(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, name="no-such-model")
    model = open_chat_model(settings)
    with pytest.raises(ModelRejected, match=r"TRENDRAG_MODEL__NAME.*no-such-model"):
        await written(ChatWriter(model, "no-such-model", settings), CaptionRequest(image=photo))
    await close_chat_model(model)


async def test_a_caption_beyond_the_models_length_is_refused(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, max_tokens=100_000)
    model = open_chat_model(settings)
    with pytest.raises(ModelRejected, match=r"HTTP 400.*4096"):
        await written(ChatWriter(model, MODEL, settings), CaptionRequest(image=photo))
    await close_chat_model(model)


async def test_the_servers_only_model_needs_no_name(vllm: Vllm, photo: PreparedImage) -> None:
    settings = model_settings(vllm, name=None)
    model = await asyncio.to_thread(open_chat_model, settings)
    assert chat_model_name(model) == MODEL
    assert (await ChatDescriber(model, MODEL, settings).describe(photo)).usage != Usage()
    await close_chat_model(model)
