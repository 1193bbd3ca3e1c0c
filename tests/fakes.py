"""Small typed stand-ins for the ports, for tests of what lies around them. The real parts have suites of their own."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from indexes.embedder import Vectors
from trendrag.errors import TrendragError
from trendrag.ports import Chunk, Description, Judgement
from trendrag.types import (
    CaptionRequest,
    Evidence,
    PreparedImage,
    Retrieval,
    RetrievedTrend,
    SnapshotInfo,
    Trend,
    TrendFilters,
    Usage,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
IMAGE = PreparedImage(data=b"\xff\xd8", mime_type="image/jpeg", width=56, height=56, sha256="ab" * 32)
SNAPSHOT = SnapshotInfo(id="20261120T120000Z-00000000", created_at=NOW, recorded_at=NOW, origin="sample", count=1)


def make_trend(phrase: str, **changes: object) -> Trend:
    fields: dict[str, object] = {
        "id": hashlib.sha256(phrase.encode()).hexdigest()[:12],
        "phrase": phrase,
        "score": 0.5,
        "first_seen": NOW,
        "last_seen": NOW,
        "evidence": (Evidence(source="test", title=f"All about {phrase}", url="https://news.example/1"),),
    }
    return Trend.model_validate(fields | changes)


def found(*phrases: str) -> Retrieval:
    hits = tuple(RetrievedTrend(trend=make_trend(phrase), similarity=0.6, score=0.5) for phrase in phrases)
    return Retrieval(trends=hits, snapshot=SNAPSHOT, reason=None if hits else "No trend fits this photo.")


@dataclass
class FakeDescriber:
    text: str = "a cup of coffee"
    always: bool = False
    cached: bool = False
    calls: int = 0

    async def describe(self, image: PreparedImage) -> Description:
        self.calls += 1
        return Description(self.text, Usage(prompt_tokens=10, completion_tokens=2), self.cached)


@dataclass
class FakeRetriever:
    answer: Retrieval = field(default_factory=Retrieval)
    queries: list[str] = field(default_factory=list)

    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        self.queries.append(query)
        return self.answer


@dataclass
class FakeJudge:
    """Chooses the places ``chosen``; raises ``error``, or hangs, if told to. ``shown`` is what it was asked about."""

    chosen: frozenset[int] = frozenset()
    error: TrendragError | None = None
    hangs: bool = False
    shown: list[tuple[str, ...]] = field(default_factory=list)
    looking: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        self.shown.append(tuple(hit.trend.phrase for hit in trends))
        self.looking.set()
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.error:
                raise self.error
        finally:
            self.stopped = True
        return Judgement(self.chosen, Usage(prompt_tokens=50, cached_tokens=40, completion_tokens=5))


@dataclass
class FakeWriter:
    """Writes ``chunks`` for every candidate; then fails with ``error``, or hangs, if told to."""

    chunks: Sequence[str] = ("A ", "caption.")
    error: TrendragError | Exception | None = None
    hangs: bool = False
    name: str = "fake"
    draft: bool = False
    open_streams: int = 0
    offered: list[tuple[str, ...]] = field(default_factory=list)

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        self.offered.append(tuple(hit.trend.phrase for hit in trends))
        self.open_streams += 1
        try:
            for text in self.chunks:
                await asyncio.sleep(0)
                yield Chunk(text, logprob=-0.5, tokens=1)
            if self.error:
                raise self.error
            if self.hangs:
                await asyncio.Event().wait()
            yield Chunk("", usage=Usage(prompt_tokens=100, cached_tokens=64, completion_tokens=len(self.chunks)))
        finally:
            self.open_streams -= 1


class HashEmbedder:
    """Bag-of-words vectors by hashing: texts that share words are near. Deterministic and without weights."""

    name = "hash"
    sha256 = "0" * 64
    dim = 1024

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self.dim] += 1
            vectors[row] /= max(float(np.linalg.norm(vectors[row])), 1e-12)
        return vectors
