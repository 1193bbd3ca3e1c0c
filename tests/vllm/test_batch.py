"""`trendrag batch`, as a user starts it, against a real vLLM server: what fails is a row, what was killed goes on, and
the server's queue is kept just full."""

import asyncio
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

import httpx2
import pytest

from serving.batch.pace import FIRST, read_load
from tests.batch.archive import captions_of, read, record, write
from tests.batch.doomed import finish, start_at
from tests.batch.model_server import ModelServer, serving
from tests.vllm.conftest import LOGS, unseen_photo
from tests.vllm.server import MODEL, Vllm, running

pytestmark = pytest.mark.vllm

SEQUENCES = 2 * FIRST


def photos(folder: Path, numbers: Iterable[int]) -> None:
    (folder / "photos").mkdir()
    for number in numbers:
        (folder / "photos" / f"{number}.jpg").write_bytes(unseen_photo())


async def start(
    folder: Path, vllm: Vllm, *options: str, tokens: int = 32, images: ModelServer | None = None
) -> asyncio.subprocess.Process:
    settings = {
        "TRENDRAG_DATA_DIR": str(folder / "var"),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": vllm.base_url,
        "TRENDRAG_MODEL__NAME": MODEL,
        "TRENDRAG_MODEL__MAX_TOKENS": str(tokens),
    }
    if images is not None:
        settings |= {
            "TRENDRAG_FETCH__ALLOW_HTTP": "true",
            "TRENDRAG_FETCH__ALLOW_PRIVATE": "true",
            "TRENDRAG_FETCH__PORTS": f"[{images.port}]",
        }
    return await start_at((str(folder / "in.jsonl"), str(folder / "out.jsonl")), settings, *options)


async def test_a_broken_image_and_a_404_are_rows_among_others(vllm: Vllm, tmp_path: Path) -> None:
    photos(tmp_path, range(6))
    (tmp_path / "photos" / "2.jpg").write_bytes(unseen_photo()[:900])
    async with serving(ModelServer(fetches={"/photo/7.jpg": [404]})) as host:
        fetched = [record(number, image_url=f"{host.url}/photo/{number}.jpg", image_path=None) for number in (6, 7)]
        write(tmp_path / "in.jsonl", [*(record(number) for number in range(6)), *fetched])
        status, said = await finish(await start(tmp_path, vllm, images=host))
    assert status == 1, said
    rows = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == ["r0", "r1", "r3", "r4", "r5", "r6"]
    assert all(row["vlm_caption"].strip() and row["vlm_model"] == MODEL for row in rows)
    assert len({row["vlm_caption"] for row in rows}) == 6
    failed = {row["id"]: (row["code"], row["reason"]) for row in read(tmp_path / "out.errors.jsonl")}
    assert failed.keys() == {"r2", "r7"}
    assert failed["r2"][0] == "invalid_image"
    assert "404" in failed["r7"][1]
    assert "6 captions" in said
    assert "192 written" in said  # six times 32 tokens


async def test_killed_it_goes_on_and_what_was_written_stays(vllm: Vllm, tmp_path: Path) -> None:
    rows = 40
    photos(tmp_path, range(rows))
    write(tmp_path / "in.jsonl", [record(number) for number in range(rows)])
    process = await start(tmp_path, vllm, "--concurrency", "2", tokens=128)
    async with asyncio.timeout(120):
        # Until a few are on the disk, which is behind the journal.
        while not (out := tmp_path / "out.jsonl").exists() or out.read_bytes().count(b"\n") < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    process.kill()
    await process.communicate()
    whole = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
    assert 4 <= len(whole) < rows
    status, said = await finish(await start(tmp_path, vllm, "--resume", tokens=128))
    assert status == 0, said
    assert (tmp_path / "out.jsonl").read_bytes().split(b"\n")[: len(whole)] == whole  # a model asked again says another
    assert list(captions_of(tmp_path / "out.jsonl")) == [f"r{number}" for number in range(rows)]


async def test_it_finds_out_how_much_the_server_takes_and_keeps_its_queue_just_full(
    vllm_python: Path, vllm_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 480
    photos(tmp_path, range(12))
    write(tmp_path / "in.jsonl", [record(number, image_path=f"photos/{number % 12}.jpg") for number in range(rows)])
    LOGS.mkdir(parents=True, exist_ok=True)
    looks: list[tuple[float, float, float]] = []  # (finished, running, waiting), of the server's own metrics
    options = "--max-num-seqs", str(SEQUENCES)
    with running(vllm_python, vllm_checkpoint, LOGS / "batch.log", options) as server:
        process = await start(tmp_path, server, tokens=64)
        ending = asyncio.create_task(finish(process))
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            while not ending.done():
                page = (await client.get(f"{server.origin}/metrics")).text
                if (load := read_load(page)) is not None:
                    finished = sum(map(float, re.findall(r"(?m)^vllm:request_success_total\{.*\} (\S+)$", page)))
                    looks.append((finished, load.running, load.waiting))
                await asyncio.wait([ending], timeout=0.25)
        status, said = await ending
    assert status == 0, said
    settled = [(ran, waited) for done, ran, waited in looks if rows / 2 < done < rows * 0.9]
    ran, waited = (statistics.median(each) for each in zip(*settled, strict=True))
    with capsys.disabled():
        print(f"\n  of {SEQUENCES} at most the server ran {ran:g}, and {waited:g} waited ({len(settled)} looks)")  # noqa: T201
    assert max(ran for _, ran, _ in looks) == SEQUENCES  # it began with half as many
    assert ran > FIRST  # all of them, but where other work keeps this machine from asking
    assert waited <= SEQUENCES / 2
