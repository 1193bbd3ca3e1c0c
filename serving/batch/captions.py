"""One image's caption, from a server or from the caption chain, as a value or as a fault.

Where no trends are wanted, an OpenAI-compatible server is asked for a whole answer: nobody watches it stream, and one
object costs both sides less than a hundred events. Everything else goes through the caption chain.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from pydantic import ValidationError
from pydantic_core import to_json

from serving.models.gateway import ModelGateway
from serving.models.lean import LeanChat
from serving.models.wire import MALFORMED, event_object
from trendrag.chain import build_caption_chain
from trendrag.cli import option_error
from trendrag.errors import ConfigurationError, ModelInterrupted, ModelRejected, TrendragError
from trendrag.platforms import Platforms, read_platforms
from trendrag.prompting import caption_messages, describe_messages, prompt
from trendrag.settings import ModelSettings, Settings
from trendrag.shaping import Shaper
from trendrag.text import clean_note
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Done,
    Failed,
    PreparedImage,
    Retrieval,
    RetrievedTrend,
    TrendFilters,
    TrendsRetrieved,
    Usage,
)

BUILT_IN = ("caption", "alt", "describe")
MAX_OWN_CHARS = 5_000
_SOURCES = 3  # of a trend, in a record
DRAFT = "embedded-draft/"
"""Stands before the model's name where the small embedded engine wrote."""
_OF_THE_SERVER = {"model_unavailable", "model_timeout", "model_interrupted"}
_NO_IMAGE = PreparedImage(data=b"", mime_type="image/jpeg", width=1, height=1, sha256="")  # to check wishes with
_ENDED = {"stop", "length", "eos", "max_tokens"}


class Fault(Exception):
    """No caption. ``of_server``: it is the server that can't, and not this row that it won't."""

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after

    @property
    def of_server(self) -> bool:
        return self.code in _OF_THE_SERVER


@dataclass(frozen=True, slots=True)
class Written:
    """``trends`` are those that the text mentions, with where they come from; None where none were asked for."""

    text: str
    model: str
    trends: tuple[dict[str, Any], ...] | None = None
    usage: Usage = field(default_factory=Usage)


Asked = bytes | CaptionRequest
"""What one kind of captioner sends: a request's body, or a request to the chain."""


