"""The caption service: where describer, retriever, judge, writer and chain are put together from the settings."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import cast

from langchain_core.runnables import Runnable

from indexes.embedder import Embedder, open_embedder
from indexes.following import following
from indexes.manifest import current_id
from indexes.retriever import TrendRetriever
from indexes.shelf import Shelf
from trendrag.chain import build_caption_chain
from trendrag.ports import Describer, Judge, Writer
from trendrag.settings import Settings
from trendrag.types import CaptionEvent, CaptionRequest, SnapshotInfo

FIRST_LOOK_S = 20.0
"""How long a start without any snapshot waits for the first one from the shelf."""

Check = Callable[[], Awaitable[None]]
"""Raises ModelError where the model can't be reached."""


class CaptionService:
    """What the command line and HTTP share. Made by ``open_service``."""

    def __init__(
        self,
        chain: Runnable[CaptionRequest, CaptionEvent],
        writer: Writer,
        retriever: TrendRetriever,
        check_model: Check,
    ) -> None:
        self._chain = chain
        self._retriever = retriever
        self._check_model = check_model
        self.model_name = writer.name
        self.draft = writer.draft

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """The events of one request, ending with `Done` or `Failed`. Closing the stream stops the model."""
        # Runnable promises an iterator; RunnableGenerator gives a generator, which alone can be closed.
        events = cast("AsyncGenerator[CaptionEvent, None]", self._chain.astream(request))
        async with aclosing(events):
            async for event in events:
                yield event

    async def check_model(self) -> None:
        """Returns where the model can be reached.

        Raises:
            ModelError: it can't; the message says what to do.
        """
        await self._check_model()

    def snapshot(self) -> SnapshotInfo | None:
        """The trends in use, None where there are none."""
        return self._retriever.snapshot


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[CaptionService]:
    """A service for as long as the context is open. The embedded engine loads on its first caption.

    Raises:
        ConfigurationError, WeightsError: before anything is served; the message says what to do.
    """
    embedder = open_embedder(settings.models_dir)
    retriever = TrendRetriever(
        settings.snapshots_dir,
        embedder,
        k=settings.retrieval.k,
        threshold=settings.retrieval.threshold,
        max_age=timedelta(hours=settings.ingest.max_age_hours),
        concepts_dir=settings.models_dir,
    )
    async with _following(settings, embedder), _open_model(settings) as (describer, judge, writer, check_model):
        await retriever.follow()
        try:
            chain = build_caption_chain(describer, retriever, writer, judge)
            yield CaptionService(chain, writer, retriever, check_model)
        finally:
            await retriever.aclose()


@asynccontextmanager
async def _following(settings: Settings, embedder: Embedder) -> AsyncIterator[None]:
    """Keeps the snapshots here like those on the shelf, where one is configured. Waits for the first look where there
    is nothing to answer from meanwhile."""
    shelf = Shelf.of(settings)
    if shelf is None:
        yield
        return
    folder, keep = settings.snapshots_dir, settings.ingest.keep_snapshots
    with following(shelf, folder, embedder, keep=keep, every=settings.snapshots.poll_s) as looked:
        if current_id(folder) is None:
            await asyncio.to_thread(looked.wait, FIRST_LOOK_S)
        yield


@asynccontextmanager
async def _open_model(settings: Settings) -> AsyncIterator[tuple[Describer, Judge | None, Writer, Check]]:
    judging = settings.retrieval.judge == "model"
    # Imported where they are used: each brings libraries that the other provider need not wait for.
    if settings.model.provider == "embedded":
        from serving.models.embedded import NoJudge, open_embedded  # noqa: PLC0415

        async with open_embedded(settings) as (describer, writer):
            yield describer, NoJudge() if judging else None, writer, _always_there
        return
    from serving.models.chat import ChatDescriber, ChatWriter, check_model  # noqa: PLC0415
    from serving.models.judge import ChatJudge  # noqa: PLC0415
    from serving.models.openai import chat_model_name, close_chat_model, open_chat_model  # noqa: PLC0415

    model = open_chat_model(settings.model)
    name = chat_model_name(model)
    try:
        yield (
            ChatDescriber(model, name, settings.model),
            ChatJudge(model, settings.model, settings.retrieval.judge_timeout_s) if judging else None,
            ChatWriter(model, name, settings.model),
            lambda: check_model(model),
        )
    finally:
        await close_chat_model(model)


async def _always_there() -> None:
    """The embedded engine lives in this process."""
