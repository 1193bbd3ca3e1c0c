"""A LangChain chat model for OpenAI-compatible servers that does little more than such a server needs.

What ``ChatOpenAI`` adds on the way (the SDK's models of every event, built by reflection, and their conversion to
LangChain's) costs more time than everything else in a caption: ``docs/decisions/0021-lean-chat-model.md``. This one
reads an event's JSON and makes LangChain's message of it. It knows text and images, sampling, log-probabilities and
usage; it binds no tools.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, SecretStr
from pydantic_core import to_json

from serving.models.wire import MALFORMED, ServerError, Wire, event_object, events_of_a_new_connection
from trendrag.errors import ModelInterrupted

_RUNNING = {"include_usage": True, "continuous_usage_stats": True}
"""Usage with every event and not only after the last: a caption that is cut ends before that one comes. vLLM and its
kin know the second option; what does not know it either takes no notice or refuses the request."""
_AT_THE_END = {"include_usage": True}
_ROLES = {SystemMessage: "system", HumanMessage: "user", AIMessage: "assistant"}


@dataclass(slots=True)
class RunningUsage:
    """Whether the server takes ``continuous_usage_stats``; None until it has answered. Copies of a model share it."""

    taken: bool | None = None

    def refused_by(self, error: ServerError) -> bool:
        """Whether it may be for this option that a request was refused; then it is asked once more without."""
        if error.status_code not in (400, 422):
            return False
        return self.taken is None or "continuous_usage_stats" in str(error.body)


class LeanChat(BaseChatModel):
    """``base_url`` is the server's, as in ``http://127.0.0.1:8001/v1``; fields that are None are left to the server.

    The caller owns ``http_async_client`` and its time limits. Calls that are not asynchronous open a connection each.

    Raises from its calls:
        ServerError, ModelInterrupted, httpx2.HTTPError: as ``serving.models.wire`` says.
    """

    model_config = ConfigDict(populate_by_name=True)

    model_name: str = Field(alias="model")
    base_url: str
    api_key: SecretStr = SecretStr("none")
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    logprobs: bool | None = None
    extra_body: dict[str, Any] | None = None
    http_async_client: httpx2.AsyncClient | None = Field(default=None, exclude=True, repr=False)
    running_usage: RunningUsage = Field(default_factory=RunningUsage, exclude=True, repr=False)

    @property
    def _llm_type(self) -> str:
        return "openai-compatible"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "base_url": self.base_url}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "openai"
        return params

    def wire(self) -> Wire:
        """The connections that all copies of this model share."""
        if self.http_async_client is None:
            raise RuntimeError("http_async_client: the asynchronous calls need a client")
        return Wire(self.http_async_client, self.base_url, self.api_key)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        told = _Told()
        async with aclosing(self._events(self.fields(messages, stop, **kwargs))) as events:
            async for together in events:
                for event in together:
                    chunk = _chunk(event, told)
                    if run_manager:
                        await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
                    yield chunk

    async def _events(self, fields: dict[str, Any]) -> AsyncGenerator[list[bytes], None]:
        """As ``Wire.events``. A request that is refused for an option that is ours is sent once more without it."""
        wire = self.wire()
        running = self.running_usage
        if running.taken is not False:
            try:
                async with aclosing(wire.events(to_json(fields | {"stream_options": _RUNNING}))) as events:
                    async for together in events:
                        running.taken = True
                        yield together
                    return
            except ServerError as error:
                if not running.refused_by(error):
                    raise
        async with aclosing(wire.events(to_json(fields | {"stream_options": _AT_THE_END}))) as events:
            async for together in events:
                running.taken = False
                yield together

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        told = _Told()
        body = to_json(self.fields(messages, stop, **kwargs) | {"stream_options": _AT_THE_END})
        for event in events_of_a_new_connection(self.base_url, self.api_key, body):
            chunk = _chunk(event, told)
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    def fields(self, messages: Sequence[BaseMessage], stop: list[str] | None, **kwargs: Any) -> dict[str, Any]:
        """What a request for a stream holds, before ``stream_options``; a field that is None is left out."""
        fields = {
            "model": self.model_name,
            "messages": _openai_messages(messages),
            "stream": True,
            "temperature": self.temperature,
            "max_completion_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": stop or self.stop or None,
            "logprobs": self.logprobs,
            **(self.extra_body or {}),
            **kwargs,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _openai_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """As the server takes them. LangChain's own conversion knows every kind of block and walks a photo's base64 more
    than once; ours are one photo and text."""
    if all(type(message) in _ROLES and not getattr(message, "tool_calls", None) for message in messages):
        return [
            {
                "role": _ROLES[type(message)],
                "content": message.content
                if isinstance(message.content, str)
                else [_openai_block(block) for block in message.content],
            }
            for message in messages
        ]
    converted = convert_to_openai_messages(messages)
    return converted if isinstance(converted, list) else [converted]


def _openai_block(block: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    if block.get("type") == "image" and "base64" in block:
        return {"type": "image_url", "image_url": {"url": f"data:{block['mime_type']};base64,{block['base64']}"}}
    return block


@dataclass(slots=True)
class _Told:
    """The usage that a server has told so far: it tells sums, and LangChain adds up what messages tell."""

    read: int = 0
    written: int = 0
    cached: int = 0

    def more(self, read: int, written: int, cached: int) -> UsageMetadata:
        """What came since; sums never fall."""
        read, written, cached = max(read - self.read, 0), max(written - self.written, 0), max(cached - self.cached, 0)
        self.read += read
        self.written += written
        self.cached += cached
        return UsageMetadata(
            input_tokens=read,
            output_tokens=written,
            total_tokens=read + written,
            input_token_details={"cache_read": cached},
        )


def _chunk(event: bytes, so_far: _Told) -> ChatGenerationChunk:
    """One event's message. The server is believed nothing: what has not the form of an event is an interruption."""
    told = event_object(event)
    choices = told.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not isinstance(choice, dict):
        raise ModelInterrupted(MALFORMED)
    delta = choice.get("delta") or {}
    text = (delta.get("content") or "") if isinstance(delta, dict) else None
    if not isinstance(text, str):
        raise ModelInterrupted(MALFORMED)
    known: dict[str, Any] = {}
    if finish := choice.get("finish_reason"):
        known = {"finish_reason": str(finish), "model_name": str(told.get("model", ""))}
    if logprobs := choice.get("logprobs"):
        known["logprobs"] = logprobs
    message = AIMessageChunk(content=text)
    if usage := told.get("usage"):
        message.usage_metadata = _usage(usage, so_far)
    if isinstance(identity := told.get("id"), str):
        message.id = identity
    return ChatGenerationChunk(message=message, generation_info=known or None)


def _usage(told: object, so_far: _Told) -> UsageMetadata:
    if not isinstance(told, dict):
        raise ModelInterrupted(MALFORMED)
    details = told.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return so_far.more(_count(told.get("prompt_tokens")), _count(told.get("completion_tokens")), cached)


def _count(told: object) -> int:
    """A number of tokens; 0 where the server says something else."""
    return told if isinstance(told, int) and told >= 0 else 0