class Captioner(Protocol):
    @property
    def name(self) -> str:
        """The model's."""

    def asked(self, image: PreparedImage, note: str | None) -> Asked:
        """What to send for an image, good for several tries. Takes milliseconds: made before a place is free.

        Raises Fault."""

    async def caption(self, asked: Asked) -> Written:
        """Raises Fault."""

    async def check(self) -> None:
        """Raises ModelError where the server can't be reached."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How all captions of a run should be. ``prompt`` is one of ``BUILT_IN`` or the path of a text file, whose
    ``{note}`` is where a record's note goes."""

    prompt: str = "caption"
    trends: bool = False
    platform: str = "generic"
    language: str = "en"
    length: str | None = None
    tone: str | None = None
    max_chars: int | None = None

    def own(self) -> str | None:
        """The text of a prompt that is none of the built-in ones.

        Raises:
            ConfigurationError: it can't be read, or is empty or too long.
        """
        if self.prompt in BUILT_IN:
            return None
        try:
            text = Path(self.prompt).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--prompt: there is no prompt {self.prompt!r}. Known are {', '.join(BUILT_IN)}; else give the path of "
                "a text file."
            ) from error
        if not 1 <= len(text) <= 20_000:
            raise ConfigurationError(f"--prompt: {self.prompt} is empty, or longer than 20,000 characters.")
        return text

    def check(self, platforms: Platforms) -> None:
        """
        Raises:
            ConfigurationError, RequestError: these wishes can't be fulfilled together.
        """
        if self.own() is not None or self.prompt == "describe":
            if self.trends:
                raise ConfigurationError("--with-trends goes with the prompts caption and alt only.")
            return
        platforms.filled_in(self.request(_NO_IMAGE, None))

    def request(self, image: PreparedImage, note: str | None) -> CaptionRequest:
        try:
            return CaptionRequest.model_validate(
                {
                    "image": image,
                    "note": note,
                    "platform": self.platform,
                    "language": self.language,
                    "length": self.length,
                    "tone": self.tone,
                    "max_chars": self.max_chars,
                    "trends": self.trends,
                    "alt_text": self.prompt == "alt",
                }
            )
        except ValidationError as error:
            raise option_error(error) from error

    def digest(self, model: ModelSettings) -> str:
        """Of everything but image, note and model that a caption depends on."""
        texts = [prompt("system"), self.own() or prompt(self.prompt)]
        parts = [*texts, repr(self) if self.own() is None else repr((self.max_chars,)), repr(model.temperature)]
        parts.append(repr(model.max_tokens))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class PlainCaptioner:
    """Asks an OpenAI-compatible server, once for each image."""

    def __init__(self, chat: LeanChat, settings: ModelSettings, wishes: Wishes, platforms: Platforms) -> None:
        self._chat = chat
        self._gateway = ModelGateway(chat.wire(), chat.model_name, settings)
        self._wishes = wishes
        self._own = wishes.own()
        self._platforms = platforms
        self._limit = wishes.max_chars or MAX_OWN_CHARS
        if self._own is None and wishes.prompt != "describe":
            self._limit = platforms.filled_in(wishes.request(_NO_IMAGE, None)).limit
        self.name = chat.model_name

    async def check(self) -> None:
        from serving.models.chat import check_model  # noqa: PLC0415

        await check_model(self._chat)

    def asked(self, image: PreparedImage, note: str | None) -> Asked:
        try:
            messages = self._messages(image, note)
        except TrendragError as error:
            raise Fault(error.code, str(error)) from error
        return to_json(self._chat.fields(messages, None, stream=None, logprobs=None))

    async def caption(self, asked: Asked) -> Written:
        assert isinstance(asked, bytes)  # noqa: S101  (its own)
        try:
            text, usage = _told(await self._gateway.complete(asked))
        except TrendragError as error:
            raise Fault(error.code, str(error), error.retry_after) from error
        plain = self._wishes.prompt != "alt"
        shaper = Shaper(self._limit, emoji=plain, hashtags=plain)
        shaped = (shaper.feed(text) + shaper.close()).strip()
        if not shaped:
            raise Fault("model_error", "The model wrote nothing.")
        return Written(shaped, self.name, None, usage)

    def _messages(self, image: PreparedImage, note: str | None) -> list[BaseMessage]:
        if self._own is None and self._wishes.prompt != "describe":
            request = self._platforms.filled_in(self._wishes.request(image, note))
            return caption_messages(request, (), 0, self._platforms)
        messages = describe_messages(image)
        if self._own is not None:
            content = cast("list[str | dict[str, Any]]", messages[-1].content)
            text = self._own.replace("{note}", clean_note(note or ""))
            messages[-1] = HumanMessage([*content[:-1], {"type": "text", "text": text}])
        return messages


def _told(answer: bytes) -> tuple[str, Usage]:
    """The text and the usage of a whole answer, of which nothing is believed."""
    told = event_object(answer)
    choices = told.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, str | None):
        raise ModelInterrupted(MALFORMED)
    finish = str(choice.get("finish_reason") or "")
    if finish == "content_filter":
        raise ModelRejected("The model server's content filter stopped the answer.")
    if finish not in _ENDED:
        raise ModelInterrupted("The model server ended its answer before the model had finished.")
    usage = told.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return text or "", Usage(prompt_tokens=_count(counts, "prompt"), completion_tokens=_count(counts, "completion"))


def _count(usage: dict[str, Any], of: str) -> int:
    value = usage.get(f"{of}_tokens")
    return value if isinstance(value, int) and value >= 0 else 0


