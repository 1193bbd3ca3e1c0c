"""What `trendrag batch` makes of a model server's own pace: captions a second beside a bare closed loop, and memory.

Run: python -m benchmarks.batch [--vllm] [--quick]   (make bench-batch ARGS=--vllm; Linux; writes its part of batch.md)

The bare loop has so many workers, each of which sends its next request when its last one is answered; its requests are
made in advance, by the same code, to the byte. The batch reads photos from disk, prepares and captions them, keeps its
journal and writes its output. Each is a process of its own, whose start is left out. They take turns, and the ratio is
that of one turn. Where other work shares the machine, turns differ by more than the two do: so both also run side by
side, each with so many at once, and the ratio is that of the captions of the time in which both were at work.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from serving.batch.captions import Wishes, open_captioner
from serving.batch.pace import read_load
from serving.batch.run import Options, run
from serving.images import prepare_image
from tests.batch.archive import environment
from tests.batch.model_server import ModelServer, serving
from tests.vllm import checkpoint
from tests.vllm import environment as vllm_environment
from tests.vllm.server import MODEL as VLLM_MODEL
from tests.vllm.server import running
from trendrag.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "benchmarks" / "batch.md"
TITLE = "# `trendrag batch` beside a bare closed loop\n"
AT_ONCE = (1, 8, 32, 128)
PHOTOS, SIZE = 64, (480, 360)

MOCK = """## A mock of several GPUs

A process of its own on loopback that works on 32 requests at once for 0.8 s each: 40 captions a second at best, which
is several GPUs of 2025, and takes no processor time for it.
"""
PLACES, DELAY_S = 32, 0.8
MOCK_ROWS, MOCK_TURNS = {1: 20, 8: 160, 32: 640, 128: 800}, 1
MEMORY_ROWS = 20_000

VLLM = """## A real vLLM server on the CPU

The tiny checkpoint of tests/vllm, 128 tokens of output for every photo, 64 sequences at once (`--max-num-seqs`), no
prefix and no image cache, so that a turn finds nothing of the one before. Server and batch share the machine's cores:
what the batch costs is taken from the server, which a GPU's would not notice.
"""
VLLM_OPTIONS = ("--max-num-seqs", "64", "--no-enable-prefix-caching", "--mm-processor-cache-gb", "0")
VLLM_ROWS, VLLM_TURNS = {1: 12, 8: 64, 32: 192, 128: 384}, 3
TOKENS = 128


@dataclass(frozen=True, slots=True)
class Turn:
    """What one process did: rows, in so many seconds, with so much processor time. ``ends`` are when each row ended."""

    rows: int
    seconds: float
    processor_s: float
    ends: Sequence[float]

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


# --- what is compared, each in a process of its own


async def closed_loop(photos: Path, rows: int, workers: int) -> Turn:
    settings = load_settings()
    pictures = [prepare_image((photos / f"{number}.jpg").read_bytes(), settings.image) for number in range(PHOTOS)]
    async with open_captioner(settings, Wishes()) as captioner:
        asked = [captioner.asked(picture, None) for picture in pictures]
    left = iter(range(rows))

    ends: list[float] = []

    async def work(client: httpx2.AsyncClient) -> None:
        for number in left:
            body = asked[number % len(asked)]
            assert isinstance(body, bytes)  # noqa: S101  (of a plain captioner)
            answer = await client.post("/chat/completions", content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()
            ends.append(time.time())

    limits = httpx2.Limits(max_connections=1_000)
    base_url = settings.model.base_url or ""
    async with httpx2.AsyncClient(base_url=base_url, timeout=300, limits=limits, trust_env=False) as client:
        began, processor = time.monotonic(), time.process_time()
        await asyncio.gather(*(work(client) for _ in range(workers)))
        return Turn(rows, time.monotonic() - began, time.process_time() - processor, ends)


async def whole_batch(photos: Path, rows: int, at_once: int | None) -> Turn:
    folder = photos.parent
    options = Options(
        input=str(records(folder, rows)), output=str(folder / "out.jsonl"), mode="overwrite", images=photos,
        concurrency=at_once,
    )  # fmt: skip
    began: list[float] = []
    summary = await run(options, load_settings(), lambda _: began.append(time.process_time()))
    if summary.counts != {"done": rows, "failed": 0}:
        raise RuntimeError(f"not all rows have a caption: {summary.counts}")
    processor_s = time.process_time() - began[0]
    return Turn(rows, summary.seconds, processor_s, _ends(folder / "out.jsonl"))


def _ends(output: Path) -> list[float]:
    told = (json.loads(line)["vlm_captioned_at"] for line in output.read_text().splitlines())
    return sorted(datetime.fromisoformat(at).timestamp() for at in told)


def records(folder: Path, count: int) -> Path:
    """Records of the photos in turn."""
    with (folder / "in.jsonl").open("w") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "image_path": f"{number % PHOTOS}.jpg"}) + "\n")
    return folder / "in.jsonl"


def photographed(folder: Path) -> Path:
    """Photos that compress as photos do: soft noise over gradients, each its own."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        coarse = np.random.default_rng(number).integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(photos / f"{number}.jpg", quality=90)
    return photos


