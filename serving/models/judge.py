"""The last look at the trends found: a model that sees the photo says which fit, in one short constrained answer.

The request begins with the bytes that the description's and the caption's begin with, so that a server with a prefix
cache reads the photo once for all three. The answer is bound to a JSON schema through ``response_format``, which OpenAI
and the servers that follow it take, and which vLLM turns into its own ``structured_outputs`` (as a field of the request
those are vLLM's alone, and OpenAI refuses them). A provider without such a field is asked by the prompt only. Whatever
comes back is checked, bound or not: a server may know the field and do nothing about it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, ValidationError

from serving.models.chat import stream_chat, tuned
from trendrag.errors import ModelError, ModelTimeout
from trendrag.ports import Judgement
from trendrag.prompting import judge_messages
from trendrag.settings import ModelSettings
from trendrag.types import CaptionRequest, RetrievedTrend, Usage


class ChatJudge:
    """``trendrag.ports.Judge`` by a model that sees images. It answers within ``timeout_s`` or raises ModelTimeout."""

    def __init__(self, model: BaseChatModel, settings: ModelSettings, timeout_s: float) -> None:
        self._model = tuned(model, temperature=0.0, logprobs=None)
        self._settings = settings
        self._timeout_s = timeout_s

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        count = len(trends)
        # A number is at most two digits, a comma and a space, each a token in the worst case.
        model = tuned(self._model, max_tokens=16 + 4 * count, extra_body={"response_format": response_format(count)})
        try:
            async with asyncio.timeout(self._timeout_s):
                text, usage = await self._answer(model, judge_messages(request, trends))
        except TimeoutError as error:
            raise ModelTimeout(
                f"The model did not choose within {self._timeout_s:g} s (TRENDRAG_RETRIEVAL__JUDGE_TIMEOUT_S).",
                server_failed=False,  # a choice of ours, far shorter than a caption may take
            ) from error
        return Judgement(chosen_places(text, count), usage)

    async def _answer(self, model: BaseChatModel, messages: Sequence[BaseMessage]) -> tuple[str, Usage]:
        texts: list[str] = []
        usage = Usage()
        async with aclosing(stream_chat(model, messages, self._settings)) as chunks:
            async for chunk in chunks:
                texts.append(chunk.text)
                usage = chunk.usage or usage
        return "".join(texts), usage


def response_format(count: int) -> dict[str, Any]:
    """Binds an answer to the numbers from 1 to ``count``. Nothing here that OpenAI's strict mode or xgrammar refuses,
    so that a number may come twice."""
    fits = {"type": "array", "items": {"type": "integer", "enum": list(range(1, count + 1))}, "maxItems": count}
    schema = {"type": "object", "properties": {"fits": fits}, "required": ["fits"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "fits", "strict": True, "schema": schema}}


class _Fits(BaseModel):
    model_config = ConfigDict(strict=True)

    fits: list[int]


def chosen_places(text: str, count: int) -> frozenset[int]:
    """The places, from 0, of the numbers that an answer lists.

    Raises:
        ModelError: it is something else, or lists a number that nobody offered.
    """
    # Models that nothing binds like to put a sentence or a fence around it.
    start, end = text.find("{"), text.rfind("}") + 1
    try:
        places = frozenset(number - 1 for number in _Fits.model_validate_json(text[start:end]).fits)
    except ValidationError:
        places = None
    if places is None or not places <= frozenset(range(count)):
        raise ModelError("The model was asked which trends fit, and did not answer with their numbers.")
    return places
