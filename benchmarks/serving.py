"""What the service adds to a model server: time to the first token, requests a second, CPU, memory, and whose it is.

Run: python -m benchmarks.serving [--quick]   (make bench-serving; needs the weights, Linux, and a quiet machine)

Everything is on loopback: a mock of a model server (below), the service, and beside it in the same rounds a bare
passthrough of 30 lines (passthrough.py), the least that a gateway in Python can be. Added times are those through a
gateway minus those of the mock asked directly in the same round. Writes benchmarks/serving.md.
"""

import argparse
import asyncio
import base64
import contextlib
import gc
import io
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from PIL import Image, ImageFilter
from pydantic import SecretStr
from pydantic_core import to_json

from serving.models.lean import LeanChat
from serving.models.wire import Wire

ROOT = Path(__file__).resolve().parent.parent
TOKENS = tuple(f"word{number} " for number in range(32))
TEXT = "".join(TOKENS).strip()
NOTE = "Pumpkin spice latte beside autumn leaves on a wooden table"
PACED, FAST = 1_000, 999
"""Values of `max_tokens` by which the mock is told its pace: 50 ms to the first token and 5 ms between, or none."""


# The mock


def event(told: dict[str, Any]) -> bytes:
    data = b"data: %b\n\n" % json.dumps(told).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def mock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = next((line[16:] for line in head.split("\r\n") if line.startswith("content-length: ")), "0")
            body = json.loads(await reader.readexactly(int(size)) or b"{}")
            asked = body.get("max_tokens") or body.get("max_completion_tokens")
            first, gap = (0.05, 0.005) if asked == PACED else (0.0, 0.0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            await asyncio.sleep(first)
            for number, token in enumerate(TOKENS):
                if number:
                    await asyncio.sleep(gap)
                finish = "stop" if number == len(TOKENS) - 1 else None
                choice = {"index": 0, "delta": {"content": token}, "logprobs": None, "finish_reason": finish}
                writer.write(
                    event({"id": "1", "object": "chat.completion.chunk", "model": "mock", "choices": [choice]})
                )
                await writer.drain()
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    writer.close()


async def serve_mock(port: int) -> None:
    async with await asyncio.start_server(mock, "127.0.0.1", port) as server:
        await server.serve_forever()


# The client


def photo(number: int) -> str:
    """A decodable JPEG of about 100 kB, unlike all others in its comment."""
    global _photo  # noqa: PLW0603 - made once
    if not _photo:
        noise = Image.frombytes("RGB", (640, 640), random.Random(7).randbytes(640 * 640 * 3))  # noqa: S311 - a picture
        out = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(1.2)).save(out, "JPEG", quality=80)
        _photo = out.getvalue()
    comment = b"%012d" % number
    return base64.b64encode(_photo[:2] + b"\xff\xfe\x00\x0e" + comment + _photo[2:]).decode()


_photo = b""


