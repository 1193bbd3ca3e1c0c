"""A small OpenAI-compatible server on loopback that gives one answer, streamed or whole, or fails in one chosen way.

A real server and real sockets, so that what is tested includes the HTTP client's part.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal[
    "none",
    "status",  # answers with ``status``
    "not_json",  # a 502 page in HTML, as a proxy gives
    "redirect",
    "hang",  # takes the request and is silent
    "slow_headers",  # sends its headers a byte at a time, without end
    "only_comments",  # keeps the stream alive and sends no more tokens
    "endless",  # sends tokens until the client goes away
    "malformed",
    "error_event",
    "drop",  # closes the connection in mid-stream
    "end_early",  # ends the stream properly, but before the model has finished
    "aborted",  # finish_reason "abort"
    "filtered",  # finish_reason "content_filter"
    "late_drop",  # closes the connection after the finish_reason
    "empty",  # 200 and an empty stream
]
WORDS = ("Morning ", "light, ", "slow ", "coffee.")
USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 5,
    "total_tokens": 125,
    "prompt_tokens_details": {"cached_tokens": 96},
}


@dataclass
class FaultyServer:
    """``logprob`` is given to every token. ``next_word`` holds each word after the first back, where it is not None."""

    fault: Fault = "none"
    status: int = 500
    message: str = "the engine is busy"
    logprob: float | None = -0.25
    words: tuple[str, ...] = WORDS
    models: tuple[str, ...] = ("tiny",)
    next_word: asyncio.Event | None = None
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.headers.append(headers)
                if first.startswith("GET") and self.fault == "status":
                    self._send_json(writer, self.status, {"error": {"message": self.message, "code": self.status}})
                elif first.startswith("GET"):
                    self._send_json(writer, 200, {"data": [{"id": name} for name in self.models]})
                else:
                    self.requests.append(json.loads(body))
                    self.asked.set()
                    await self._chat(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.client_left.set()
        finally:
            writer.close()

    async def _chat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self.fault:
            case "status":
                self._send_json(writer, self.status, {"error": {"message": self.message, "code": self.status}})
                return
            case "not_json":
                self._send(writer, 502, "text/html", b"<html><script>alert(1)</script>Bad gateway</html>")
                return
            case "redirect":
                writer.write(b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:9/v1\r\ncontent-length: 0\r\n\r\n")
                return
            case "hang":
                await self._until_client_leaves(reader)
            case "slow_headers":
                writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
                await self._repeat(reader, writer, b"z")
            case _ if self.requests[-1].get("stream"):
                await self._stream(reader, writer)
            case _:
                self._send_json(writer, 200, whole("".join(self.words)))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if self.fault != "empty":
            writer.write(event(delta({"role": "assistant", "content": ""})))
            for number, word in enumerate(self.words):
                if number and self.next_word:
                    await self.next_word.wait()
                writer.write(event(delta({"content": word}, logprob=self.logprob)))
                await writer.drain()
                if number == 1 and await self._failed_in_mid_stream(reader, writer):
                    return
            reason = {"aborted": "abort", "filtered": "content_filter"}.get(self.fault, "stop")
            # As vLLM does it, the token that ends the text is counted and has no text.
            writer.write(event(delta({"content": ""}, reason=reason, logprob=self.logprob)))
            if self.fault == "late_drop":
                raise ConnectionError
            writer.write(event(json.dumps({"id": "1", "choices": [], "usage": USAGE})))
        writer.write(event("[DONE]") + b"0\r\n\r\n")

    async def _failed_in_mid_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        match self.fault:
            case "only_comments":
                await self._repeat(reader, writer, chunk(b": still here\n\n"))
            case "endless":
                await self._repeat(reader, writer, event(delta({"content": "and "})))
            case "malformed":
                writer.write(event('{"id": "1", "choices": [{"delta": {"content": "bro'))
            case "error_event":
                writer.write(event(json.dumps({"error": {"message": self.message, "code": 500}})))
            case "drop":
                raise ConnectionError
            case "end_early":
                writer.write(event("[DONE]") + b"0\r\n\r\n")
            case _:
                return False
        return True

    async def _repeat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> None:
        """Sends a piece every few milliseconds until the client closes the connection."""
        leaves = asyncio.ensure_future(self._until_client_leaves(reader))
        while not leaves.done():
            writer.write(piece)
            await asyncio.wait([leaves], timeout=0.01)
        await leaves

    async def _until_client_leaves(self, reader: asyncio.StreamReader) -> None:
        await reader.read()
        raise ConnectionError

    def _send_json(self, writer: asyncio.StreamWriter, status: int, body: object) -> None:
        self._send(writer, status, "application/json", json.dumps(body).encode())

    def _send(self, writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nretry-after: 30\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


def whole(text: str) -> dict[str, object]:
    """An answer that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": USAGE}


def delta(message: dict[str, str], *, reason: str | None = None, logprob: float | None = None) -> str:
    choice: dict[str, object] = {"index": 0, "delta": message, "finish_reason": reason}
    if logprob is not None:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": logprob, "bytes": None, "top_logprobs": []}]}
    return json.dumps({"id": "1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]})


def event(data: str) -> bytes:
    return chunk(f"data: {data}\n\n".encode())


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@contextlib.asynccontextmanager
async def serving(server: FaultyServer) -> AsyncIterator[FaultyServer]:
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener:
        yield server
