"""The model server itself, asked in its own words: a checked request goes out, whole events come back.

For the models of ``/v1`` that write without trends. It passes on what the server says byte for byte, event by event,
and lets nothing through that would make a client fail: what is malformed, cut off or an error becomes a ``ModelError``,
told by whoever sends the answer. Deadlines are those of ``serving.models.chat.stream_chat``.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from serving.models.chat import model_error
from serving.models.resilience import Upstream
from serving.models.wire import CUT_OFF, MALFORMED, Wire, event_object
from serving.ports import Gateway
from trendrag.errors import ModelError, ModelInterrupted, ModelTimeout, TrendragError
from trendrag.settings import ModelSettings

_GIVEN_UP = {"abort", "error"}  # vLLM's words for a request that it gave up


class ModelGateway:
    """``serving.ports.Gateway`` over the connections that captions use too."""

    def __init__(self, wire: Wire, name: str, settings: ModelSettings) -> None:
        self._wire = wire
        self._settings = settings
        self.name = name

    async def stream(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.total_timeout_s
        begun: set[object] = set()
        finished: set[object] = set()
        async with aclosing(self._wire.events(body)) as events:
            while True:
                try:
                    silence = self._settings.token_timeout_s if begun else self._settings.first_token_timeout_s
                    async with asyncio.timeout_at(min(loop.time() + silence, deadline)):
                        together = await anext(events, None)
                    if together is None:
                        break
                    for event in together:
                        _follow(event, begun, finished)
                except Exception as error:
                    if finished and begun <= finished:
                        break  # every text is whole; only the usage may be missing
                    raise self._told(error, deadline) from error
                yield together
        if not finished or begun > finished:
            raise ModelInterrupted(CUT_OFF)

    async def complete(self, body: bytes) -> bytes:
        deadline = asyncio.get_running_loop().time() + self._settings.total_timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._wire.answer(body)
            event_object(answer)
        except Exception as error:
            raise self._told(error, deadline) from error
        return answer

    def _told(self, error: Exception, deadline: float) -> ModelError:
        if isinstance(error, ModelError):
            return error
        if isinstance(error, TimeoutError) and asyncio.get_running_loop().time() >= deadline:
            return ModelTimeout(
                f"The model did not finish within {self._settings.total_timeout_s:g} s "
                "(TRENDRAG_MODEL__TOTAL_TIMEOUT_S).",
                server_failed=False,  # a long answer is no fault
            )
        if isinstance(error, TrendragError):
            raise error
        return model_error(error)


class ResilientGateway:
    """``gateway`` behind the retries and the circuit breaker that captions have too. Nobody drafts in its place:
    whoever asks for this model gets this model."""

    def __init__(self, upstream: Upstream, gateway: Gateway) -> None:
        self._upstream = upstream
        self._gateway = gateway

    @property
    def name(self) -> str:
        return self._gateway.name

    def stream(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        return self._upstream.stream(lambda: self._gateway.stream(body))

    async def complete(self, body: bytes) -> bytes:
        return await self._upstream.call(lambda: self._gateway.complete(body))


def _follow(event: bytes, begun: set[object], finished: set[object]) -> None:
    """Notes which choices an event begins and which it finishes; both sets hold their indices."""
    choices = event_object(event).get("choices")
    if not isinstance(choices, list):
        raise ModelInterrupted(MALFORMED)
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(index := choice.get("index"), int):
            raise ModelInterrupted(MALFORMED)
        begun.add(index)
        if reason := choice.get("finish_reason"):
            if reason in _GIVEN_UP:
                raise ModelInterrupted(CUT_OFF)
            finished.add(index)
