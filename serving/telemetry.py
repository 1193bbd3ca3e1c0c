"""Spans over a caption's steps, for whoever collects traces: OpenTelemetry's API, its GenAI conventions where they fit.

    POST /api/v1/caption            server, continues the caller's `traceparent`
      caption                       all of one request's events
        describe                    client, where the model was asked what the photo shows
        retrieve
        judge                       client, where there is one
        write                       client, one a candidate, with a `first_token` event

Without a tracer none of this is composed in, and what is left costs nothing: a caller's `traceparent` is still handed
on to the model server. Attributes hold names, counts, ids of snapshots and codes of errors; never a note, a caption, a
query, a trend's text, an image, a key or an error's message, which may quote one of them.

A span is ended by who began it and is current only while that one waits for something: never across a ``yield``, where
a generator's context is its reader's. The names are strings here, since the conventions' Python constants are
deprecated while these have moved to a repository of their own.
"""

import time
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Iterator, Mapping, MutableMapping
from contextlib import aclosing, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trendrag.errors import TrendragError
from trendrag.ports import Chunk, Describer, Description, Judge, Judgement, Retriever, Writer
from trendrag.settings import ModelSettings
from trendrag.types import (
    CaptionEvent,
    CaptionRequest,
    Described,
    Done,
    PreparedImage,
    Retrieval,
    RetrievedTrend,
    TrendFilters,
    TrendsRetrieved,
    Usage,
)

Attributes = Mapping[str, str | int | float | bool]
T = TypeVar("T")

METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: no spans, and lines in the log at DEBUG only."""

# W3C trace context alone: baggage is whatever a caller likes to send, and not ours to pass on.
_W3C = TraceContextTextMapPropagator()

DONE = "done"
CLIENT_LEFT = "client_left"
"""How a request ends; else with a code of ``trendrag.errors``."""


@contextmanager
def server_span(
    tracer: Tracer | None, method: str, path: str, headers: Mapping[str, str], attributes: Attributes
) -> Iterator[Span]:
    """The span of one HTTP request, current within. Without a tracer it is the caller's own, where they sent one."""
    context = Context()
    if parent := headers.get("traceparent"):
        context = _W3C.extract({"traceparent": parent, "tracestate": headers.get("tracestate", "")}, context)
    if tracer is None or path in PROBES:
        span = trace.get_current_span(context)
    else:
        known = method if method in METHODS else "_OTHER"
        about = {"http.request.method": known, "url.scheme": "http", **attributes}
        span = tracer.start_span(method if method in METHODS else "HTTP", context, SpanKind.SERVER, about)
    token = attach(trace.set_span_in_context(span, context))
    try:
        yield span
    finally:
        detach(token)
        span.end()


def answered(span: Span, method: str, route: str, status: int) -> None:
    """What is known of a request once it was answered: its route, never its path, and its status (0: none was sent).
    ``method`` is one of HTTP's, or "other"."""
    if not span.is_recording():
        return
    span.update_name(f"{method if method in METHODS else 'HTTP'} {route}")
    span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def trace_id(span: Span) -> str | None:
    """32 hexadecimal digits, None where nobody traces."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def trace_headers(headers: MutableMapping[str, str]) -> None:
    """Adds the `traceparent` of the current span, where there is one, to a call of the model server."""
    _W3C.inject(headers)


def finished(reason: str) -> None:
    """Tells the current span why the model stopped: `stop`, `length` …"""
    trace.get_current_span().set_attribute("gen_ai.response.finish_reasons", [reason[:32]])


class CaptionSpan:
    """``serving.watched.Watch`` that keeps one request's span."""

    def __init__(self, tracer: Tracer, request: CaptionRequest) -> None:
        self.span = tracer.start_span(
            "caption",
            attributes={
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": "caption",
                "gen_ai.request.choice.count": request.candidates,
                "gen_ai.output.type": "text",
                "trendrag.trends.wanted": request.trends,
            },
        )

    def event(self, event: CaptionEvent) -> None:
        match event:
            case Described():
                self.span.set_attribute("trendrag.description", event.source)
            case TrendsRetrieved():
                self.span.set_attribute("trendrag.trends.offered", len(event.trends))
                if event.snapshot:
                    self.span.set_attribute("trendrag.snapshot", event.snapshot.id)
                if event.judged:
                    self.span.set_attribute("trendrag.judged", event.judged)
            case Done():
                if event.timings.first_token is not None:
                    self.span.set_attribute("gen_ai.response.time_to_first_chunk", event.timings.first_token)
                _used(self.span, event.usage)
                self.span.set_attribute("gen_ai.response.model", event.model)
                self.span.set_attribute("trendrag.draft", event.draft)
            case _:
                pass

    def end(self, outcome: str) -> None:
        if outcome == CLIENT_LEFT:
            self.span.set_attribute("error.type", outcome)
        elif outcome != DONE:
            _failed(self.span, outcome)
        self.span.end()


Ports = tuple[Describer, Retriever, Writer, Judge | None]
"""What a chain is built of, in the order in which ``build_caption_chain`` takes them."""


