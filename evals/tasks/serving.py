"""How fast a running endpoint answers, and how often not: a load generator. No model and no Inspect AI is needed.

Closed loop: C clients, each of which asks again as soon as it is answered; it shows what the server can do, and hides
what waiting costs, because a slow server is asked less. Open loop: requests arrive at a rate, whatever the server does
(exponential gaps, a Poisson process), and their times count from when they should have been sent: so a stall counts
for all who would have met it (Tene, "How NOT to Measure Latency", 2013, names the mistake "coordinated omission").

Every request has a photo of its own, a case's with a few pixels changed: else caches of images would be measured.
"""

import asyncio
import base64
import io
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
from PIL import Image

from evals.prompts import prompt
from evals.record import Item, Measure, Tokens
from evals.statistics import FIRST_TOKEN, LATENCY, LATENCY_P95
from evals.tasks.photos import Photos
from serving.images import prepare_image
from trendrag.endpoint import through_proxy
from trendrag.settings import ImageSettings
from trendrag.text import clean_line

MAX_REQUESTS = 5_000
"""Their photos are made before the first is sent, and kept: some 100 kB each."""
MAX_TOKENS = 64

MEASURES = (
    FIRST_TOKEN,
    Measure(name="first token p95", better="lower", unit="s", how="p95"),
    Measure(name="first token p99", better="lower", unit="s", how="p99"),
    LATENCY,
    LATENCY_P95,
    Measure(name="latency p99", better="lower", unit="s", how="p99"),
    Measure(name="tokens/s", unit="tokens/s", about="tokens of an answer a second, from its first piece to its end"),
    Measure(name="failed", better="lower", about="share of requests without a whole answer"),
)