class ChainCaptioner:
    """Asks the caption chain: with trends, and of any kind of model."""

    def __init__(
        self,
        chain: Runnable[CaptionRequest, CaptionEvent],
        name: str,
        wishes: Wishes,
        check: Callable[[], Any],
    ) -> None:
        self._chain = chain
        self._wishes = wishes
        self._check = check
        self.name = name

    async def check(self) -> None:
        await self._check()

    def asked(self, image: PreparedImage, note: str | None) -> Asked:
        try:
            return self._wishes.request(image, note)
        except TrendragError as error:
            raise Fault(error.code, str(error)) from error

    async def caption(self, asked: Asked) -> Written:
        assert isinstance(asked, CaptionRequest)  # noqa: S101  (its own)
        offered: tuple[RetrievedTrend, ...] = ()
        written: CandidateDone | None = None
        usage = Usage()
        model = self.name
        # Runnable promises an iterator; RunnableGenerator gives a generator, which alone can be closed.
        events = cast("AsyncGenerator[CaptionEvent, None]", self._chain.astream(asked))
        async with aclosing(events):
            async for event in events:
                if isinstance(event, TrendsRetrieved):
                    offered = event.trends
                elif isinstance(event, CandidateDone):
                    written = event
                elif isinstance(event, Done):
                    usage, model = event.usage, f"{DRAFT if event.draft else ''}{event.model}"
                elif isinstance(event, Failed):
                    raise Fault(event.code, event.message, event.retry_after)
        if written is None:
            raise Fault("model_error", "The model wrote nothing.")
        trends = tuple(_trend(hit) for hit in offered if hit.trend.id in written.trend_ids)
        return Written(written.text.strip(), model, trends if self._wishes.trends else None, usage)


def _trend(hit: RetrievedTrend) -> dict[str, Any]:
    evidence = [{"source": each.source, "title": each.title, "url": each.url} for each in hit.trend.evidence[:_SOURCES]]
    return {"id": hit.trend.id, "phrase": hit.trend.phrase, "evidence": evidence}


class _NoTrends:
    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        del query, filters
        return Retrieval(reason="Trends are switched off.")


@asynccontextmanager
async def open_captioner(settings: Settings, wishes: Wishes) -> AsyncIterator[Captioner]:
    """For as long as the context is open. Connects to nothing but to learn the model's name, where none is set.

    Raises:
        ConfigurationError, WeightsError, SnapshotError: the message says what to do.
    """
    platforms = read_platforms(settings.own_platforms_file)
    wishes.check(platforms)
    async with AsyncExitStack() as stack:
        retriever: Any = _NoTrends()
        if wishes.trends:
            retriever = await stack.enter_async_context(_trends(settings))
        if settings.model.provider == "embedded":
            from serving.models.embedded import open_embedded  # noqa: PLC0415  heavy

            if wishes.prompt not in ("caption", "alt"):
                raise ConfigurationError("The embedded engine knows the prompts caption and alt only.")
            describer, drafter = await stack.enter_async_context(open_embedded(settings))
            chain = build_caption_chain(describer, retriever, drafter, None, platforms)
            yield ChainCaptioner(chain, drafter.name, wishes, _always_there)
            return
        from serving.models.chat import ChatDescriber, ChatWriter, check_model  # noqa: PLC0415
        from serving.models.openai import chat_model_name, close_chat_model, open_chat_model  # noqa: PLC0415

        chat = open_chat_model(settings.model)
        stack.push_async_callback(close_chat_model, chat)
        if isinstance(chat, LeanChat) and not wishes.trends:
            yield PlainCaptioner(chat, settings.model, wishes, platforms)
            return
        if wishes.prompt not in ("caption", "alt"):
            raise ConfigurationError("Providers of LangChain's know the prompts caption and alt only.")
        name = chat_model_name(chat)
        writer = ChatWriter(chat, name, settings.model, platforms=platforms)
        judge = None
        if wishes.trends and settings.retrieval.judge == "model":
            from serving.models.judge import ChatJudge  # noqa: PLC0415

            judge = ChatJudge(chat, settings.model, settings.retrieval.judge_timeout_s)
        chain = build_caption_chain(ChatDescriber(chat, name, settings.model), retriever, writer, judge, platforms)
        yield ChainCaptioner(chain, name, wishes, lambda: check_model(chat))


@asynccontextmanager
async def _trends(settings: Settings) -> AsyncIterator[Any]:
    from indexes.embedder import open_embedder  # noqa: PLC0415  heavy
    from indexes.retriever import TrendRetriever  # noqa: PLC0415

    retriever = TrendRetriever(
        settings.snapshots_dir,
        open_embedder(settings),
        k=settings.retrieval.k,
        threshold=settings.retrieval.threshold,
        max_age=timedelta(hours=settings.ingest.max_age_hours),
        concepts_dir=settings.models_dir,
    )
    await retriever.follow()
    try:
        await retriever.listing()  # NoSnapshot: a run that can't have trends says so before it begins
        yield retriever
    finally:
        await retriever.aclose()


async def _always_there() -> None:
    """The embedded engine lives in this process."""