def request(model: str, number: int, pace: int) -> bytes:
    url = f"data:image/jpeg;base64,{photo(number)}"
    parts = [{"type": "text", "text": f"{NOTE} {number}"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "stream": True, "max_tokens": pace}
    return json.dumps(body).encode()


class Client:
    """One connection, kept. ``ask`` returns when each token came, in seconds since the request was sent."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> list[float]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        began = time.perf_counter()
        head = f"POST {self._path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in status[:16]:
            raise RuntimeError(f"{status[:60]!r} {(await reader.read(500))!r}")
        times, text = [], ""
        while size := int(await reader.readline(), 16):
            data = await reader.readexactly(size + 2)
            for line in data.split(b"\n"):
                if not line.startswith(b"data: {"):
                    continue
                told = json.loads(line[6:])
                if "error" in told:
                    raise RuntimeError(told["error"])
                if piece := told["choices"][0]["delta"].get("content"):
                    times.append(time.perf_counter() - began)
                    text += piece
        await reader.readline()
        if text.strip() != TEXT:
            raise RuntimeError(f"a token was lost, changed or moved: {text!r}")
        return times


async def many(
    count: int, clients: int, ask: Callable[[Client, int], Awaitable[None]], make: Callable[[], Client]
) -> float:
    """Seconds for ``count`` requests by ``clients`` clients that each wait for their answer."""
    numbers = iter(range(count))

    async def one() -> None:
        client = make()
        for number in numbers:
            await ask(client, number)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - began


# The servers


class Server:
    def __init__(self, command: list[str], port: int, **env: str) -> None:
        self.port = port
        self.process = subprocess.Popen(command, env=os.environ | env, cwd=ROOT, stderr=subprocess.DEVNULL)  # noqa: S603 - ours

    def wait(self, path: str) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}").close()
                return
            time.sleep(0.2)
        raise SystemExit("a server did not come up")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextlib.contextmanager
def servers(data: Path) -> Iterator[tuple[Server, Server, Server]]:
    """(mock, passthrough, ours)"""
    python, ports = sys.executable, [free_port() for _ in range(3)]
    upstream = f"http://127.0.0.1:{ports[0]}/v1"
    started: list[Server] = []
    try:
        started.append(Server([python, "-m", "benchmarks.serving", "--mock", str(ports[0])], ports[0]))
        bare = [python, "-m", "uvicorn", "benchmarks.passthrough:app", "--port", str(ports[1])]
        started.append(Server([*bare, "--no-access-log", "--log-level", "warning"], ports[1], UPSTREAM=upstream))
        started.append(
            Server(
                [python, "-m", "trendrag", "serve", "--port", str(ports[2])],
                ports[2],
                TRENDRAG_DATA_DIR=str(data),
                TRENDRAG_MODEL__PROVIDER="openai",
                TRENDRAG_MODEL__BASE_URL=upstream,
                TRENDRAG_MODEL__NAME="mock",
                TRENDRAG_MODEL__MAX_TOKENS="2000",
                TRENDRAG_SERVER__MAX_CONCURRENT="300",
            )
        )
        started[1].wait("/healthz")
        started[2].wait("/healthz")
        yield started[0], started[1], started[2]
    finally:
        for server in started:
            server.process.send_signal(signal.SIGTERM)
        for server in started:
            server.process.wait(20)


# What is measured


async def rounds(targets: dict[str, tuple[Server, str]], count: int, per_round: int) -> dict[str, dict[str, float]]:
    """For each target the medians over rounds: added TTFT at one client, requests a second and CPU at 16."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in targets}
    for turn in range(count):
        base: list[float] = []
        for name, (server, model) in targets.items():
            make = client_of(server)
            client = make()
            ttft = [(await client.ask(request(model, turn * 10_000 + i, PACED)))[0] * 1e3 for i in range(per_round)]
            base = base or ttft
            note = found[name]
            note.setdefault("p50", []).append(statistics.median(ttft) - statistics.median(base))
            note.setdefault("p99", []).append(quantile(ttft, 0.99) - quantile(base, 0.99))
            cpu = server.cpu_s()

            async def ask(client: Client, number: int, model: str = model) -> None:
                await client.ask(request(model, 5_000 + number, FAST))

            seconds = await many(per_round * 8, 16, ask, make)
            note.setdefault("rps", []).append(per_round * 8 / seconds)
            note.setdefault("cpu", []).append((server.cpu_s() - cpu) / (per_round * 8) * 1e3)
    return {name: {what: statistics.median(values) for what, values in note.items()} for name, note in found.items()}


def client_of(server: Server) -> Callable[[], Client]:
    return lambda: Client(server.port, "/v1/chat/completions")


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, round(q * (len(values) - 1)))]


async def gaps(ours: Server, loaded: bool, streams: int) -> float:
    """p99 of the time between two tokens of a paced stream, ms; with 8 clients' photos being captioned, or alone."""
    over = False

    async def load(number: int) -> None:
        client = client_of(ours)()
        while not over:
            number += 100
            await client.ask(request("trendrag", number, FAST))

    loads = [asyncio.create_task(load(number)) for number in range(8 if loaded else 0)]
    client, between = client_of(ours)(), []
    for number in range(streams):
        times = await client.ask(request("trendrag-plain", number, PACED))
        between += [(after - before) * 1e3 for before, after in itertools.pairwise(times)]
    over = True
    await asyncio.gather(*loads)
    return quantile(between, 0.99)


