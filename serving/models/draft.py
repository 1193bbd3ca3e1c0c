"""The draft writer: SmolLM2-135M in the embedded engine, held by a grammar made for each candidate.

What the texts may be is ``draft_plan``'s; this module asks the model which of them fits the photo best and streams its
choice. Drafts are in English whatever language is asked for: the model knows no other.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx2
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from serving.models.chat import read_timeout_s, stream_chat
from serving.models.draft_grammar import grammar
from serving.models.draft_plan import Plan
from serving.models.draft_wishes import plan_request
from trendrag.ports import Chunk
from trendrag.settings import ModelSettings
from trendrag.text import clean_line
from trendrag.types import CaptionRequest, RetrievedTrend

if TYPE_CHECKING:
    from serving.models.embedded import EmbeddedEngine, Endpoint

_NOTE_CHARS = 80
_TOPIC_CHARS = 40
"""Enough to choose by. A prompt is read at ~170 tokens/s on one core, and a letter of some scripts is three tokens."""
_SYSTEM = "You write one short, friendly caption for a photo."
_EXAMPLES = (
    ("Photo: my bicycle. Note: first ride of spring. Topic: cherry blossom.",
     "First ride of spring, and everyone's on about cherry blossom."),
)  # fmt: skip


class DraftWriter:
    """``trendrag.ports.Writer`` on an embedded engine, which it starts with the first draft.

    Its HTTP client belongs to the event loop of the first draft; ``aclose`` ends it. Closing the engine is left to its
    owner. Of the settings, only the temperature and the time limits count here.
    """

    name = "SmolLM2-135M"
    draft = True

    def __init__(self, engine: "EmbeddedEngine", settings: ModelSettings | None = None) -> None:
        self._engine = engine
        self._settings = settings or ModelSettings()
        self._client: httpx2.AsyncClient | None = None

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        """Streams one candidate.

        Raises:
            ModelError: one of its kinds; see ``trendrag.errors``.
            NotSupported: the caption is to be changed in a way that drafts can't be.
        """
        plan, number = plan_request(request, description, trends, candidate)
        endpoint = await self._engine.start()
        chat = self._chat(endpoint, plan, number)
        async with aclosing(stream_chat(chat, messages(request, plan), self._settings)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _chat(self, endpoint: "Endpoint", plan: Plan, number: int) -> ChatOpenAI:
        if self._client is None:
            timeout = httpx2.Timeout(read_timeout_s(self._settings), connect=self._settings.connect_timeout_s)
            # Loopback only: no proxy of the environment, and no certificates to load.
            self._client = httpx2.AsyncClient(timeout=timeout, trust_env=False, verify=False)
        return ChatOpenAI(
            model="smollm2",
            base_url=endpoint.base_url,
            api_key=SecretStr(endpoint.api_key),
            http_async_client=self._client,
            timeout=read_timeout_s(self._settings),
            max_retries=0,
            temperature=self._settings.temperature,
            seed=number,
            max_tokens=plan.max_chars * 4 + 8,  # a token is at least a byte; the grammar ends the text long before
            logprobs=True,
            stream_usage=True,
            extra_body={"grammar": grammar(plan.slots), "cache_prompt": True, "min_p": 0.02},
        )


def messages(request: CaptionRequest, plan: Plan) -> list[BaseMessage]:
    """The prompt. The example comes first and never varies, so that llama.cpp keeps its part in the cache."""
    parts = [f"Photo: {plan.subject.phrase}."]
    if note := clean_line(request.note or "", _NOTE_CHARS):
        parts.append(f"Note: {note.rstrip('.')}.")
    if plan.trend:
        parts.append(f"Topic: {clean_line(plan.trend, _TOPIC_CHARS)}.")
    if tone := clean_line(request.tone or "", 60):
        parts.append(f"Tone: {tone}.")
    shots: list[BaseMessage] = [SystemMessage(_SYSTEM)]
    for asked, answered in _EXAMPLES:
        shots += [HumanMessage(asked), AIMessage(answered)]
    return [*shots, HumanMessage(" ".join(parts))]
