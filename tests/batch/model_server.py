"""A model server and an image host on loopback, whose answers say which image was sent: the caption of a picture is
always the same, so that what a run wrote can be held against what it should have."""

import asyncio
import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

MODEL = "tiny"
_DATA = re.compile(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")


@lru_cache(maxsize=4096)
def picture(number: int) -> bytes:
    """A JPEG unlike all others."""
    out = io.BytesIO()
    # In the picture itself, as black and white squares: a comment would be taken out, and near colours become one.
    squares = Image.frombytes("L", (4, 4), bytes(255 * (number >> bit & 1) for bit in range(16)))
    squares.resize((56, 56), Image.Resampling.NEAREST).convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


def caption_of(sent: bytes) -> str:
    return f"A picture that is {hashlib.sha256(sent).hexdigest()[:12]}."


@dataclass
class ModelServer:
    """``status`` says what an image (by its hash) is answered with, 0 where the connection breaks off; ``fetches`` the
    statuses of a photo's next downloads. A caption takes ``delay_s``; ``places`` are worked on at once and the others
    wait, as in vLLM's queue, of which /metrics tells. ``calls`` counts captions by the image's hash. While ``away``
    every connection ends without a word."""

    delay_s: float = 0.0
    status: Callable[[str], int] = lambda _: 200
    calls: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)
    fetches: dict[str, list[int]] = field(default_factory=dict)
    places: int = 10_000
    metrics: bool = True
    away: bool = False
    inside: int = 0
    most_inside: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keep_bodies: bool = False
    turned: int = 0
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.places)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def asked(self, calls: int) -> None:
        """Returns once so many captions have been asked for."""
        await self._until(lambda: self.calls.total() >= calls)

    async def turned_away(self, requests: int) -> None:
        """Returns once so many requests met nobody."""
        await self._until(lambda: self.turned >= requests)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.happened.clear()
            await self.happened.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                size = re.search(r"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(size[1])) if size else b""
                if self.away:
                    self.turned += 1
                    self.happened.set()
                    return
                method, path, _ = head.split(" ", 2)
                await (self._chat(body, writer) if method == "POST" else self._get(path, writer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _get(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models":
            _send(writer, 200, json.dumps({"data": [{"id": MODEL}]}).encode())
        elif path == "/metrics" and self.metrics:
            running, waiting = min(self.inside, self.places), max(0, self.inside - self.places)
            numbers = {"running": running, "waiting": waiting}
            told = "".join(f'vllm:num_requests_{name}{{engine="0"}} {value}.0\n' for name, value in numbers.items())
            _send(writer, 200, told.encode(), "text/plain")
        elif found := re.fullmatch(r"/photo/(\d+)\.jpg", path):
            self.fetched[path] += 1
            planned = self.fetches.get(path, [])
            status = planned.pop(0) if planned else 200
            _send(writer, status, picture(int(found[1])) if status == 200 else b"", "image/jpeg")
        else:
            _send(writer, 404, b"{}")

    async def _chat(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        told = json.loads(body)
        if self.keep_bodies:
            self.bodies.append(told)
        found = _DATA.search(body.decode())
        sent = base64.b64decode(found[1]) if found else b""
        name = hashlib.sha256(sent).hexdigest()[:12]
        self.calls[name] += 1
        self.happened.set()
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            async with self.slots:
                await asyncio.sleep(self.delay_s)
        finally:
            self.inside -= 1
        status = self.status(name)
        if not status:
            raise ConnectionError
        if status != 200:
            _send(writer, status, json.dumps({"error": {"message": "no", "code": status}}).encode())
            return
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        if told.get("stream"):
            delta = {"choices": [{"index": 0, "delta": {"content": caption_of(sent)}, "finish_reason": "stop"}]}
            events = [json.dumps(delta), json.dumps({"choices": [], "usage": usage}), "[DONE]"]
            text = "".join(f"data: {event}\n\n" for event in events).encode()
            _send(writer, 200, text, "text/event-stream")
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": caption_of(sent)}, "finish_reason": "stop"}
        _send(writer, 200, json.dumps({"id": "1", "model": MODEL, "choices": [choice], "usage": usage}).encode())


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json") -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    head += "retry-after: 0\r\n\r\n" if status == 429 else "\r\n"
    writer.write(head.encode() + body)


@asynccontextmanager
async def serving(server: ModelServer | None = None) -> AsyncIterator[ModelServer]:
    server = server or ModelServer()
    listener = await asyncio.start_server(server.answer, "127.0.0.1", server.port, backlog=512)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
