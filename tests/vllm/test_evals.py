"""``trendrag evals run`` as a user runs it, against a real vLLM server: protocol, not quality.

The weights are of chance, so nothing here says how good an answer is: only that photos, prompts, seeds and schemas are
taken, and that the record tells what was asked and what it cost.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from evals.record import Recorded
from tests.vllm.server import MODEL, Vllm

pytestmark = pytest.mark.vllm

PHOTO_TOKENS = 100
"""More than a question without its photo has."""
TASK_S = 240


async def run(vllm: Vllm, data_dir: Path, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
    programs = data_dir / "bin"  # without Java, which would take a quarter of a minute a run
    programs.mkdir(exist_ok=True)
    if (git := shutil.which("git")) and not (programs / "git").exists():
        (programs / "git").symlink_to(git)
    environment = os.environ | {
        "PATH": str(programs),
        "TRENDRAG_DATA_DIR": str(data_dir),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": vllm.base_url,
        "TRENDRAG_MODEL__NAME": MODEL,
        "TRENDRAG_MODEL__MAX_TOKENS": "40",
        "XDG_DATA_HOME": str(data_dir / "data"),
        "XDG_CACHE_HOME": str(data_dir / "cache"),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trendrag", "evals", "run", *arguments, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment | settings,
    )


async def recorded(process: asyncio.subprocess.Process) -> list[Recorded]:
    """The runs that the command printed, one after the other."""
    output, errors = await asyncio.wait_for(process.communicate(), TASK_S)
    assert process.returncode == 0, errors.decode()
    decoder, text, found = json.JSONDecoder(), output.decode().strip(), []
    while text:
        told, end = decoder.raw_decode(text)
        found.append(Recorded.model_validate(told))
        text = text[end:].strip()
    return found


def answered(run: Recorded) -> None:
    """Every item has its text, and the record says what it cost, and of what it is."""
    assert not run.failures
    for item in run.items:
        assert item.output
        assert item.latency_s
        assert item.tokens
        assert item.tokens.prompt > PHOTO_TOKENS
        assert item.tokens.completion > 0
    assert run.run.model == MODEL
    assert run.run.prompt_sha256
    assert run.run.cases_sha256
    assert run.run.seed == 1
    assert run.run.commit
    assert {"cores", "system"} <= run.run.hardware.keys()
    assert {"trendrag", "inspect-ai"} <= run.run.versions.keys()


async def test_captions_of_the_model_and_of_the_chain(vllm: Vllm, data_dir: Path) -> None:
    models = ("--model", f"server/{MODEL}", "--model", "trendrag")
    bare, chain, *anchors = await recorded(await run(vllm, data_dir, "caption", "--limit", "2", *models))
    for each in (bare, chain):
        answered(each)
        assert len(each.items) == 2
        assert all("CIDEr" in item.scores and "bleu" in item.counts for item in each.items)
    assert (bare.run.provider, chain.run.provider) == ("server", "trendrag")
    assert bare.run.prompt_sha256 != chain.run.prompt_sha256
    assert all(item.first_token_s for item in chain.items)
    assert [each.run.label.partition(":")[0] for each in anchors] == ["anchor"] * 3


async def test_trends_on_and_off_with_a_judge_whose_answer_the_server_binds(vllm: Vllm, data_dir: Path) -> None:
    judge = ("--judge", f"server/{MODEL}")
    (found,) = await recorded(await run(vllm, data_dir, "trends", "--limit", "2", "--as-of", "now", *judge))
    answered(found)
    assert found.run.snapshot_id == (data_dir / "snapshots" / "CURRENT").read_text("utf-8").strip()
    assert found.run.settings["judge"] == f"server/{MODEL}"
    assert found.run.settings["judge.prompt_sha256"] != found.run.prompt_sha256
    scores = {item.id: item.scores for item in found.items}
    for name in ("coffee", "cat"):
        # Weights of chance answer no question: that there is a verdict on each is the schema's doing.
        assert scores[f"{name}/on"]["grounded on"] in (0, 1)
        assert scores[f"{name}/off"]["grounded off"] in (0, 1)
    assert scores["coffee/on"]["offered"] == 1  # "slow coffee", for the note "slow sunday with my espresso"
    tokens = {item.id: item.tokens.prompt for item in found.items if item.tokens}
    assert tokens["coffee/on"] > tokens["coffee/off"]


async def test_gibberish_in_the_place_of_tags_is_an_answer_worth_nothing(vllm: Vllm, data_dir: Path) -> None:
    (found,) = await recorded(await run(vllm, data_dir, "tagging", "--limit", "2", "--model", f"server/{MODEL}"))
    answered(found)
    assert [(item.scores["valid"], item.scores["recall"]) for item in found.items] == [(0, 0)] * 2


@pytest.mark.parametrize(("loop", "task"), [(("--clients", "2"), "serving closed"), (("--rate", "20"), "serving open")])
async def test_load(vllm: Vllm, data_dir: Path, loop: tuple[str, ...], task: str) -> None:
    asked = ("serving", "--url", vllm.base_url, "--model", MODEL, "--requests", "6", *loop)
    (found,) = await recorded(await run(vllm, data_dir, *asked))
    assert found.run.task == task
    assert not found.failures
    for item in found.items:
        assert item.tokens
        assert item.tokens.completion == 64
        assert item.first_token_s
        assert item.latency_s
        assert item.first_token_s < item.latency_s
    assert found.run.figures["tokens/s of all"] > 0


async def test_a_killed_run_goes_on_without_paying_twice(vllm: Vllm, data_dir: Path) -> None:
    tokens, photos = 300, 4
    asked: dict[str, Any] = {"TRENDRAG_MODEL__MAX_TOKENS": str(tokens)}
    options = ("tagging", "--model", f"server/{MODEL}", "--limit", str(photos), "--concurrency", "1")
    before = await vllm.metric("vllm:generation_tokens_total")
    killed = await run(vllm, data_dir, *options, **asked)
    assert killed.stderr is not None
    while b": 2 of 4" not in (line := await asyncio.wait_for(killed.stderr.readline(), TASK_S)):
        assert line, "ended too soon"
    killed.send_signal(signal.SIGKILL)
    await killed.communicate()
    await vllm.wait_for_running(0)
    assert not list((data_dir / "evals").glob("runs/*"))

    (found,) = await recorded(await run(vllm, data_dir, *options, "--resume", **asked))
    answered(found)
    assert [item.tokens.completion for item in found.items if item.tokens] == [tokens] * photos
    assert any("answers were kept" in note for note in found.run.notes)
    paid = await vllm.metric("vllm:generation_tokens_total") - before
    assert photos * tokens <= paid <= (photos + 1) * tokens  # the one that was under way is asked again
