"""Spans of captions: their tree, what they tell and what they never tell, and that they get to a collector."""

import asyncio
import json
import os
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, cast

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, Tracer

from serving.service import open_service
from serving.telemetry import traced
from serving.tracing import exporting
from tests.fakes import FakeJudge, FakeWriter
from tests.serving.conftest import LogLines
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.faulty_server import WORDS, FaultyServer, serving
from tests.serving.running import KEY, asked_for, settings_for, the_app
from trendrag.chain import build_caption_chain
from trendrag.errors import ConfigurationError, ModelInterrupted, ModelTimeout
from trendrag.settings import ModelSettings, Settings
from trendrag.types import CaptionEvent, CaptionRequest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"
NOTE = "grandmother's secret recipe for plum dumplings"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


@dataclass
class TracedFakes(FakeService):
    """Its steps are told to a tracer, as those of ``open_service`` are."""

    tracer: Tracer = field(default_factory=NoOpTracer)

    def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        ports = (self.describer, self.retriever, self.writer, self.judge)
        chain = build_caption_chain(*traced(ports, self.tracer, ModelSettings()))
        return cast("AsyncGenerator[CaptionEvent, None]", chain.astream(request))


def tree(spans: tuple[ReadableSpan, ...]) -> dict[str, list[str]]:
    """Names of the spans under each name; those of one parent in alphabetical order."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    under: dict[str, list[str]] = {}
    for span in spans:
        parent = names.get(span.parent.span_id, "caller") if span.parent else "nobody"
        under.setdefault(parent, []).append(span.name)
    return {parent: sorted(children) for parent, children in under.items()}


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("path", ["/api/v1/caption", "/api/v1/caption/stream"])
async def test_the_tree_of_a_caption_continues_the_callers_trace(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter, path: str
) -> None:
    service = TracedFakes(tracer=tracer, judge=FakeJudge(frozenset({0})))
    async with the_app(settings, service, tracer) as url, httpx2.AsyncClient(timeout=60) as client:
        await client.post(url + path, json=asked_for(candidates=2), headers={"traceparent": CALLER})
        for probe in ("/healthz", "/readyz", "/metrics"):
            await client.get(url + probe)
    spans = exporter.get_finished_spans()
    assert tree(spans) == {
        "caller": [f"POST {path}"],
        f"POST {path}": ["caption"],
        "caption": ["describe", "judge", "retrieve", "write", "write"],
    }
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE}
    request = named(exporter, f"POST {path}")
    assert request.kind is SpanKind.SERVER
    assert attributes(request)["http.route"] == path
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(named(exporter, "caption")) | {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.usage.input_tokens": 260,
        "gen_ai.usage.output_tokens": 13,
        "trendrag.trends.offered": 1,
        "trendrag.description": "model",
    } == attributes(named(exporter, "caption"))
    assert sorted(attributes(span)["trendrag.candidate"] for span in spans if span.name == "write") == [0, 1]
    assert all([event.name for event in span.events] == ["first_token"] for span in spans if span.name == "write")


async def test_two_captions_at_once_keep_their_steps_apart(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    async with the_app(settings, TracedFakes(tracer=tracer), tracer) as url, httpx2.AsyncClient(timeout=60) as client:
        await asyncio.gather(
            *(client.post(f"{url}/api/v1/caption/stream", json=asked_for(NOTE, candidates=3)) for _ in range(5))
        )
    spans = exporter.get_finished_spans()
    traces = {span.context.trace_id for span in spans if span.context}
    assert len(traces) == 5
    for trace in traces:
        of_one = tuple(span for span in spans if span.context and span.context.trace_id == trace)
        assert tree(of_one)["caption"] == ["retrieve", "write", "write", "write"]
        assert len(of_one) == 6


async def test_a_failure_marks_its_step_and_quotes_nothing(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    service = TracedFakes(
        tracer=tracer, writer=FakeWriter(error=ModelInterrupted(NOTE)), judge=FakeJudge(error=ModelTimeout(NOTE))
    )
    async with the_app(settings, service, tracer) as url, httpx2.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{url}/api/v1/caption", json=asked_for())
    assert answer.status_code == 502
    told = {span.name: (span.status.status_code, attributes(span).get("error.type")) for span in spans_of(exporter)}
    assert told == {
        "POST /api/v1/caption": (StatusCode.ERROR, "502"),
        "caption": (StatusCode.ERROR, "model_interrupted"),
        "describe": (StatusCode.UNSET, None),
        "retrieve": (StatusCode.UNSET, None),
        "judge": (StatusCode.ERROR, "model_timeout"),
        "write": (StatusCode.ERROR, "model_interrupted"),
    }
    assert not any("dumplings" in span.to_json() for span in spans_of(exporter))


def spans_of(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, ...]:
    return exporter.get_finished_spans()


async def until(answer: httpx2.Response, text: str) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        yield line
        if text in line:
            return


async def test_a_client_that_leaves_ends_all_spans_and_is_no_error(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    writer = GatedWriter()
    async with the_app(settings, TracedFakes(tracer=tracer, writer=writer), tracer) as url:
        async with (
            httpx2.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{url}/api/v1/caption/stream", json=asked_for()) as answer,
        ):
            assert "delta" in [line async for line in until(answer, "event: delta")][-1]
        await writer.closed.wait()
    left = {span.name: (span.status.status_code, attributes(span).get("error.type")) for span in spans_of(exporter)}
    assert left["caption"] == (StatusCode.UNSET, "client_left")
    assert left["write"] == (StatusCode.UNSET, "cancelled")
    assert len(left) == 5


@asynccontextmanager
async def in_front_of(model: FaultyServer, settings: Settings, tracer: Tracer | None) -> AsyncIterator[str]:
    settings = settings_for(settings, model.base_url)
    async with open_service(settings, tracer) as service, the_app(settings, service, tracer) as url:
        yield url


async def test_the_model_server_is_told_which_span_asks(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    headers = {"traceparent": CALLER, "tracestate": "shop=1", "baggage": "user=ann"}
    async with (
        serving(FaultyServer()) as model,
        in_front_of(model, settings, tracer) as url,
        httpx2.AsyncClient(timeout=60) as client,
    ):
        await client.post(f"{url}/api/v1/caption", json=asked_for("hi"), headers=headers)
    described, written = model.headers
    for name, sent in (("describe", described), ("write", written)):
        span = named(exporter, name)
        assert span.context
        assert span.kind is SpanKind.CLIENT
        assert sent["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
        assert sent["tracestate"] == "shop=1"
        assert "baggage" not in sent
    told = attributes(named(exporter, "write"))
    port = int(model.base_url.rpartition(":")[2].removesuffix("/v1"))
    first = told.pop("gen_ai.response.time_to_first_chunk")
    assert first > 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.8,
        "gen_ai.request.max_tokens": 256,
        "server.address": "127.0.0.1",
        "server.port": port,
        "trendrag.candidate": 0,
        "trendrag.trends.offered": 0,
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 96,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("stop",),
    }


async def test_without_a_tracer_the_callers_trace_goes_through_and_is_in_the_log(
    settings: Settings, log_lines: LogLines
) -> None:
    async with (
        serving(FaultyServer()) as model,
        in_front_of(model, settings, None) as url,
        httpx2.AsyncClient(timeout=60) as client,  # whose requests go down one connection
    ):
        await client.post(f"{url}/api/v1/caption", json=asked_for("hi"), headers={"traceparent": CALLER})
        await client.post(f"{url}/api/v1/caption", json=asked_for("ho"), headers={"traceparent": "00-nonsense"})
    assert [sent.get("traceparent") for sent in model.headers] == [CALLER, CALLER, None]
    lines = [line.get("trace_id") for line in log_lines() if line["message"].startswith("caption:")]
    assert lines == [TRACE, None]


async def test_no_note_caption_image_or_key_is_in_a_span(
    settings: Settings, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    body = asked_for(NOTE)
    for fault in ("none", "status", "drop"):
        async with (
            serving(FaultyServer(fault, message=f"can't read {NOTE}")) as model,
            in_front_of(model, settings, tracer) as url,
            httpx2.AsyncClient(timeout=60) as client,
        ):
            await client.post(f"{url}/api/v1/caption/stream?q=dumplings", json=body, headers={"X-API-Key": KEY})
            await client.get(f"{url}/dumplings", headers={"X-API-Key": KEY})
    said = json.dumps([span.to_json() for span in spans_of(exporter)])
    for secret in (KEY, "dumplings", "recipe", str(body["image"])[:60], *WORDS):
        assert secret.strip() not in said


@contextmanager
def collector() -> Iterator[tuple[str, "Queue[ExportTraceServiceRequest]"]]:
    """An OTLP collector on loopback: its address, and what it was sent."""
    sent: Queue[ExportTraceServiceRequest] = Queue()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            sent.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_trendrag_serve_sends_its_spans_and_logs_json(settings: Settings) -> None:
    settings = settings_for(settings, "")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRENDRAG_", "OTEL_"))}
    with collector() as (endpoint, sent):
        async with serving(FaultyServer()) as model:
            ours = {
                "TRENDRAG_DATA_DIR": str(settings.data_dir),
                "TRENDRAG_MODEL__PROVIDER": "openai",
                "TRENDRAG_MODEL__BASE_URL": model.base_url,
                "TRENDRAG_MODEL__NAME": "tiny",
                "TRENDRAG_MODEL__API_KEY": KEY,
                "TRENDRAG_LOG__FORMAT": "json",
                "TRENDRAG_LOG__LEVEL": "debug",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            }
            command = Path(sys.executable).parent / "trendrag"
            process = await asyncio.create_subprocess_exec(
                command, "serve", "--port", "0", env=environment | ours, stderr=PIPE
            )
            assert process.stderr
            try:
                async with asyncio.timeout(60):
                    said = (await process.stderr.readuntil(b"(Ctrl-C stops it)\n")).decode()
                    url = said.split("TrendRAG is at ")[1].split()[0]
                    async with httpx2.AsyncClient(timeout=60) as client:
                        answer = await client.post(f"{url}/api/v1/caption", json=asked_for(NOTE))
                    assert answer.status_code == 200
                    process.terminate()
                    rest = (await process.stderr.read()).decode()
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    spans, resource = [], {}
    while not sent.empty():
        for group in sent.get().resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            spans += [span for scope in group.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"POST /api/v1/caption", "caption", "retrieve", "write"}
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("trendrag", "test")
    lines = [json.loads(line) for line in rest.splitlines()]
    (line,) = [line for line in lines if line["message"] == "caption: done"]
    assert bytes.fromhex(line["trace_id"]) == spans[0].trace_id
    assert KEY not in said + rest
    assert "dumplings" not in said + rest


def test_no_collector_no_tracer() -> None:
    for environment in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SDK_DISABLED": "true", **ENDPOINT}):
        with exporting(environment) as tracer:
            assert tracer is None


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def test_what_is_missing_for_traces_is_said() -> None:
    with (
        pytest.raises(ConfigurationError, match="4318"),
        exporting({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
    ):
        pass


def test_traces_without_their_extra_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"trendrag\[otel\]"), exporting(ENDPOINT):
        pass
