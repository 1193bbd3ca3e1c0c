"""Asks any LangChain chat model for descriptions and captions, and tells its failures apart.

One streaming loop serves both. It forwards text as it comes, adds up token log-probabilities and usage, bounds every
wait, and takes a stream for finished only if the model said so. Closing it closes the request to the server, which then
stops generating. Everything a model library raises becomes a ``ModelError`` in ``model_error`` and nowhere else.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import langchain_core.exceptions as langchain_errors
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from serving.models.lean import LeanChat
from serving.telemetry import finished
from trendrag.errors import ModelError, ModelInterrupted, ModelRejected, ModelTimeout, ModelUnavailable, TrendragError
from trendrag.platforms import Platforms
from trendrag.ports import Chunk, Description
from trendrag.prompting import caption_messages, describe_messages
from trendrag.settings import ModelSettings
from trendrag.text import clean_line
from trendrag.types import MAX_CANDIDATES, CaptionRequest, PreparedImage, RetrievedTrend, Sampling, Usage

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk

CHECK_TIMEOUT_S = 5.0
DESCRIPTION_TOKENS = 48
DESCRIPTION_CHARS = 300
MIN_LOGPROB = -100.0
"""Servers write "impossible" as -inf or -9999; bounded, so that one such token leaves a confidence above 0."""

# Under which key providers say why the model stopped: OpenAI and most others, Anthropic, Bedrock, Ollama.
_FINISH_KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_CUT_OFF = {"abort", "error"}  # vLLM's words for a request that it gave up
_OUT_OF_TOKENS = {"length", "max_tokens", "MAX_TOKENS", "model_length"}
_WITHHELD = {"content_filter", "content_filtered", "guardrail_intervened", "SAFETY", "refusal"}
# Names, because httpx and httpx2 share them and integrations use either; the last is Bedrock's.
_UNREACHABLE = {"ConnectError", "ConnectTimeout", "EndpointConnectionError"}
_RESET = {"ReadError", "WriteError", "CloseError", "RemoteProtocolError"}
LONGEST_RETRY_AFTER_S = 3600.0

_STATUS = {
    langchain_errors.ModelAuthenticationError: 401,
    langchain_errors.ModelPermissionDeniedError: 403,
    langchain_errors.ModelNotFoundError: 404,
    langchain_errors.ModelRateLimitError: 429,
    langchain_errors.ModelInvalidRequestError: 400,
    langchain_errors.ContextOverflowError: 400,
    langchain_errors.ModelAPIError: 500,
}


class ChatDescriber:
    """``trendrag.ports.Describer`` by a model that sees images."""

    always = False

    def __init__(self, model: BaseChatModel, name: str, settings: ModelSettings | None = None) -> None:
        # Temperature 0: the same photo, the same words, so that what was found for it is found again.
        self._model = tuned(model, max_tokens=DESCRIPTION_TOKENS, temperature=0.0, logprobs=None)
        self._settings = settings or ModelSettings()
        self.name = name

    async def describe(self, image: PreparedImage) -> Description:
        texts: list[str] = []
        usage = Usage()
        async with aclosing(stream_chat(self._model, describe_messages(image), self._settings)) as chunks:
            async for chunk in chunks:
                texts.append(chunk.text)
                usage = chunk.usage or usage
        return Description(clean_line("".join(texts), DESCRIPTION_CHARS), usage)


class ChatWriter:
    """``trendrag.ports.Writer`` by a model that sees images. ``seed`` makes its candidates reproducible. Without
    ``platforms`` the built-in rules are asked for."""

    draft = False

    def __init__(
        self,
        model: BaseChatModel,
        name: str,
        settings: ModelSettings,
        *,
        seed: int | None = None,
        platforms: Platforms | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._seed = seed
        self._platforms = platforms
        self.name = name

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        del description  # the model sees the image itself
        # A server may have a fixed seed of its own, under which all candidates would be one.
        fixed = self._seed if request.sampling.seed is None else request.sampling.seed % 2**31
        base = secrets.randbits(24) if fixed is None else fixed
        if request.regenerate:  # with a fixed seed it would be the same again
            base += len(request.regenerate.avoid)
        model = tuned(self._model, seed=base * MAX_CANDIDATES + candidate, **self._sampling(request.sampling))
        messages = caption_messages(request, trends, candidate, self._platforms)
        async with aclosing(stream_chat(model, messages, self._settings)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _sampling(self, asked: Sampling) -> dict[str, object]:
        """Values for ``tuned``: those of the request's wishes that there are."""
        wishes: dict[str, object] = {}
        if asked.temperature is not None:
            wishes["temperature"] = asked.temperature
        if asked.max_tokens is not None:
            wishes["max_tokens"] = min(asked.max_tokens, self._settings.max_tokens)
        if asked.stop:
            wishes["stop"] = list(asked.stop)
        return wishes


