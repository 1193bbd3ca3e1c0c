"""``trendrag caption`` as a user runs it, against a real vLLM server."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.vllm.conftest import unseen_photo
from tests.vllm.server import MODEL, Vllm
from trendrag.types import CAPTION_EVENT, CandidateDone, Described, Done, TrendsRetrieved

pytestmark = pytest.mark.vllm

NOTE = "slow coffee this morning with some friends"


async def trendrag(vllm: Vllm, data_dir: Path, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
    photo = data_dir / "photo.jpg"
    photo.write_bytes(unseen_photo())
    return await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("trendrag"),
        "caption",
        photo,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "TRENDRAG_DATA_DIR": str(data_dir),
            "TRENDRAG_MODEL__PROVIDER": "openai",
            "TRENDRAG_MODEL__BASE_URL": vllm.base_url,
            "TRENDRAG_MODEL__NAME": MODEL,
        }
        | settings,
    )


async def test_json_events(vllm: Vllm, data_dir: Path) -> None:
    process = await trendrag(vllm, data_dir, "--note", NOTE, "--candidates", "2", "--json")
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    events = [CAPTION_EVENT.validate_json(line) for line in output.splitlines()]
    described, trends, *writing, done = events
    assert isinstance(described, Described)
    assert described.source == "note"
    assert isinstance(trends, TrendsRetrieved)
    assert [hit.trend.phrase for hit in trends.trends] == ["slow coffee"]
    captions = [event for event in writing if isinstance(event, CandidateDone)]
    assert sorted(caption.candidate for caption in captions) == [0, 1]
    assert all(caption.text and caption.confidence and 0 < caption.confidence <= 1 for caption in captions)
    assert isinstance(done, Done)
    assert (done.model, done.draft) == (MODEL, False)


async def test_lines_come_while_the_model_writes_and_ctrl_c_stops_it(vllm: Vllm, data_dir: Path) -> None:
    before = await vllm.metric("vllm:generation_tokens_total")
    process = await trendrag(vllm, data_dir, "--json", TRENDRAG_MODEL__MAX_TOKENS="3000")
    assert process.stdout is not None
    while b'"delta"' not in (line := await asyncio.wait_for(process.stdout.readline(), 60)):
        assert line, "ended without a caption"
    await vllm.wait_for_running(1)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    await vllm.wait_for_running(0)
    assert await vllm.metric("vllm:generation_tokens_total") - before < 1500


async def test_a_wrong_model_name_is_one_line_that_says_what_to_do(vllm: Vllm, data_dir: Path) -> None:
    process = await trendrag(vllm, data_dir, "--json", TRENDRAG_MODEL__NAME="nobody")
    output, errors = await process.communicate()
    assert process.returncode == 1
    assert b'"type":"failed","code":"model_rejected"' in output.splitlines()[-1]
    assert errors.startswith(b"Error: ")
    assert b"TRENDRAG_MODEL__NAME" in errors
    assert len(errors.splitlines()) == 1