def traced(ports: Ports, tracer: Tracer, settings: ModelSettings) -> Ports:
    """The ports, each with a span around what it does. ``settings`` say what the model behind them is."""
    describer, retriever, writer, judge = ports
    asked = _model(settings.provider, writer.name)
    describing: Attributes = {}  # the embedded engine's tagger is no language model: its span says nothing of one
    writing, kind = asked, SpanKind.INTERNAL
    if settings.provider != "embedded":
        describing = asked = {**asked, **_server(settings.base_url)}
        writing, kind = {**asked, "gen_ai.request.stream": True, **_sampling(settings)}, SpanKind.CLIENT
    return (
        TracedDescriber(describer, tracer, describing, kind),
        TracedRetriever(retriever, tracer),
        TracedWriter(writer, tracer, writing, kind),
        TracedJudge(judge, tracer, asked, kind) if judge else None,
    )


class TracedDescriber:
    """``trendrag.ports.Describer`` with a span a description."""

    def __init__(self, describer: Describer, tracer: Tracer, about: Attributes, kind: SpanKind) -> None:
        self._describer, self._tracer, self._about, self._kind = describer, tracer, about, kind

    @property
    def always(self) -> bool:
        return self._describer.always

    async def describe(self, image: PreparedImage) -> Description:
        with _step(self._tracer, "describe", self._about, self._kind) as span:
            description = await self._describer.describe(image)
            _used(span, description.usage)
            return description


class TracedRetriever:
    """``trendrag.ports.Retriever`` with a span a query."""

    def __init__(self, retriever: Retriever, tracer: Tracer) -> None:
        self._retriever, self._tracer = retriever, tracer

    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        with _step(self._tracer, "retrieve", {"gen_ai.operation.name": "retrieval"}) as span:
            retrieval = await self._retriever.retrieve(query, filters)
            span.set_attribute("trendrag.trends.found", len(retrieval.trends))
            if retrieval.snapshot:
                span.set_attribute("gen_ai.data_source.id", retrieval.snapshot.id)
            return retrieval


class TracedJudge:
    """``trendrag.ports.Judge`` with a span a look."""

    def __init__(self, judge: Judge, tracer: Tracer, about: Attributes, kind: SpanKind) -> None:
        self._judge, self._tracer, self._about, self._kind = judge, tracer, about, kind

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        about = {**self._about, "trendrag.trends.found": len(trends)}
        with _step(self._tracer, "judge", about, self._kind) as span:
            judgement = await self._judge.judge(request, trends)
            span.set_attribute("trendrag.trends.chosen", len(judgement.chosen))
            _used(span, judgement.usage)
            return judgement


class TracedWriter:
    """``trendrag.ports.Writer`` with a span a candidate."""

    def __init__(self, writer: Writer, tracer: Tracer, about: Attributes, kind: SpanKind) -> None:
        self._writer, self._tracer, self._about, self._kind = writer, tracer, about, kind

    @property
    def name(self) -> str:
        return self._writer.name

    @property
    def draft(self) -> bool:
        return self._writer.draft

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        started, first = time.perf_counter(), True
        about = {**self._about, "trendrag.candidate": candidate, "trendrag.trends.offered": len(trends)}
        span = self._tracer.start_span("write", kind=self._kind, attributes=about)
        usage: Usage | None = None
        try:
            async with aclosing(within(span, self._writer.write(request, description, trends, candidate))) as chunks:
                async for chunk in chunks:
                    if first and chunk.text:
                        first = False
                        _first_token(span, time.perf_counter() - started)
                    usage = chunk.usage or usage
                    yield chunk
        except BaseException as error:
            _broke(span, error)
            raise
        finally:
            if usage:
                _used(span, usage)
            span.end()


async def within(span: Span, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items, each made while the span is current. Closing this closes them."""
    context = trace.set_span_in_context(span)
    async with aclosing(items):
        while True:
            token = attach(context)
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            finally:
                detach(token)
            yield item


@contextmanager
def _step(tracer: Tracer, name: str, about: Attributes, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
    span = tracer.start_span(name, kind=kind, attributes=about)
    token = attach(trace.set_span_in_context(span))
    try:
        yield span
    except BaseException as error:
        _broke(span, error)
        raise
    finally:
        detach(token)
        span.end()


def _model(provider: str, name: str) -> Attributes:
    return {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": name}


def _sampling(settings: ModelSettings) -> Attributes:
    return {"gen_ai.request.temperature": settings.temperature, "gen_ai.request.max_tokens": settings.max_tokens}


def _server(base_url: str | None) -> Attributes:
    parts = urlsplit(base_url or "")
    if not parts.hostname:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}


def _used(span: Span, usage: Usage) -> None:
    span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
    span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)


def _first_token(span: Span, seconds: float) -> None:
    span.add_event("first_token")
    span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)


def _broke(span: Span, error: BaseException) -> None:
    """Marks what ended a step. That nobody reads on is no failure of it."""
    if isinstance(error, CancelledError | GeneratorExit):
        span.set_attribute("error.type", "cancelled")
    else:
        _failed(span, error.code if isinstance(error, TrendragError) else type(error).__qualname__)


def _failed(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))