Ask = Callable[[httpx2.AsyncClient, bytes], AsyncIterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Load:
    """``url`` is a TrendRAG server's ("http://127.0.0.1:8000"), or with ``api`` "openai" an OpenAI-compatible one's,
    with /v1. ``rate`` in requests a second for the open loop, None for the closed one of ``clients``."""

    url: str
    api: Literal["trendrag", "openai"]
    model: str | None
    key: str | None
    requests: int
    clients: int
    rate: float | None
    timeout_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Measured:
    items: tuple[Item, ...]
    figures: Mapping[str, float]


async def measure(load: Load, photos: Photos, images: ImageSettings) -> Measured:
    """Sends all requests; those that fail are items with their error.

    Raises:
        RequestError: a photo can't be used.
    """
    bodies = await asyncio.to_thread(_bodies, load, photos, images)
    headers = {"Authorization": f"Bearer {load.key}"} if load.key else {}
    unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    proxied = through_proxy(load.url)
    async with httpx2.AsyncClient(
        headers=headers, limits=unlimited, timeout=load.timeout_s, trust_env=proxied
    ) as client:
        began = time.perf_counter()
        send = _sender(load, client)
        items = await (_closed(load, bodies, send) if load.rate is None else _open(load, bodies, send))
        seconds = time.perf_counter() - began
    whole = [item for item in items if item.error is None]
    tokens = sum(item.tokens.completion for item in whole if item.tokens)
    return Measured(
        items=tuple(items),
        figures={
            "seconds": seconds,
            "requests/s": len(whole) / seconds,
            **({"tokens/s of all": tokens / seconds} if tokens else {}),
        },
    )


Send = Callable[[int, bytes, float], Awaitable[Item]]


async def _closed(load: Load, bodies: Sequence[bytes], send: Send) -> list[Item]:
    left = iter(enumerate(bodies))
    found: list[Item] = []

    async def client() -> None:
        for number, body in left:  # one iterator for all clients: each request is sent once
            found.append(await send(number, body, time.perf_counter()))

    async with asyncio.TaskGroup() as group:
        for _ in range(load.clients):
            group.create_task(client())
    return sorted(found, key=lambda item: item.id)


async def _open(load: Load, bodies: Sequence[bytes], send: Send) -> list[Item]:
    assert load.rate is not None  # noqa: S101  (the caller's choice of loop)
    gaps = random.Random(load.seed)  # noqa: S311 - arrivals, no secrets
    due = time.perf_counter()
    tasks: list[asyncio.Task[Item]] = []
    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(bodies):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(group.create_task(_sent(send, number, body, due)))
            due += gaps.expovariate(load.rate)
    return [task.result() for task in tasks]


async def _sent(send: Send, number: int, body: bytes, due: float) -> Item:
    return await send(number, body, due)


def _sender(load: Load, client: httpx2.AsyncClient) -> Send:
    path = "/api/v1/caption/stream" if load.api == "trendrag" else "/chat/completions"
    read = _trendrag if load.api == "trendrag" else _openai

    async def send(number: int, body: bytes, due: float) -> Item:
        id_ = f"{number:05d}"
        first: float | None = None
        parts: list[str] = []
        tokens: Tokens | None = None
        ended = False
        try:
            # The client's own limit is on silence; this one on the whole.
            async with (
                asyncio.timeout(load.timeout_s),
                client.stream(
                    "POST", load.url + path, content=body, headers={"Content-Type": "application/json"}
                ) as answer,
            ):
                if answer.status_code != httpx2.codes.OK:
                    told = (await answer.aread())[:300].decode("utf-8", "replace")
                    return _failed(id_, f"HTTP {answer.status_code}: {told}", due)
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    piece = read(line[5:].strip())
                    if piece.text and first is None:
                        first = time.perf_counter() - due
                    parts.append(piece.text)
                    tokens = piece.tokens or tokens
                    ended = ended or piece.ended
                    if piece.error:
                        return _failed(id_, piece.error, due)
        except TimeoutError:
            return _failed(id_, f"no whole answer within {load.timeout_s:g} s", due)
        except (httpx2.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            return _failed(id_, f"{type(error).__name__}: {error}", due)
        total = time.perf_counter() - due
        if first is None or not ended:
            return _failed(id_, "the answer broke off" if first else "the answer held no text", due)
        written = tokens.completion if tokens else 0
        pace = written / (total - first) if written > 1 and total > first else None
        return Item(
            id=id_,
            scores={
                "first token p95": first,
                "first token p99": first,
                "latency p99": total,
                "tokens/s": pace,
                "failed": 0.0,
            },
            output="".join(parts),
            latency_s=total,
            first_token_s=first,
            tokens=tokens,
        )

    return send


def _failed(id_: str, why: str, due: float) -> Item:
    return Item(id=id_, scores={"failed": 1.0}, error=clean_line(why, 300), latency_s=time.perf_counter() - due)


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str = ""
    ended: bool = False
    tokens: Tokens | None = None
    error: str = ""


def _trendrag(data: str) -> _Piece:
    event = json.loads(data)
    kind = event.get("type")
    if kind == "delta":
        return _Piece(text=event["text"])
    if kind == "failed":
        return _Piece(error=f"{event['code']}: {event['message']}")
    if kind == "done":
        usage = event["usage"]
        return _Piece(ended=True, tokens=_tokens(usage["prompt_tokens"], usage["completion_tokens"]))
    return _Piece()


def _openai(data: str) -> _Piece:
    if data == "[DONE]":  # it also comes after an answer that broke off: what ends one is a finish_reason
        return _Piece()
    event = json.loads(data)
    if error := event.get("error"):
        return _Piece(error=str(error.get("message", error) if isinstance(error, dict) else error))
    usage = event.get("usage") or {}
    tokens = _tokens(usage["prompt_tokens"], usage["completion_tokens"]) if usage.get("completion_tokens") else None
    choices = event.get("choices") or [{}]
    text = (choices[0].get("delta") or {}).get("content") or ""
    return _Piece(text=text, ended=bool(choices[0].get("finish_reason")), tokens=tokens)


def _tokens(prompt_tokens: int, completion_tokens: int) -> Tokens:
    return Tokens(prompt=prompt_tokens, completion=completion_tokens)


def _bodies(load: Load, photos: Photos, images: ImageSettings) -> list[bytes]:
    pictures = []
    for case in photos.cases:
        prepared = prepare_image(photos.paths[case.id].read_bytes(), images)
        with Image.open(io.BytesIO(prepared.data)) as picture:
            pictures.append((case.note, picture.convert("RGB")))
    return [_body(load, number, *pictures[number % len(pictures)]) for number in range(load.requests)]


def _body(load: Load, number: int, note: str | None, picture: Image.Image) -> bytes:
    own = picture.copy()
    # Blocks of 8 × 8 survive the JPEG's rounding; 16 of them are 16 bits, so that no two of the photos are the same.
    for bit in range(16):
        corner = (8 * bit, 0, 8 * bit + 8, 8)
        own.paste((255, 255, 255) if number >> bit & 1 else (0, 0, 0), corner)
    out = io.BytesIO()
    own.save(out, "JPEG", quality=90)
    encoded = base64.b64encode(out.getvalue()).decode("ascii")
    body: dict[str, Any]
    if load.api == "trendrag":
        body = {"image": encoded, "note": note}
    else:
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}},
            {"type": "text", "text": prompt("caption")},
        ]
        body = {
            "model": load.model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": MAX_TOKENS,
            "seed": load.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    return json.dumps(body).encode()
