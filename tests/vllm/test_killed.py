"""What users see when the model server dies under them, and when it comes back. One server, killed once, watched from
two sides, and another on its port."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.models.chat import ChatWriter
from serving.models.openai import close_chat_model, open_chat_model
from tests.vllm.conftest import LOGS, model_settings
from tests.vllm.http_service import body, events, http_service
from tests.vllm.server import MODEL, Vllm, running
from tests.vllm.test_http import NOTE
from trendrag.errors import ModelInterrupted, ModelUnavailable
from trendrag.types import CaptionRequest, PreparedImage

pytestmark = pytest.mark.vllm


async def test_killed_in_mid_stream_gone_afterwards_and_started_again(
    doomed_vllm: Vllm, vllm_python: Path, vllm_checkpoint: Path, data_dir: Path, photo: PreparedImage
) -> None:
    settings = model_settings(doomed_vllm, max_tokens=3000)
    model = open_chat_model(settings)
    writer = ChatWriter(model, MODEL, settings)
    texts: list[str] = []
    writing = asyncio.Event()

    async def write() -> None:
        async for chunk in writer.write(CaptionRequest(image=photo), "", (), 0):
            texts.append(chunk.text)
            writing.set()

    async with http_service(doomed_vllm, data_dir, max_tokens=3000) as client:
        task = asyncio.create_task(write())
        await writing.wait()
        got: list[tuple[str, dict[str, Any]]] = []
        async with client.stream("POST", "/api/v1/caption/stream", json=body()) as answer:
            async for name, data in events(answer):
                if name == "delta" and "delta" not in [name for name, _ in got]:
                    doomed_vllm.kill()
                got.append((name, data))
        with pytest.raises(ModelInterrupted, match="Try again"):
            await task
        assert texts
        assert got[-1][0] == "failed"
        assert got[-1][1]["code"] == "model_interrupted"

        with pytest.raises(ModelUnavailable, match=f"{doomed_vllm.base_url} can't be reached"):
            await write()
        refused = await client.post("/api/v1/caption", json=body())
        assert refused.status_code == 503
        assert refused.json()["code"] == "model_unavailable"
        assert (await client.get("/readyz")).status_code == 503

        while "left alone" not in refused.json()["message"]:
            refused = await client.post("/api/v1/caption", json=body())
            assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "left alone" in ready.json()["message"]

        port = int(doomed_vllm.origin.rpartition(":")[2])
        with running(vllm_python, vllm_checkpoint, LOGS / "reborn.log", port=port):
            # As a client would that was told when to ask again.
            while (answer := await client.post("/api/v1/caption", json=body(note=NOTE))).status_code == 503:  # noqa: ASYNC110
                await asyncio.sleep(int(answer.headers["retry-after"]))
            assert answer.status_code == 200, answer.text
            assert (await client.get("/readyz")).status_code == 200
    await close_chat_model(model)
