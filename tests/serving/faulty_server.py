"""A small OpenAI-compatible server on loopback that gives one answer, streamed or whole, or fails in one chosen way.

A real server and real sockets, so that what is tested includes the HTTP client's part.
"""

import asyncio
import contextlib
import json
import socket
import struct
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
    "slow_start",  # names the speaker, and then keeps the stream alive without a token
    "slow_start_drop",  # names the speaker and closes the connection
    "held",  # holds the first word back too, until ``next_word``
    "reset",  # resets the connection (TCP RST) once the request has come
    "closed",  # closes it without a word
    "only_comments",  # keeps the stream alive and sends no more tokens
    "endless",  # sends tokens until the client goes away
    "malformed",
    "error_event",
    "drop",  # closes the connection in mid-stream
    "late_reset",  # resets it in mid-stream
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
    """``logprob`` is given to every token. ``next_word`` holds each word after the first back, where it is not None.
    ``times``: after so many requests with the fault it is cured; None: never. ``connections`` are those open now.
    ``events`` are sent, where given, in place of all that makes an answer. ``running_usage`` is what it makes of the
    option to tell the usage with every event: as vLLM it "told" it, others have it "ignored" or "refused"."""

    fault: Fault = "none"
    times: int | None = None
    status: int = 500
    retry_after: str | None = "30"
    message: str = "the engine is busy"
    logprob: float | None = -0.25
    words: tuple[str, ...] = WORDS
    events: tuple[str, ...] | None = None
    models: tuple[str, ...] = ("tiny",)
    running_usage: Literal["told", "ignored", "refused"] = "ignored"
    next_word: asyncio.Event | None = None
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
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
            self.connections -= 1
            self.closed.set()
            writer.close()

    async def _chat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match fault := self._fault_now():
            case "reset":
                reset(writer)
                raise ConnectionError
            case "closed":
                raise ConnectionError
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
            case _ if self.running_usage == "refused" and self._asked_for_running_usage():
                message = "Unknown parameter: 'stream_options.continuous_usage_stats'."
                self._send_json(writer, 400, {"error": {"message": message, "type": "invalid_request_error"}})
            case _ if self.requests[-1].get("stream"):
                await self._stream(reader, writer, fault)
            case _:
                self._send_json(writer, 200, whole("".join(self.words)))

    def _asked_for_running_usage(self) -> bool:
        return bool(self.requests[-1].get("stream_options", {}).get("continuous_usage_stats"))

    def _fault_now(self) -> Fault:
        if self.times is None:
            return self.fault
        self.times -= 1
        return self.fault if self.times >= 0 else "none"

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if self.events is not None:
            writer.writelines(event(data) for data in self.events)
        elif fault != "empty":
            tells = self.running_usage == "told" and self._asked_for_running_usage()
            writer.write(event(delta({"role": "assistant", "content": ""}, written=0 if tells else None)))
            if fault == "slow_start_drop":
                await writer.drain()
                raise ConnectionError
            if fault == "slow_start":
                await self._repeat(reader, writer, chunk(b": still here\n\n"))
            for number, word in enumerate(self.words):
                if self.next_word and (number or fault == "held"):
                    await self.next_word.wait()
                written = number + 1 if tells else None
                writer.write(event(delta({"content": word}, logprob=self.logprob, written=written)))
                await writer.drain()
                if number == 1 and await self._failed_in_mid_stream(reader, writer, fault):
                    return
            reason = {"aborted": "abort", "filtered": "content_filter"}.get(fault, "stop")
            # As vLLM does it, the token that ends the text is counted and has no text.
            writer.write(event(delta({"content": ""}, reason=reason, logprob=self.logprob)))
            if fault == "late_drop":
                raise ConnectionError
            writer.write(event(json.dumps({"id": "1", "choices": [], "usage": USAGE})))
        writer.write(event("[DONE]") + b"0\r\n\r\n")

    async def _failed_in_mid_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        match fault:
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
            case "late_reset":
                reset(writer)
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
        asked = f"retry-after: {self.retry_after}\r\n" if self.retry_after is not None else ""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{asked}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)


def reset(writer: asyncio.StreamWriter) -> None:
    """Makes the coming close a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def whole(text: str) -> dict[str, object]:
    """An answer that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": USAGE}


def delta(
    message: dict[str, str], *, reason: str | None = None, logprob: float | None = None, written: int | None = None
) -> str:
    choice: dict[str, object] = {"index": 0, "delta": message, "finish_reason": reason}
    if logprob is not None:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": logprob, "bytes": None, "top_logprobs": []}]}
    told: dict[str, object] = {"id": "1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]}
    if written is not None:  # sums so far, without the details of the last event's
        read = USAGE["prompt_tokens"]
        told["usage"] = {"prompt_tokens": read, "total_tokens": 120 + written, "completion_tokens": written}
    return json.dumps(told)


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
