"""What is counted, in a registry of the application's own. Names and labels here, and nowhere else.

Labels hold values from small fixed sets only: route templates, never paths; codes, never messages.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.child import Child
from trendrag.types import CandidateDone, CaptionEvent, Done, Failed, SnapshotInfo, TrendsRetrieved

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)


class Metrics:
    """Fed by the middleware (requests) and by the routes (caption events)."""

    def __init__(self, now: Callable[[], datetime], schedule: Child | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.snapshot: Callable[[], SnapshotInfo | None] = lambda: None
        """Asked at each scrape; set once the service is open."""
        labels = ("method", "route", "status")
        self._requests = Counter("trendrag_http_requests", "Requests answered", labels, registry=self.registry)
        self._latency = Histogram(
            "trendrag_http_request_seconds",
            "Time to the end of the answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("trendrag_captions_in_flight", "Captions being written", registry=self.registry)
        self._captions = Counter("trendrag_captions", "Caption requests completed", registry=self.registry)
        self._candidates = Counter("trendrag_candidates", "Captions written", registry=self.registry)
        self._failures = Counter("trendrag_failures", "Caption requests that failed", ("code",), registry=self.registry)
        self._left = Counter("trendrag_clients_left", "Clients gone before their answer's end", registry=self.registry)
        self._first_token = Histogram(
            "trendrag_first_token_seconds", "Time to a caption's first text", buckets=_SECONDS, registry=self.registry
        )
        self._total = Histogram(
            "trendrag_caption_seconds", "Time to the last candidate's end", buckets=_SECONDS, registry=self.registry
        )
        self._trends = Histogram(
            "trendrag_trends_retrieved",
            "Trends offered to the model for an image; bucket 0 counts those where none fitted",
            buckets=(0, 1, 2, 4, 8),
            registry=self.registry,
        )
        self._judged = Counter(
            "trendrag_trends_judged",
            "The model's last looks at trends found: it chose some, chose none, or failed",
            ("outcome",),
            registry=self.registry,
        )
        self._judge_seconds = Histogram(
            "trendrag_judge_seconds", "Time for the model's last look", buckets=_SECONDS, registry=self.registry
        )
        self.registry.register(_SnapshotCollector(self, now))
        if schedule:
            self.registry.register(_ChildCollector(schedule))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def event(self, event: CaptionEvent) -> None:
        match event:
            case TrendsRetrieved():
                self._trends.observe(len(event.trends))
                if event.judged:
                    chose = "some" if event.trends else "none"
                    self._judged.labels(chose if event.judged == "model" else "failed").inc()
            case CandidateDone():
                self._candidates.inc()
            case Done():
                self._captions.inc()
                self._total.observe(event.timings.total)
                if event.timings.first_token is not None:
                    self._first_token.observe(event.timings.first_token)
                if event.timings.judge is not None:
                    self._judge_seconds.observe(event.timings.judge)
            case Failed():
                self._failures.labels(event.code).inc()
            case _:
                pass

    def client_left(self) -> None:
        self._left.inc()

    def text(self) -> bytes:
        """Everything in the Prometheus text format, content type ``CONTENT_TYPE``."""
        return generate_latest(self.registry)


class _SnapshotCollector(Collector):
    """Ages are those of the moment of the scrape."""

    def __init__(self, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._now = now

    def collect(self) -> Iterator[Metric]:
        snapshot = self._metrics.snapshot()
        origin = GaugeMetricFamily("trendrag_snapshot", "1 for the origin of the trends in use", labels=("origin",))
        for name in ("live", "sample", "none"):
            origin.add_metric((name,), float(name == (snapshot.origin if snapshot else "none")))
        yield origin
        if snapshot is None:
            return
        now = self._now()
        yield GaugeMetricFamily("trendrag_snapshot_trends", "Trends in use", value=snapshot.count)
        written = (now - snapshot.created_at).total_seconds()
        yield GaugeMetricFamily("trendrag_snapshot_age_seconds", "Time since it was written", value=written)
        if snapshot.recorded_at is not None:
            seen = (now - snapshot.recorded_at).total_seconds()
            yield GaugeMetricFamily("trendrag_trends_age_seconds", "Time since its newest trend was seen", value=seen)


class _ChildCollector(Collector):
    def __init__(self, schedule: Child) -> None:
        self._schedule = schedule

    def collect(self) -> Iterator[Metric]:
        up, restarts = float(self._schedule.up), self._schedule.restarts
        yield GaugeMetricFamily("trendrag_schedule_up", "1 while the schedule's process runs", value=up)
        yield CounterMetricFamily("trendrag_schedule_restarts", "How often it was started again", value=restarts)
