"""What an uploaded photo costs, step by step, and what running streams notice of others' uploads.

    python benchmarks/images.py                  into benchmarks/images.md (`make bench-images`)
    python benchmarks/images.py --screen         to the screen only

Photos are made up, with the detail of real ones. The steps are those of `POST /api/v1/caption/stream`. Streams are
measured twice: as a clock on an event loop beside image work of each kind of pool, and over HTTP, where one process
reads a stream of tokens from the real application while another uploads photos of 12 million pixels. The service behind
the application says a token every 20 ms, so that a late one is the application's doing, or the machine's.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import os
import platform
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import httpx2
import numpy as np
import uvicorn
from PIL import Image

from serving.app import create_app
from serving.http.schemas import CaptionBody
from serving.image_headers import bare
from serving.images import from_base64, prepare_image
from trendrag.settings import ImageSettings, Settings
from trendrag.types import CandidateDone, CaptionEvent, CaptionRequest, Delta, Described, Done, Timings, Usage

REPORT = Path(__file__).with_suffix(".md")
IMAGES = ImageSettings()
TOKEN_S = 0.02
TOKENS = 400
UPLOADERS = 8
ROUNDS = 7


def photo(width: int, height: int, quality: int) -> bytes:
    """A JPEG with large shapes and fine grain, as photos have."""
    chance = np.random.default_rng(1)
    shapes = Image.fromarray(chance.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = chance.integers(-12, 12, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def spent(work: Callable[[], object]) -> float:
    """Milliseconds of processor time, the median of a few rounds: what else runs on the machine counts little."""
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return sorted(taken)[ROUNDS // 2] * 1000


def steps(data: bytes) -> list[tuple[str, float]]:
    body = json.dumps({"image": base64.b64encode(data).decode(), "note": "first snow"}).encode()
    text = CaptionBody.model_validate_json(body).image or ""
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, (1156, 867))
    opened.load()
    large = opened.copy()
    scaled = large.resize((min(1156, large.width), min(867, large.height)), Image.Resampling.BICUBIC)
    prepared = prepare_image(data, IMAGES)

    def decode(size: tuple[int, int] | None) -> None:
        image = Image.open(io.BytesIO(data))
        if size:
            image.draft(None, size)
        image.load()

    return [
        ("JSON to the model, on the event loop", spent(lambda: CaptionBody.model_validate_json(body))),
        ("the same by json.loads, as the framework does", spent(lambda: CaptionBody.model_validate(json.loads(body)))),
        ("base64", spent(lambda: from_base64(text))),
        ("base64 by the standard library", spent(lambda: base64.b64decode(text, validate=True))),
        ("taking the file apart", spent(lambda: bare(data))),
        ("decoding in full", spent(lambda: decode(None))),
        ("decoding at the size needed", spent(lambda: decode((1156, 867)))),
        ("decoding at an eighth, to check what passes", spent(lambda: decode((1, 1)))),
        ("scaling", spent(lambda: large.resize((1156, 867), Image.Resampling.BICUBIC, reducing_gap=2.0))),
        ("scaling with Lanczos", spent(lambda: large.resize((1156, 867), Image.Resampling.LANCZOS, reducing_gap=2.0))),
        ("encoding", spent(lambda: scaled.save(io.BytesIO(), "JPEG", quality=90))),
        ("**all of `prepare_image`**", spent(lambda: prepare_image(data, IMAGES))),
        ("base64 for the model server", spent(lambda: base64.b64encode(prepared.data))),
    ]


# -- a clock on an event loop


async def lateness(pool: Executor | None, pictures: Sequence[bytes]) -> tuple[list[float], float]:
    """(ms by which each tick of 5 ms came late, seconds for all pictures); without a pool the work is done in place."""
    late: list[float] = []
    done = asyncio.Event()

    async def tick() -> None:
        while not done.is_set():
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            late.append((time.perf_counter() - due) * 1000)

    clock = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    loop, started = asyncio.get_running_loop(), time.perf_counter()
    if pool is None:
        for picture in pictures:
            prepare_image(picture, IMAGES)
            await asyncio.sleep(0)
    else:
        await asyncio.gather(*(loop.run_in_executor(pool, prepare_image, picture, IMAGES) for picture in pictures))
    took = time.perf_counter() - started
    done.set()
    await clock
    return late, took


def pools(picture: bytes) -> list[tuple[str, list[float], float]]:
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for name, open_pool in (
        ("no pool", lambda: nullcontext(None)),
        ("1 thread", lambda: ThreadPoolExecutor(1)),
        ("2 threads", lambda: ThreadPoolExecutor(2)),
        ("2 processes", lambda: ProcessPoolExecutor(2, mp_context=spawn)),
    ):
        with open_pool() as pool:
            if pool is not None:  # processes start on their first work
                list(pool.map(prepare_image, [picture] * 2, [IMAGES] * 2))
            late, took = [], 0.0
            for _ in range(3):
                more, seconds = asyncio.run(lateness(pool, [picture] * UPLOADERS))
                late += more
                took += seconds
        rows.append((name, late, took / 3))
    return rows


# -- over HTTP


class Metronome:
    """Says a token every ``TOKEN_S``; to a request whose note says so it answers at once."""

    model_name = "metronome"
    draft = False

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        yield Described(text="", source="note")
        if request.note != "at once":
            due = asyncio.get_running_loop().time()
            for _ in range(TOKENS):
                due += TOKEN_S
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                yield Delta(candidate=0, text="word ")
        yield CandidateDone(candidate=0, text="word " * TOKENS)
        yield Done(usage=Usage(), timings=Timings(total=1), snapshot_id=None, model="metronome", draft=False)

    def snapshot(self) -> None:
        return None

    async def check_model(self) -> None:
        return None


def serve(listener: socket.socket) -> None:
    app = create_app(Settings(), lambda _: nullcontext(Metronome()))
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="error")).serve([listener]))


def upload(port: int, picture: bytes, uploaded: "multiprocessing.sharedctypes.Synchronized[int]") -> None:
    body = json.dumps({"image": base64.b64encode(picture).decode(), "note": "at once"}).encode()

    async def one(client: httpx2.AsyncClient) -> None:
        while True:
            answer = await client.post("/api/v1/caption", content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()
            with uploaded.get_lock():
                uploaded.value += 1

    async def all_of_them() -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            await asyncio.gather(*(one(client) for _ in range(UPLOADERS)))

    asyncio.run(all_of_them())


async def gaps(port: int, picture: bytes) -> list[float]:
    """Milliseconds between the tokens of one stream."""
    body = {"image": base64.b64encode(picture).decode(), "note": "as a metronome"}
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        client.stream("POST", "/api/v1/caption/stream", json=body) as answer,
    ):
        answer.raise_for_status()
        arrived = [time.perf_counter() async for line in answer.aiter_lines() if line == "event: delta"]
    return [(after - before) * 1000 for before, after in pairwise(arrived)]


def over_http(small: bytes, large: bytes) -> list[tuple[str, list[float], int]]:
    spawn = multiprocessing.get_context("spawn")
    uploaded = spawn.Value("i", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = spawn.Process(target=serve, args=(listener,), daemon=True)
        server.start()
        asyncio.run(gaps(port, small))  # until it is up and warm
        quiet = asyncio.run(gaps(port, small))
        uploader = spawn.Process(target=upload, args=(port, large, uploaded), daemon=True)
        uploader.start()
        while uploaded.value < UPLOADERS:
            time.sleep(0.05)
        before = uploaded.value
        busy = asyncio.run(gaps(port, small))
        count = uploaded.value - before
        for process in (uploader, server):
            process.terminate()
            process.join()
    return [("quiet", quiet, 0), (f"{UPLOADERS} uploads at a time", busy, count)]


def of(values: Sequence[float]) -> str:
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99)]
    return f"{at[0]:.1f} | {at[1]:.1f} | {ordered[-1]:.1f}"


def report() -> str:
    small, large = photo(1024, 768, 52), photo(4000, 3000, 88)
    lines = [
        "# What an uploaded photo costs",
        "",
        (
            f"`make bench-images` wrote this, on {platform.machine()} with {os.cpu_count()} cores that others used too "
            f"(load {os.getloadavg()[0]:.0f} at the start). Milliseconds."
        ),
        "",
        "## Step by step (processor time)",
        "",
        f"| | {len(small) // 1000} kB, 1024 × 768 | {len(large) / 1e6:.1f} MB, 4000 × 3000 |",
        "|---|---|---|",
    ]
    for (name, one), (_, other) in zip(steps(small), steps(large), strict=True):
        lines.append(f"| {name} | {one:.2f} | {other:.2f} |")
    lines += [
        "",
        f"## A clock on the event loop while {UPLOADERS} photos of 12 million pixels are prepared",
        "",
        "| | late p50 | p99 | most | all photos, s |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {of(late)} | {took:.2f} |" for name, late, took in pools(large)]
    lines += [
        "",
        f"## Over HTTP: gaps between the tokens of a stream, {TOKEN_S * 1000:.0f} ms by the model",
        "",
        "| | p50 | p99 | most | photos prepared meanwhile |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {of(found)} | {count} |" for name, found, count in over_http(small, large)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screen", action="store_true", help="write no report")
    asked = parser.parse_args()
    text = report()
    print(text)  # noqa: T201
    if not asked.screen:
        REPORT.write_text(text, "utf-8")
