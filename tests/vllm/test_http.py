"""The HTTP service, under a real uvicorn, against a real vLLM server."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.vllm.http_service import body, events, http_service
from tests.vllm.server import MODEL, Vllm

pytestmark = pytest.mark.vllm

LONG = 3000
NOTE = "slow coffee this morning with some friends"


async def test_a_stream_from_the_photo_to_the_end(vllm: Vllm, data_dir: Path) -> None:
    async with (
        http_service(vllm, data_dir) as client,
        # Long enough for all that it writes: a text that is cut ends before the server has told its tokens.
        client.stream("POST", "/api/v1/caption/stream", json=body(candidates=2, max_chars=5_000)) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        got = [event async for event in events(answer)]
    names = [name for name, _ in got]
    assert names[:2] == ["described", "trends"]
    assert names[-1] == "done"
    assert names.count("candidate_done") == 2
    assert names.count("delta") > 20
    assert got[0][1]["source"] == "model"
    assert got[-1][1]["usage"]["cached_tokens"] > 2 * 320


async def test_an_answer_at_once(vllm: Vllm, data_dir: Path) -> None:
    async with http_service(vllm, data_dir) as client:
        ready = await client.get("/readyz")
        answer = await client.post("/api/v1/caption", json=body(note=NOTE, candidates=3))
    assert ready.status_code == 200
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["model"] == MODEL
    assert len({caption["text"] for caption in told["captions"]}) == 3
    assert all(0 < caption["confidence"] <= 1 for caption in told["captions"])
    assert [hit["trend"]["phrase"] for hit in told["retrieved"]] == ["slow coffee"]


async def test_changing_a_caption_reads_the_photo_from_the_cache(
    vllm: Vllm, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = body(note=NOTE, max_chars=5_000)
    async with http_service(vllm, data_dir) as client:
        first = (await client.post("/api/v1/caption", json=asked)).json()
        turns = [{"role": "assistant", "text": first["captions"][0]["text"]}, {"role": "user", "text": "shorter"}]
        answer = await client.post("/api/v1/caption", json=asked | {"turns": turns})
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    cached, prompt = usage["cached_tokens"], usage["prompt_tokens"]
    with capsys.disabled():
        sys.stdout.write(f"\n  a change of a caption: {cached} of {prompt} prompt tokens from the prefix cache\n  ")
    assert cached > max(320, prompt / 2)


async def test_a_client_that_leaves_a_stream_stops_the_model(vllm: Vllm, data_dir: Path) -> None:
    before = await vllm.metric("vllm:generation_tokens_total")
    async with http_service(vllm, data_dir, max_tokens=LONG) as client:
        async with client.stream("POST", "/api/v1/caption/stream", json=body(candidates=2)) as answer:
            async for name, _ in events(answer):
                if name == "delta":
                    break
            await vllm.wait_for_running(2)
        await vllm.wait_for_running(0)
    assert await vllm.metric("vllm:generation_tokens_total") - before < LONG


async def test_a_client_that_does_not_wait_for_the_answer_stops_the_model(vllm: Vllm, data_dir: Path) -> None:
    before = await vllm.metric("vllm:generation_tokens_total")
    async with http_service(vllm, data_dir, max_tokens=LONG) as client:
        asking = asyncio.create_task(client.post("/api/v1/caption", json=body(note=NOTE, candidates=2)))
        await vllm.wait_for_running(2)
        asking.cancel()
        await asyncio.wait({asking})
        await vllm.wait_for_running(0)
    assert await vllm.metric("vllm:generation_tokens_total") - before < LONG


async def test_a_wrong_model_name_is_an_error_answer(vllm: Vllm, data_dir: Path) -> None:
    async with http_service(vllm, data_dir, name="nobody") as client:
        answer = await client.post("/api/v1/caption", json=body())
    assert answer.status_code == 502
    assert answer.json()["code"] == "model_rejected"