async def check_model(model: BaseChatModel) -> None:
    """Returns where the model's server answers, whatever it lists. Says nothing about providers with no such question.

    Raises:
        ModelError: it can't be reached or refuses the key; the message says what to do.
    """
    if not isinstance(model, LeanChat):
        return
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await model.wire().check()
    except Exception as error:
        if _status(error) != 404:  # a server without such a list is one that answers
            raise model_error(error) from error


def tuned(model: BaseChatModel, **values: object) -> BaseChatModel:
    """A copy, over the same connections, with those of the values that this kind of model has a field for.

    A temperature is only changed, never added: models that take none (OpenAI's reasoning models) have None there.
    """
    known = {name: value for name, value in values.items() if name in type(model).model_fields}
    if getattr(model, "temperature", None) is None:
        known.pop("temperature", None)
    return model.model_copy(update=known)


async def stream_chat(
    model: BaseChatModel, messages: Sequence[BaseMessage], settings: ModelSettings
) -> AsyncGenerator[Chunk, None]:
    """The answer's pieces, none of them empty, then one without text that carries the whole usage. Pieces carry what
    the server has told so far, where it tells on the way.

    Raises:
        ModelError: see the tree in ``trendrag.errors``. Text that was yielded before it is all there will be; only
            where there was none, it may say ``retriable``.
    """
    waits = _Waits(settings)
    logprob, tokens = 0.0, 0
    usage = Usage()
    finish: str | None = None
    # BaseChatModel promises an iterator and gives a generator, which alone can be closed.
    stream = cast("AsyncGenerator[AIMessageChunk, None]", model.astream(list(messages)))
    async with aclosing(stream):
        while True:
            try:
                message = await _next(stream, waits)
            except ModelError as error:
                if finish is None:
                    error.retriable = error.retriable and not waits.begun
                    raise
                break  # the text is whole; only the usage is missing
            if message is None:
                break
            metadata = message.response_metadata
            finish = next((str(metadata[key]) for key in _FINISH_KEYS if metadata.get(key)), finish)
            usage += _usage(message)
            for value in _logprobs(metadata):
                logprob += value
                tokens += 1
            if text := str(message.text):
                waits.begun = True
                yield Chunk(text, logprob, tokens, usage if usage.prompt_tokens else None)
                logprob, tokens = 0.0, 0
    if finish is not None:
        finished(finish)
    if finish is None or finish in _CUT_OFF:
        raise ModelInterrupted("The model server ended its answer before the model had finished. Try again.")
    if finish in _WITHHELD:
        raise ModelRejected("The model server's content filter stopped the answer. Try another photo or note.")
    yield Chunk("", logprob, tokens, usage, cut=finish in _OUT_OF_TOKENS)


class _Waits:
    """By when a stream has to bring its next piece. Times are those of the event loop."""

    __slots__ = ("begun", "first_by", "now", "settings", "total_by")

    def __init__(self, settings: ModelSettings) -> None:
        self.now = asyncio.get_running_loop().time
        self.settings = settings
        self.begun = False  # text has come: a piece that only names the speaker may come long before the model's turn
        started = self.now()
        self.first_by = started + settings.first_token_timeout_s
        self.total_by = started + settings.total_timeout_s

    def until(self) -> float:
        return min(self.total_by, self.now() + self.settings.token_timeout_s if self.begun else self.first_by)

    def passed(self) -> ModelTimeout:
        """The error, once ``until`` has passed."""
        settings = self.settings
        if self.now() >= self.total_by:
            return ModelTimeout(
                f"The model did not finish within {settings.total_timeout_s:g} s (TRENDRAG_MODEL__TOTAL_TIMEOUT_S).",
                server_failed=not self.begun,  # else it may be a reader who takes the text slowly
            )
        if self.begun:
            return ModelTimeout(
                f"The model server was silent for {settings.token_timeout_s:g} s in the middle of its answer. It may "
                "be overloaded; if it is only slow, raise TRENDRAG_MODEL__TOKEN_TIMEOUT_S."
            )
        return ModelTimeout(
            f"The model server did not begin its answer within {settings.first_token_timeout_s:g} s. It may be "
            "overloaded; if it is only slow, raise TRENDRAG_MODEL__FIRST_TOKEN_TIMEOUT_S."
        )


async def _next(stream: AsyncGenerator["AIMessageChunk", None], waits: _Waits) -> "AIMessageChunk | None":
    """The next piece, None at the end. Its timeout never spans a ``yield``, where it could hit the wrong task."""
    try:
        async with asyncio.timeout_at(waits.until()) as limit:
            return await anext(stream, None)
    except TimeoutError as error:
        raise (waits.passed() if limit.expired() else model_error(error)) from error
    except TrendragError:
        raise
    except Exception as error:  # an integration may raise anything, and the port promises ModelError
        raise model_error(error) from error


