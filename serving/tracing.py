"""Where spans go: to the collector that OpenTelemetry's own environment variables name, by OTLP over HTTP.

The one place that knows OpenTelemetry's SDK, which is an extra. Nothing is registered globally: the tracer is a value.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread

from opentelemetry.trace import Tracer

from trendrag.errors import ConfigurationError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"

FLUSH_S = 3.0
"""Longest time at the end for spans that were not sent yet; a collector that is away holds up no restart."""


@contextmanager
def exporting(environ: Mapping[str, str]) -> Iterator[Tracer | None]:
    """A tracer whose spans are sent, in the background, for as long as this is open; None where no collector is named.

    The SDK reads the rest of its variables itself: headers, timeouts, the sampler, resource attributes.

    Raises:
        ConfigurationError: a collector is named, and the SDK is not installed or the protocol is another.
    """
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if endpoint is None or off:
        yield None
        return
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _HTTP)
    if protocol != _HTTP:
        raise ConfigurationError(
            f"Traces are sent by OTLP over HTTP. Unset {' and '.join(_PROTOCOLS)} or set them to {_HTTP}, and name "
            "the collector's HTTP port, which is 4318 as a rule."
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  an extra
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "Traces need a few packages more: pip install 'trendrag[otel]'. Or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from error
    ours = {"service.name": "trendrag", "service.version": version("trendrag")}
    resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("trendrag", version("trendrag"))
    finally:
        # A thread of its own, that may be left behind: shutting down waits for a collector that does not answer.
        flushing = Thread(target=provider.shutdown, name="last-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)