# --- turns


class Bench:
    """One server, and the processes that ask it in turn."""

    def __init__(self, folder: Path, photos: Path, settings: dict[str, str]) -> None:
        self._folder = folder
        self._photos = photos
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRENDRAG_")}
        self._environment = clean | settings

    def _start(self, what: str, rows: int, at_once: int | None) -> "subprocess.Popen[str]":
        told = json.dumps({"what": what, "photos": str(self._photos), "rows": rows, "at_once": at_once})
        command = [sys.executable, "-m", "benchmarks.batch", "--turn", told]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)  # noqa: S603

    def turn(self, what: str, rows: int, at_once: int | None) -> Turn:
        return _result(self._start(what, rows, at_once))

    def side_by_side(self, rows: int, at_once: int) -> float:
        """Captions of the batch for each of the bare loop, while both are at work."""
        bare, batch = (_result(each) for each in [self._start(what, rows, at_once) for what in ("bare", "batch")])
        # From when both have had a first answer; their first requests were sent at different times.
        begin, end = max(bare.ends[0], batch.ends[0]), min(bare.ends[-1], batch.ends[-1])
        within = [sum(begin < at <= end for at in turn.ends) for turn in (bare, batch)]
        return within[1] / within[0]

    def table(self, rows: dict[int, int], turns: int) -> list[str]:
        lines = [
            "| At once | bare loop, a second | batch, a second | ratio by turn | side by side | processor ms a row |"
        ]
        lines.append("|---|---|---|---|---|---|")
        for at_once, count in rows.items():
            bare: list[Turn] = []
            batch: list[Turn] = []
            order = [("bare", bare), ("batch", batch)]
            for _ in range(turns):
                for what, found in order:
                    found.append(self.turn(what, count, at_once))
                order.reverse()
                say(f"{at_once}: {bare[-1].rate:.2f} and {batch[-1].rate:.2f}, {batch[-1].rate / bare[-1].rate:.1%}")
            beside = [self.side_by_side(count, at_once) for _ in range(turns)]
            say(f"{at_once}: side by side {', '.join(f'{ratio:.1%}' for ratio in beside)}")
            ratios = [after.rate / before.rate for before, after in zip(bare, batch, strict=True)]
            told = f"{_spread(ratios)} | {_spread(beside)}"
            rates = [statistics.median(turn.rate for turn in found) for found in (bare, batch)]
            costs = [
                statistics.median(1_000 * turn.processor_s / turn.rows for turn in found) for found in (bare, batch)
            ]
            lines.append(
                f"| {at_once} | {rates[0]:.2f} | {rates[1]:.2f} | {told} | {costs[0]:.1f} and {costs[1]:.1f} |"
            )
        return lines

    def alone(self, rows: int, metrics: str) -> str:
        """A run that finds out by itself how many to ask for, and what the server said of its queue meanwhile."""
        seen: list[tuple[float, float]] = []
        over = threading.Event()

        def watch() -> None:
            with httpx2.Client(timeout=10, trust_env=False) as client:
                while not over.wait(0.5):
                    load = read_load(client.get(metrics).text)
                    if load is not None and load.running:
                        seen.append((load.running, load.waiting))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            turn = self.turn("batch", rows, None)
        finally:
            over.set()
            watching.join()
        middle = seen[len(seen) // 4 : -len(seen) // 4 or None]
        ran, waited = (statistics.median(each) for each in zip(*middle, strict=True))
        idle = sum(not waiting for _, waiting in middle)
        return (
            f"As it finds out by itself: {turn.rate:.2f} a second over {rows:,} rows. In the middle half of the run "
            f"the\nserver ran {ran:g} at once and {waited:g} waited (medians of {len(middle)} looks at /metrics; "
            f"in {idle} of them none waited)."
        )

    def memory(self, rows: int, at_once: int) -> tuple[float, list[int]]:
        """Captions a second of the command itself, and its memory (MiB) at each tenth of the way."""
        command = [sys.executable, "-c", "from trendrag.cli import main; main()", "batch"]
        command += [str(records(self._folder, rows)), str(self._folder / "out.jsonl"), "--overwrite"]
        command += ["--images", str(self._photos), "--concurrency", str(at_once)]
        process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True)  # noqa: S603
        memory: list[int] = []

        def watch() -> None:
            while process.poll() is None:
                with contextlib.suppress(OSError, StopIteration, IndexError):
                    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                    memory.append(int(next(line for line in status if line.startswith("VmRSS")).split()[1]) // 1024)
                time.sleep(0.25)

        watching = threading.Thread(target=watch)
        watching.start()
        said = process.communicate()[1]
        watching.join()
        found = re.search(r"([\d.]+) rows/s", said)
        if process.returncode or found is None:
            raise RuntimeError(said)
        step = max(1, len(memory) // 10)
        return float(found[1]), memory[step - 1 :: step][:10]


def _result(process: "subprocess.Popen[str]") -> Turn:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("a turn failed")
    return Turn(**json.loads(said.splitlines()[-1]))


def _spread(ratios: list[float]) -> str:
    of = f" ({min(ratios):.0%}–{max(ratios):.0%})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.1%}{of}"


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


# --- the report


def with_mock(folder: Path, photos: Path, *, quick: bool) -> str:
    lines = [MOCK]
    with mock(DELAY_S) as server:
        bench = Bench(folder, photos, environment(folder, server))
        lines += bench.table(
            {at: max(2 * at, rows // 4) if quick else rows for at, rows in MOCK_ROWS.items()}, MOCK_TURNS
        )
        lines += ["", bench.alone(MOCK_ROWS[128] // (4 if quick else 1), f"{server.url}/metrics")]
    count = MEMORY_ROWS // (10 if quick else 1)
    with mock(0.05) as server:
        rate, memory = Bench(folder, photos, environment(folder, server)).memory(count, 64)
    told = f"Memory over {count:,} rows ({rate:.0f} a second, a server that takes 0.05 s), MiB at each tenth:\n"
    return "\n".join([*lines, "", told + ", ".join(map(str, memory)) + "."])


def with_vllm(folder: Path, photos: Path, *, quick: bool) -> str:
    python = vllm_environment.interpreter()
    if python is None:
        sys.exit("The vLLM environment is missing or out of date. Build it with: make vllm-env")
    rows, turns = ({1: 4, 8: 16}, 1) if quick else (VLLM_ROWS, VLLM_TURNS)
    with running(python, checkpoint.made_by(python), folder / "vllm.log", VLLM_OPTIONS) as server:
        settings = {
            "TRENDRAG_DATA_DIR": str(folder / "var"),
            "TRENDRAG_MODEL__PROVIDER": "openai",
            "TRENDRAG_MODEL__BASE_URL": server.base_url,
            "TRENDRAG_MODEL__NAME": VLLM_MODEL,
            "TRENDRAG_MODEL__MAX_TOKENS": str(TOKENS),
        }
        bench = Bench(folder, photos, settings)
        bench.turn("bare", 64 if not quick else 4, 64)  # its first batches of each size are slower
        lines = [VLLM, *bench.table(rows, turns), ""]
        lines.append(bench.alone(40 if quick else 2 * rows[128], f"{server.origin}/metrics"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vllm", action="store_true", help="beside a real vLLM server on the CPU, and not a mock")
    parser.add_argument("--quick", action="store_true", help="a part of it, and no report")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--turn", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(given.serve))
        return
    if given.turn is not None:
        told: dict[str, Any] = given.turn
        what = whole_batch if told["what"] == "batch" else closed_loop
        print(json.dumps(asdict(asyncio.run(what(Path(told["photos"]), told["rows"], told["at_once"])))))  # noqa: T201
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-batch-"))
    try:
        text = (with_vllm if given.vllm else with_mock)(folder, photographed(folder), quick=given.quick)
    finally:
        shutil.rmtree(folder)
    load = f"load average {os.getloadavg()[2]:.0f} over a quarter of an hour"
    text += f"\n\n{os.cpu_count()} cores, {load}, Python {sys.version.split()[0]}.\n"
    print(text)  # noqa: T201
    if not given.quick:
        write(text)


def write(part: str) -> None:
    """The part in the place of the one with the same heading, or after the others."""
    title = f"{TITLE}\n{(__doc__ or '').split(chr(10) * 2, 2)[2]}"
    before = REPORT.read_text() if REPORT.exists() else ""
    parts = dict(re.findall(r"(?ms)^(## [^\n]*\n)(.*?)(?=^## |\Z)", before))
    head, _, body = part.partition("\n")
    parts[head + "\n"] = body
    REPORT.write_text("\n".join([title, *(f"{name}{text.rstrip()}\n" for name, text in parts.items())]))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
