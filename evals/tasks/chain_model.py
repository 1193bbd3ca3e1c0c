"""Our caption chain, and our tagger, as models of Inspect AI. Registers both; needs the extra ``evals``.

``trendrag/embedded`` is the chain with the draft engine, ``trendrag/NAME`` that with the model NAME on the settings'
server. What is asked of the chain stands in the metadata of the last message (`ChainAsk`), the photo in its content;
what the chain said besides the text is in the metadata of the output (`ChainSaid`). ``tagger/efficientnet-lite2`` names
what it sees, as JSON.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ContentImage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from pydantic import Field

from serving.images import from_base64, prepare_image
from serving.models.tagger import Tagger
from serving.service import CaptionService, open_service
from trendrag.errors import ConfigurationError, ModelError, NoSnapshot
from trendrag.settings import Settings, load_settings
from trendrag.types import (
    CandidateDone,
    CaptionRequest,
    Described,
    Done,
    Failed,
    Frozen,
    Highlight,
    PreparedImage,
    RetrievedTrend,
    Sampling,
    TrendsRetrieved,
)

AT_ONCE = 8
"""Photos at once where nothing else is said. The embedded engine gets one: two share its cores, and both seem slow."""


class ChainAsk(Frozen):
    """What a task asks of the chain, beside the photo."""

    note: str | None = None
    trends: bool = True
    alt_text: bool = False
    max_chars: int | None = None


class LitSpan(Frozen):
    """Code points [start, end) of the caption that mention a trend; ``verbatim``: letter by letter as the trend or one
    of its aliases is written."""

    start: int
    end: int
    trend_id: str
    phrase: str
    source: str = ""
    url: str | None = None
    verbatim: bool


class ChainSaid(Frozen):
    """``offered`` are the phrases of the trends that the writer was offered, by id. Times in seconds."""

    lit: tuple[LitSpan, ...] = ()
    offered: Mapping[str, str] = Field(default_factory=dict)
    reason: str | None = None
    snapshot_id: str | None = None
    described: str = ""
    model: str = ""
    draft: bool = False
    confidence: float | None = None
    cut: bool = False
    first_token_s: float | None = None
    latency_s: float


class OurAPI(ModelAPI):
    """A model in this process, by the settings. ``given`` is what else Inspect hands over, such as an address."""

    def __init__(self, model_name: str, config: GenerateConfig | None = None, **given: Any) -> None:
        del given
        super().__init__(model_name, config=config or GenerateConfig())
        self.settings = load_settings()


class ChainAPI(OurAPI):
    """``snapshot`` is the directory of the snapshot whose trends are used; without it no trends can be asked for."""

    def __init__(self, model_name: str, snapshot: str | None = None, **given: Any) -> None:
        super().__init__(model_name, **given)
        self.settings = chain_settings(self.settings, model_name)
        self._snapshot = Path(snapshot) if snapshot else None
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._service: CaptionService | None = None

    def max_connections(self) -> int:
        return 1 if self.model_name == "embedded" else AT_ONCE

    def connection_key(self) -> str:
        return f"trendrag {self.model_name}"

    async def aclose(self) -> None:
        self._service = None
        await self._stack.aclose()

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  (Inspect's name)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        del tools, tool_choice
        message = input[-1]
        ask = ChainAsk.model_validate(message.metadata or {})
        request = CaptionRequest(
            image=await photo_of(message, self.settings),
            note=ask.note,
            trends=ask.trends,
            alt_text=ask.alt_text,
            max_chars=ask.max_chars,
            sampling=Sampling(seed=config.seed, temperature=config.temperature),
        )
        return await self._written(await self._opened(), request)

    async def _opened(self) -> CaptionService:
        async with self._opening:
            if self._service is None:
                service = await self._stack.enter_async_context(open_service(self.settings, pinned=self._snapshot))
                if self._snapshot and service.snapshot() is None:
                    raise NoSnapshot(f"{self._snapshot} can't be used: it is not there, or does not verify")
                self._service = service
            return self._service

    async def _written(self, service: CaptionService, request: CaptionRequest) -> ModelOutput:
        done: Done | None = None
        written: CandidateDone | None = None
        retrieved: TrendsRetrieved | None = None
        described = ""
        highlights: list[Highlight] = []
        async with aclosing(service.stream(request)) as events:
            async for event in events:
                if isinstance(event, Failed):
                    raise ModelError(f"{event.code}: {event.message}")
                if isinstance(event, Described):
                    described = event.text
                elif isinstance(event, TrendsRetrieved):
                    retrieved = event
                elif isinstance(event, Highlight):
                    highlights.append(event)
                elif isinstance(event, CandidateDone):
                    written = event
                elif isinstance(event, Done):
                    done = event
        if written is None or done is None:
            raise ModelError("The caption chain ended without a caption")
        offered = {found.trend.id: found for found in (retrieved.trends if retrieved else ())}
        said = ChainSaid(
            lit=tuple(_lit(written.text, each, offered[each.trend_id]) for each in highlights),
            offered={id_: found.trend.phrase for id_, found in offered.items()},
            reason=retrieved.reason if retrieved else None,
            snapshot_id=done.snapshot_id,
            described=described,
            model=done.model,
            draft=done.draft,
            confidence=written.confidence,
            cut=written.cut,
            first_token_s=done.timings.first_token,
            latency_s=done.timings.total,
        )
        output = ModelOutput.from_content(done.model, written.text)
        output.metadata = said.model_dump(mode="json")
        output.usage = ModelUsage(
            input_tokens=max(0, done.usage.prompt_tokens - done.usage.cached_tokens),
            input_tokens_cache_read=done.usage.cached_tokens,
            output_tokens=done.usage.completion_tokens,
            total_tokens=done.usage.prompt_tokens + done.usage.completion_tokens,
        )
        return output


def _lit(text: str, span: Highlight, found: RetrievedTrend) -> LitSpan:
    trend = found.trend
    evidence = trend.evidence[0] if trend.evidence else None
    return LitSpan(
        start=span.start,
        end=span.end,
        trend_id=trend.id,
        phrase=trend.phrase,
        source=evidence.source if evidence else "",
        url=evidence.url if evidence else None,
        verbatim=text[span.start : span.end] in (trend.phrase, *trend.aliases),
    )


class TaggerAPI(OurAPI):
    """The embedded engine's image tagger: the thousand classes of ImageNet, their words cut at the n asked for."""

    def __init__(self, model_name: str, **given: Any) -> None:
        super().__init__(model_name, **given)
        self._tagger = Tagger(self.settings.models_dir)

    def max_connections(self) -> int:
        return 1

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  (Inspect's name)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        del tools, tool_choice, config
        photo = await photo_of(input[-1], self.settings)
        began = time.perf_counter()
        tags = await self._tagger.tags(photo, int((input[-1].metadata or {})["tags"]))
        text = json.dumps({"tags": [tag.name for tag in tags]})
        output = ModelOutput.from_content(self.model_name, text)
        output.metadata = {"latency_s": time.perf_counter() - began}
        return output


@modelapi(name="trendrag")
def trendrag() -> type[ModelAPI]:
    return ChainAPI


@modelapi(name="tagger")
def tagger() -> type[ModelAPI]:
    return TaggerAPI


def chain_settings(settings: Settings, name: str) -> Settings:
    """``settings`` with the model ``name``: "embedded", or a name on their model server.

    Raises:
        ConfigurationError: the settings name no server.
    """
    if name == "embedded":
        return settings.model_copy(update={"model": settings.model.model_copy(update={"provider": "embedded"})})
    if settings.model.provider == "embedded":
        raise ConfigurationError(
            f"trendrag/{name} is a model on a model server: set TRENDRAG_MODEL__PROVIDER=openai and "
            "TRENDRAG_MODEL__BASE_URL"
        )
    return settings.model_copy(update={"model": settings.model.model_copy(update={"name": name})})


async def photo_of(message: ChatMessage, settings: Settings) -> PreparedImage:
    """The photo of a message that `photo_message` made."""
    content = message.content if isinstance(message.content, list) else []
    address = next((part.image for part in content if isinstance(part, ContentImage)), None)
    if address is None:
        raise ModelError("There is no photo in the message")
    return await asyncio.to_thread(prepare_image, from_base64(address), settings.image)