def read_timeout_s(settings: ModelSettings) -> float:
    """For the HTTP client: just longer than any silence that ``stream_chat`` bounds, whose errors say more."""
    return max(settings.first_token_timeout_s, settings.token_timeout_s) + 1


def model_error(error: Exception) -> ModelError:
    """What a model library's exception means for the caller, in words that say what to do.

    Goes by the HTTP status, LangChain's provider-independent classes and the names of the causes, so that it serves
    every integration. Quotes the server (cleaned, capped), except on a refused key.
    """
    server = f"The model server{_address(error)}"
    said = f" It said: {quote}" if (quote := _quote(error)) else ""
    status = _status(error)
    if status in (401, 403):
        return ModelRejected(f"{server} refused the key (HTTP {status}). Check TRENDRAG_MODEL__API_KEY.")
    if status == 404:
        return ModelRejected(
            f"{server} does not know this model or path (HTTP 404). Check TRENDRAG_MODEL__NAME, and that "
            f"TRENDRAG_MODEL__BASE_URL ends in /v1.{said}"
        )
    if status in (429, 503):
        return ModelUnavailable(
            f"{server} is overloaded (HTTP {status}). Try again in a moment.{said}",
            retry_after=_retry_after(error),
            retriable=True,
            server_failed=status == 503,  # 429 is an answer to us, of a server that is well
        )
    if status is not None and status >= 500:
        return ModelUnavailable(
            f"{server} failed (HTTP {status}). Its log says why.{said}",
            retry_after=_retry_after(error),
            retriable=status in (502, 504),  # from a proxy, which may have another server
        )
    if status is not None:
        return ModelRejected(f"{server} refused the request (HTTP {status}).{said}")
    kinds = {type(cause).__name__ for cause in _causes(error)}
    if kinds & _UNREACHABLE:
        return ModelUnavailable(
            f"{server} can't be reached. Is it running? Check TRENDRAG_MODEL__BASE_URL.", retriable=True
        )
    if kinds & {"PoolTimeout"}:
        return ModelUnavailable(
            f"Too many requests wait for {server[0].lower()}{server[1:]}. Try again in a moment.", server_failed=False
        )
    if any(kind.endswith(("Timeout", "TimeoutError")) for kind in kinds):
        return ModelTimeout(
            f"{server} was silent for too long. It may be overloaded; if it is only slow, raise "
            "TRENDRAG_MODEL__TOKEN_TIMEOUT_S."
        )
    return ModelInterrupted(
        f"{server} broke off its answer ({type(error).__name__}). Try again.{said}", retriable=bool(kinds & _RESET)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _status(error: Exception) -> int | None:
    if isinstance(status := getattr(error, "status_code", None), int):
        return status
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)


def _retry_after(error: Exception) -> float | None:
    """Seconds, from the header Retry-After (RFC 9110, 10.2.3) of the answer that the exception carries; capped."""
    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is None:
            continue
        said = str(headers.get("retry-after", "")).strip()
        if said.isdecimal():
            return min(LONGEST_RETRY_AFTER_S, float(said[:9]))
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # absent, no date, or one without a time zone
            return None
        return min(LONGEST_RETRY_AFTER_S, max(0.0, seconds))
    return None


def _address(error: Exception) -> str:
    """ " at http://host:port/path", from the request that the exception carries, without a query or a password."""
    for cause in _causes(error):
        try:
            parts = urlsplit(str(cause.request.url))  # type: ignore[attr-defined] # only some exceptions have one
        except (AttributeError, RuntimeError):  # httpx raises the latter where no request was attached
            continue
        path = parts.path.removesuffix("/chat/completions").removesuffix("/models")
        return f" at {parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
    return ""


def _quote(error: Exception) -> str:
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    return clean_line(said, 300) if isinstance(said, str) else ""


def _usage(message: "AIMessageChunk") -> Usage:
    found = message.usage_metadata
    if not found:
        return Usage()
    return Usage(
        prompt_tokens=found["input_tokens"],
        cached_tokens=found.get("input_token_details", {}).get("cache_read") or 0,
        completion_tokens=found["output_tokens"],
    )


def _logprobs(metadata: dict[str, Any]) -> Iterator[float]:
    """Natural logarithms in [MIN_LOGPROB, 0], one per token. Rounding may have put a server's slightly above 0."""
    logprobs = metadata.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    for token in content or ():
        value = token.get("logprob") if isinstance(token, dict) else None
        if isinstance(value, int | float) and not math.isnan(value):
            yield max(MIN_LOGPROB, min(0.0, float(value)))
