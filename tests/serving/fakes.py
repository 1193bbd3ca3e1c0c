"""A caption service without models: the real chain over the small fakes of ``tests.fakes``."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from indexes.listing import Listing
from indexes.retriever import TrendRetriever
from serving.models.resilience import Upstream
from serving.ports import Gateway
from tests.fakes import SNAPSHOT, FakeDescriber, FakeRetriever, FakeWriter, found
from trendrag.chain import build_caption_chain
from trendrag.errors import NoSnapshot, TrendragError
from trendrag.ports import Chunk, Describer, Description, Judge
from trendrag.settings import Settings
from trendrag.types import CaptionEvent, CaptionRequest, PreparedImage, RetrievedTrend, SnapshotInfo


@dataclass
class FakeService:
    writer: FakeWriter = field(default_factory=lambda: FakeWriter(chunks=("My pumpkin ", "spice ", "latte.")))
    describer: Describer = field(default_factory=FakeDescriber)
    retriever: FakeRetriever = field(default_factory=lambda: FakeRetriever(found("pumpkin spice")))
    judge: Judge | None = None
    snapshot_now: SnapshotInfo | None = SNAPSHOT
    trends: TrendRetriever | None = None
    model_error: TrendragError | None = None
    fallback: str | None = None
    upstream: Upstream | None = None
    gateway: Gateway | None = None
    requests: list[CaptionRequest] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, _: Settings) -> AsyncIterator["FakeService"]:
        yield self

    def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        self.requests.append(request)
        chain = build_caption_chain(self.describer, self.retriever, self.writer, self.judge)
        # `astream` is an async generator, typed as the iterator that it also is.
        return cast("AsyncGenerator[CaptionEvent, None]", chain.astream(request))

    @property
    def model_name(self) -> str:
        return self.writer.name

    @property
    def draft(self) -> bool:
        return self.writer.draft

    def snapshot(self) -> SnapshotInfo | None:
        return self.snapshot_now

    async def listing(self) -> Listing:
        if self.trends is None:
            raise NoSnapshot("There are no trends yet.")
        return await self.trends.listing()

    async def check_model(self) -> None:
        if self.model_error:
            raise self.model_error


@dataclass
class BrokenService(FakeService):
    """Breaks the chain's promises: sends ``events`` and then raises ``error``, or just stops."""

    events: Sequence[CaptionEvent] = ()
    error: Exception | None = None

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        for event in self.events:
            yield event
        if self.error:
            raise self.error


@dataclass
class FailingDescriber:
    """A model that can't be asked for the first thing."""

    error: TrendragError
    always: bool = True

    async def describe(self, image: PreparedImage) -> Description:
        raise self.error


@dataclass
class GatedWriter(FakeWriter):
    """Says when it has begun, waits at a gate that nobody opens, and says when it was closed.

    The gate is kept here: a task that waits for something that nobody else holds is garbage, and would be closed by
    the collector without anybody's doing."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        try:
            async with aclosing(super().write(request, description, trends, candidate)) as chunks:
                async for chunk in chunks:
                    if chunk.usage:  # the last one
                        await self.gate.wait()
                    self.begun.set()
                    yield chunk
        finally:
            self.closed.set()
