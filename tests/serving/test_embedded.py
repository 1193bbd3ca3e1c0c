"""The embedded engine starts once, answers only its owner, and ends without noise."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from serving.images import prepare_image
from serving.models.embedded import EmbeddedEngine, default_threads, open_embedded
from serving.service import _open_model
from trendrag.errors import ModelUnavailable, WeightsError
from trendrag.settings import ModelSettings, Settings, default_data_dir
from trendrag.types import CaptionRequest
from trendrag.weights import REGISTRY

MODELS = default_data_dir() / "models"
PHOTOS = Path(__file__).parent.parent / "photos"
RUN = f"""
import asyncio, sys
from pathlib import Path
from serving.models.embedded import EmbeddedEngine

async def main():
    engine = EmbeddedEngine(Path({str(MODELS)!r}))
    await engine.start()
    print("started", flush=True)
    if sys.argv[1] == "wait":
        await asyncio.Event().wait()

asyncio.run(main())
"""

AT_ONCE = f"""
import asyncio, os
from pathlib import Path
from serving.models.embedded import EmbeddedEngine

async def main():
    for _ in range(6):
        engine = EmbeddedEngine(Path({str(MODELS)!r}))
        await engine.start()
        await engine.close()

if hasattr(os, "sched_setaffinity"):  # on one core its threads come late
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
asyncio.run(main())
"""


async def test_it_stands_in_for_a_model_server_that_is_away(settings: Settings, unused_tcp_port: int) -> None:
    settings.data_dir.mkdir()
    settings.models_dir.symlink_to(MODELS)
    away = {"provider": "openai", "base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "name": "big"}
    model = ModelSettings.model_validate(away | {"fallback": "embedded"})
    photo = prepare_image((PHOTOS / "coffee.jpg").read_bytes(), settings.image)
    async with _open_model(settings.model_copy(update={"model": model})) as opened:
        description = await opened.describer.describe(photo)
        assert description.degraded
        assert "espresso" in description.text
        writing = opened.writer.write(CaptionRequest(image=photo, note="first snow"), "", (), 0)
        chunks = [chunk async for chunk in writing]
    assert opened.fallback == "SmolLM2-135M"
    assert {(chunk.degraded, chunk.model) for chunk in chunks} == {(True, "SmolLM2-135M")}
    assert len("".join(chunk.text for chunk in chunks)) > 10


async def test_many_starts_are_one_engine() -> None:
    engine = EmbeddedEngine(MODELS)

    endpoints = await asyncio.gather(*(engine.start() for _ in range(5)))

    assert len(set(endpoints)) == 1
    assert endpoints[0].base_url.startswith("http://127.0.0.1:")
    await engine.close()


async def test_it_can_be_closed_twice_and_started_again() -> None:
    engine = EmbeddedEngine(MODELS)
    await engine.close()
    first = await engine.start()
    await engine.close()
    await engine.close()

    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        with pytest.raises(httpx2.HTTPError):
            await client.get(first.base_url + "/models")
    assert await engine.start() != first
    await engine.close()


async def test_it_answers_only_with_the_key() -> None:
    engine = EmbeddedEngine(MODELS)
    endpoint = await engine.start()
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        without = await client.post(endpoint.base_url + "/chat/completions", json=body)
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        with_key = await client.post(endpoint.base_url + "/chat/completions", json=body, headers=headers)
    await engine.close()

    assert without.status_code == 401
    assert with_key.status_code == 200


async def test_missing_weights_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="trendrag models fetch"):
        await EmbeddedEngine(tmp_path).start()


async def test_a_file_that_is_no_model_says_what_to_run(tmp_path: Path) -> None:
    weight = REGISTRY["smollm2"]
    with (tmp_path / weight.file).open("wb") as file:
        file.truncate(weight.size)  # the right size, and nothing in it

    with pytest.raises(ModelUnavailable, match="--verify smollm2"):
        await EmbeddedEngine(tmp_path).start()


async def test_opening_loads_nothing_and_says_it_drafts(settings: Settings) -> None:
    async with open_embedded(settings) as (describer, writer):  # in a data folder without weights
        assert describer.always
        assert writer.draft


def test_it_can_be_closed_as_soon_as_it_has_started() -> None:
    command = [sys.executable, "-c", AT_ONCE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)  # noqa: S603  our own code

    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_never_closes_it_still_ends_quietly() -> None:
    command = [sys.executable, "-c", RUN, "end"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)  # noqa: S603  our own code

    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


def test_an_interrupt_ends_it() -> None:
    command = [sys.executable, "-c", RUN, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:  # noqa: S603  our own code
        assert program.stdout is not None
        assert program.stdout.readline() == b"started\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=180)

    assert program.returncode in (1, -signal.SIGINT)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")


def test_importing_it_loads_no_engine() -> None:
    heavy = {"xllamacpp", "langchain_openai", "onnxruntime"}
    code = f"import sys, serving.models.embedded; print({heavy} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  our own code

    assert done.stdout == "set()\n"


def test_one_core_at_least_and_four_at_most() -> None:
    assert 1 <= default_threads() <= 4
