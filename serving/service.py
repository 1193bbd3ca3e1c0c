"""The caption service: where describer, retriever, judge, writer and chain are put together from the settings."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

from langchain_core.runnables import Runnable
from opentelemetry.trace import Tracer

from indexes.embedder import Embedder, open_embedder
from indexes.following import following
from indexes.listing import Listing
from indexes.manifest import current_id
from indexes.retriever import TrendRetriever
from indexes.shelf import Shelf
from serving.cache import open_cache
from serving.describing import CachedDescriber, describer_identity
from serving.models.resilience import ResilientDescriber, ResilientJudge, ResilientWriter, Upstream
from serving.ports import Gateway
from serving.telemetry import Ports, traced
from trendrag.chain import build_caption_chain
from trendrag.errors import ModelUnavailable
from trendrag.platforms import Platforms, read_platforms
from trendrag.ports import Describer, Judge, Writer
from trendrag.settings import Settings
from trendrag.types import CaptionEvent, CaptionRequest, Failed, SnapshotInfo

FIRST_LOOK_S = 20.0
"""How long a start without any snapshot waits for the first one from the shelf."""

Check = Callable[[], Awaitable[None]]
"""Raises ModelError where the model can't be reached."""


class CaptionService:
    """What the command line and HTTP share. Made by ``open_service``.

    ``upstream`` is the model server, None where the embedded engine is the model; ``fallback`` the name of the model
    that writes drafts while that is away, None where nobody does.
    """

    def __init__(
        self,
        chain: Runnable[CaptionRequest, CaptionEvent],
        writer: Writer,
        retriever: TrendRetriever,
        check_model: Check,
        upstream: Upstream | None = None,
        fallback: str | None = None,
        gateway: Gateway | None = None,
    ) -> None:
        self._chain = chain
        self._retriever = retriever
        self._check_model = check_model
        self.gateway = gateway
        self.model_name = writer.name
        self.draft = writer.draft
        self.upstream = upstream
        self.fallback = fallback

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """The events of one request, ending with `Done` or `Failed`. Closing the stream stops the model.

        While the model server is left alone and nobody writes in its place, `Failed` comes at once.
        """
        try:
            if self.upstream is not None and self.fallback is None:
                self.upstream.refuse_while_open()
        except ModelUnavailable as error:
            yield Failed(code=error.code, message=str(error), retry_after=error.retry_after)
            return
        # Runnable promises an iterator; RunnableGenerator gives a generator, which alone can be closed.
        events = cast("AsyncGenerator[CaptionEvent, None]", self._chain.astream(request))
        async with aclosing(events):
            async for event in events:
                yield event

    async def check_model(self) -> None:
        """Returns where the model can be reached.

        Raises:
            ModelError: it can't, or has failed so often that it is left alone now; the message says what to do.
        """
        if self.upstream is not None:
            self.upstream.refuse_while_open()
        await self._check_model()

    def snapshot(self) -> SnapshotInfo | None:
        """The trends in use, None where there are none."""
        return self._retriever.snapshot

    async def listing(self) -> Listing:
        """The trends in use, for looking through.

        Raises:
            NoSnapshot: there are none.
        """
        return await self._retriever.listing()


@asynccontextmanager
async def open_service(
    settings: Settings, tracer: Tracer | None = None, *, pinned: Path | None = None
) -> AsyncIterator[CaptionService]:
    """A service for as long as the context is open. The embedded engine loads on its first caption. Its steps are told
    to ``tracer``, where there is one. With ``pinned``, a snapshot's directory, it uses the trends of that one alone.

    Raises:
        ConfigurationError, WeightsError: before anything is served; the message says what to do.
    """
    platforms = read_platforms(settings.own_platforms_file)
    embedder = open_embedder(settings)
    retriever = TrendRetriever(
        settings.snapshots_dir,
        embedder,
        k=settings.retrieval.k,
        threshold=settings.retrieval.threshold,
        max_age=timedelta(hours=settings.ingest.max_age_hours),
        concepts_dir=settings.models_dir,
        pinned=pinned,
    )
    async with (
        nullcontext() if pinned else _following(settings, embedder),
        open_cache(settings) as cache,
        _open_model(settings, platforms) as model,
    ):
        await retriever.follow()
        try:
            identity = describer_identity(settings.model, model.writer.name)
            described_once = CachedDescriber(model.describer, cache, identity, settings.cache.descriptions_s)
            ports: Ports = described_once, retriever, model.writer, model.judge
            chain = build_caption_chain(*(traced(ports, tracer, settings.model) if tracer else ports), platforms)
            yield CaptionService(
                chain, model.writer, retriever, model.check, model.upstream, model.fallback, model.gateway
            )
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


@dataclass(frozen=True, slots=True)
class _Model:
    describer: Describer
    judge: Judge | None
    writer: Writer
    check: Check
    upstream: Upstream | None = None
    fallback: str | None = None
    gateway: Gateway | None = None


@asynccontextmanager
async def _open_model(settings: Settings, platforms: Platforms | None = None) -> AsyncIterator[_Model]:
    judging = settings.retrieval.judge == "model"
    async with AsyncExitStack() as stack:
        # Imported where they are used: each brings libraries that the other provider need not wait for.
        if settings.model.provider == "embedded":
            from serving.models.embedded import NoJudge, open_embedded  # noqa: PLC0415

            describer, writer = await stack.enter_async_context(open_embedded(settings))
            yield _Model(describer, NoJudge() if judging else None, writer, _always_there)
            return
        from serving.models.chat import ChatDescriber, ChatWriter, check_model  # noqa: PLC0415
        from serving.models.gateway import ModelGateway, ResilientGateway  # noqa: PLC0415
        from serving.models.judge import ChatJudge  # noqa: PLC0415
        from serving.models.lean import LeanChat  # noqa: PLC0415
        from serving.models.openai import chat_model_name, close_chat_model, open_chat_model  # noqa: PLC0415

        drafts: tuple[Describer, Writer] | None = None
        if settings.model.fallback == "embedded":
            from serving.models.embedded import open_embedded  # noqa: PLC0415

            drafts = await stack.enter_async_context(open_embedded(settings))
        chat = open_chat_model(settings.model)
        stack.push_async_callback(close_chat_model, chat)
        name = chat_model_name(chat)
        upstream = Upstream(settings.model, now=time.monotonic, random=random.random)
        judge = ChatJudge(chat, settings.model, settings.retrieval.judge_timeout_s) if judging else None
        bare = ModelGateway(chat.wire(), name, settings.model) if isinstance(chat, LeanChat) else None
        yield _Model(
            ResilientDescriber(upstream, ChatDescriber(chat, name, settings.model), drafts[0] if drafts else None),
            ResilientJudge(upstream, judge) if judge else None,
            ResilientWriter(upstream, ChatWriter(chat, name, settings.model, platforms=platforms), drafts),
            lambda: check_model(chat),
            upstream,
            drafts[1].name if drafts else None,
            ResilientGateway(upstream, bare) if bare else None,
        )


async def _always_there() -> None:
    """The embedded engine lives in this process."""
