"""What `trendrag batch` makes of a model server's own pace: captions a second beside a bare closed loop, and memory.

Run: python -m benchmarks.batch [--quick]   (make bench-batch; some six minutes, Linux)

The server is a mock on loopback, a process of its own, that works on 32 requests at once for 0.8 s each: 40 captions a
second at best, which is several GPUs of 2025. The loop beside it (so many workers, each sends the next request when its
last one is answered) has its requests made in advance. The batch reads photos from disk, prepares and captions them,
keeps its journal and writes its output. Both send the same photos, in turn, in one run. Writes benchmarks/batch.md.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from serving.images import prepare_image
from serving.models.lean import LeanChat
from tests.batch.archive import environment
from tests.batch.model_server import MODEL, ModelServer, serving
from trendrag.platforms import built_in_platforms
from trendrag.prompting import caption_messages
from trendrag.settings import ImageSettings
from trendrag.types import CaptionRequest

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = sorted((ROOT / "tests" / "photos").glob("*.jpg"))
PLACES, DELAY_S = 32, 0.8
ROWS = {1: 20, 8: 160, 32: 640, 128: 800}
MEMORY_ROWS = 20_000


def rows(folder: Path, count: int) -> Path:
    """Records of the photos in turn."""
    with (folder / "in.jsonl").open("w") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "image_path": PHOTOS[number % len(PHOTOS)].name}) + "\n")
    return folder / "in.jsonl"


def bodies() -> list[bytes]:
    chat = LeanChat(model_name=MODEL, base_url="", temperature=0.8, max_tokens=256)
    made = []
    for photo in PHOTOS:
        image = prepare_image(photo.read_bytes(), ImageSettings())
        request = built_in_platforms().filled_in(CaptionRequest(image=image, trends=False))
        made.append(chat.body(caption_messages(request, ()), None, stream=None, stream_options=None))
    return made


async def closed_loop(server: ModelServer, asked: list[bytes], count: int, workers: int) -> float:
    """Captions a second."""
    left = iter(range(count))

    async def work(client: httpx2.AsyncClient) -> None:
        for number in left:
            answer = await client.post(
                f"{server.base_url}/chat/completions",
                content=asked[number % len(asked)],
                headers={"Content-Type": "application/json"},
            )
            answer.raise_for_status()

    limits = httpx2.Limits(max_connections=1_000)
    async with httpx2.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
        began = time.monotonic()
        await asyncio.gather(*(work(client) for _ in range(workers)))
        return count / (time.monotonic() - began)


def run_batch(folder: Path, server: ModelServer, count: int, *options: str) -> tuple[float, list[int]]:
    """Captions a second, without the process's start, and its memory (MiB) at each tenth of the way."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
    command = [sys.executable, "-c", "from trendrag.cli import main; main()", "batch", str(rows(folder, count))]
    command += [str(folder / "out.jsonl"), "--overwrite", "--images", str(PHOTOS[0].parent), *options]
    process = subprocess.Popen(  # noqa: S603
        command, env=clean | environment(folder, server), stderr=subprocess.PIPE, text=True
    )
    memory: list[tuple[float, int]] = []

    def watch() -> None:
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                memory.append((time.monotonic(), int(next(x for x in status if x.startswith("VmRSS")).split()[1])))
            time.sleep(0.25)

    watching = threading.Thread(target=watch)
    watching.start()
    said = process.communicate()[1]
    watching.join()
    if process.returncode:
        raise RuntimeError(said)
    summary = next(line for line in said.splitlines() if " captions in " in line)
    rate = float(summary.rsplit(", ", 1)[1].split()[0])
    step = max(1, len(memory) // 10)
    return rate, [kilobytes // 1024 for _, kilobytes in memory[step - 1 :: step]][:10]


@contextlib.contextmanager
def mock(delay_s: float) -> Iterator[ModelServer]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "benchmarks.batch", "--serve", str(delay_s)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101
        yield ModelServer(port=int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


async def serve(delay_s: float) -> None:
    async with serving(ModelServer(delay_s=delay_s, places=PLACES)) as server:
        print(server.port, flush=True)  # noqa: T201
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, and no report")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(given.serve))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-batch-"))
    try:
        text = report(folder, quick=given.quick)
    finally:
        shutil.rmtree(folder)
    print(text)  # noqa: T201
    if not given.quick:
        (ROOT / "benchmarks" / "batch.md").write_text(text)


def report(folder: Path, *, quick: bool) -> str:
    lines = ["# `trendrag batch` beside a bare closed loop", "", *(__doc__ or "").split("\n\n", 2)[2].split("\n")]
    lines += ["| Captions at once | bare loop, a second | batch, a second | ratio |", "|---|---|---|---|"]
    asked = bodies()
    with mock(DELAY_S) as server:
        for at_once, whole in ROWS.items():
            count = max(2 * at_once, whole // 4) if quick else whole
            bare = asyncio.run(closed_loop(server, asked, count, at_once))
            rate, _ = run_batch(folder, server, count, "--concurrency", str(at_once))
            lines.append(f"| {at_once} | {bare:.2f} | {rate:.2f} | {rate / bare:.1%} |")
        rate, _ = run_batch(folder, server, ROWS[128] // (4 if quick else 1))
        lines.append(f"| as it finds out | | {rate:.2f} | |")
    count = MEMORY_ROWS // (10 if quick else 1)
    with mock(0.05) as server:
        rate, memory = run_batch(folder, server, count, "--concurrency", "64")
    lines += [
        "",
        f"Memory over {count:,} rows ({rate:.0f} a second, a server that takes 0.05 s), MiB at each tenth:",
        "",
    ]
    lines += [", ".join(map(str, memory)), "", f"{os.cpu_count()} cores, Python {sys.version.split()[0]}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