async def model_cpu(port: int, repeats: int) -> dict[str, float]:
    """CPU of this process for one streamed reply of 32 tokens with a photo, ms: the least of several batches, so that
    what others do to the machine counts least. The parts contain one another from top to bottom."""
    url = f"http://127.0.0.1:{port}/v1"
    async with httpx2.AsyncClient() as http:
        lean = LeanChat(model="mock", base_url=url, http_async_client=http, max_tokens=FAST)
        whole = ChatOpenAI(
            model="mock", base_url=url, api_key=SecretStr("none"), http_async_client=http, timeout=60,
            use_responses_api=False, max_completion_tokens=FAST, stream_usage=True,
        )  # fmt: skip
        block = {"type": "image", "base64": photo(1), "mime_type": "image/jpeg"}
        messages = [HumanMessage([block, {"type": "text", "text": NOTE}])]
        body = to_json(json.loads(request("mock", 1, FAST)))

        async def events() -> None:
            async with aclosing(Wire(http, url, SecretStr("none")).events(body)) as stream:
                async for _ in stream:
                    pass

        async def events_and_chunks() -> None:
            stream = lean._astream(list(messages))  # noqa: SLF001 - what is measured is what astream adds to it
            async for _ in stream:
                pass

        def asked(model: BaseChatModel) -> Callable[[], Awaitable[None]]:
            async def ask() -> None:
                async for _ in model.astream(list(messages)):
                    pass

            return ask

        parts = {
            "HTTP and events (`wire.py`)": events,
            "… with LangChain's chunks (`LeanChat._astream`)": events_and_chunks,
            "… with LangChain's `astream` around it (`LeanChat.astream`)": asked(lean),
            "`ChatOpenAI.astream`": asked(whole),
        }
        least = dict.fromkeys(parts, float("inf"))
        for _ in range(8):
            for name, part in parts.items():
                await part()
                gc.collect()
                began = time.process_time()
                for _ in range(repeats):
                    await part()
                least[name] = min(least[name], (time.process_time() - began) / repeats * 1e3)
    return least


async def measure(mocked: Server, bare: Server, ours: Server, quick: bool) -> list[str]:
    scale = 5 if quick else 1
    out = ["## Whose CPU it is", "", "One streamed reply of 32 tokens, one photo of 100 kB; processor time, ms.", ""]
    out += ["| | ms |", "|---|---|"]
    out += [f"| {name} | {ms:.2f} |" for name, ms in (await model_cpu(mocked.port, 30 // scale)).items()]
    targets = {
        "the mock, directly": (mocked, "mock"),
        "bare passthrough": (bare, "mock"),
        "trends off": (ours, "trendrag-plain"),
        "captions with trends": (ours, "trendrag"),
    }
    for server, model in targets.values():  # everything loaded, every connection made
        await client_of(server)().ask(request(model, 0, FAST))
    table = await rounds(targets, 7 if not quick else 1, 50 // scale)
    out += [
        "",
        "## What it adds",
        "",
        "Medians over rounds that take turns. TTFT: ms added at one client. At most: 16 clients.",
    ]
    out += ["", "| | added TTFT p50 | p99 | requests/s at most | CPU ms a request |", "|---|---|---|---|---|"]
    for name, row in table.items():
        out.append(f"| {name} | {row['p50']:.2f} | {row['p99']:.2f} | {row['rps']:.0f} | {row['cpu']:.2f} |")

    together = 200 // scale

    async def ask(client: Client, number: int) -> None:
        # Not captions: so many photos at once are more than the pool lets wait.
        await client.ask(request("trendrag-plain", number, PACED))

    await many(together, together, ask, client_of(ours))
    out += [
        "",
        "## Under load",
        "",
        f"- {together} streams at once, trends off: no token lost, changed or moved.",
    ]
    alone, loaded = await gaps(ours, False, 20 // scale), await gaps(ours, True, 20 // scale)
    out.append(
        f"- p99 gap between tokens sent every 5 ms: {alone:.1f} ms alone, {loaded:.1f} ms beside 8 clients' photos."
    )

    async def fast(client: Client, number: int) -> None:
        await client.ask(request("trendrag-plain" if number % 10 else "trendrag", number, FAST))

    count = 20_000 // scale**2
    await many(count // 10, 16, fast, client_of(ours))
    after_tenth = ours.rss_mb()
    await many(count, 16, fast, client_of(ours))
    out.append(
        f"- memory after {count // 10:,} requests: {after_tenth:.0f} MB; after {count:,} more: {ours.rss_mb():.0f} MB."
    )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of it and less: does it run, no figures")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "serving.md")
    parser.add_argument("--mock", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mock:
        asyncio.run(serve_mock(args.mock))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "models").symlink_to(ROOT / "var" / "models")
        subprocess.run(
            [sys.executable, "-m", "trendrag", "refresh", "--sample", "--quiet"],
            env=os.environ | {"TRENDRAG_DATA_DIR": str(data)},
            cwd=ROOT,
            check=True,
        )
        with servers(data) as (mocked, bare, ours):
            lines = asyncio.run(measure(mocked, bare, ours, args.quick))
    head = [
        "# What serving costs",
        "",
        "Written by `make bench-serving`; what each figure is, says `benchmarks/serving.py`.",
        "",
    ]
    args.out.write_text("\n".join(head + lines) + "\n")
    sys.stdout.write(args.out.read_text())


if __name__ == "__main__":
    main()
