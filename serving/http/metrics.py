"""What is counted, in a registry of the application's own. Names and labels here, and nowhere else.

Labels hold values from small fixed sets only: route templates, never paths; codes, never messages. The registry is
this process's: `trendrag serve` is one process with one event loop, and several servers are told apart by Prometheus'
`instance`. docs/operating.md explains each metric; the dashboard and the alerts of deploy/ are checked against these.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.child import Child
from serving.telemetry import CLIENT_LEFT, DONE
from trendrag.errors import TrendragError
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Described,
    Done,
    Highlight,
    SnapshotInfo,
    TrendsRetrieved,
)

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OTHER = "other"

# Seconds. A person waits for the first word, so its buckets are dense between 0.2 and 3; a whole caption on a busy GPU
# takes up to a minute; retrieval is a few milliseconds, and a page's request anything.
_REQUEST = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
_RETRIEVE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ONE_ANSWER = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_FIRST_TOKEN = (*_ONE_ANSWER, 20.0, 60.0)
_CAPTION = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 180.0)
_WAIT = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

Reading = float | Mapping[str, float] | str
"""What a part answers when it is asked at a scrape: a number; one for each value of its label; or which value holds."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A metric that another part keeps, and that is read at each scrape.

    ``values`` are those its ``label`` takes; others are summed as "other", so that no caller can make up series.
    """

    kind: Literal["counter", "gauge"]
    what: str
    label: str = ""
    values: tuple[str, ...] = ()


WATCHED: Mapping[str, Watched] = {
    "trendrag_breaker": Watched(
        "gauge", "1 for the state of the circuit breaker", "state", ("closed", "half_open", "open")
    ),
    "trendrag_queue_length": Watched("gauge", "Captions that wait for the model"),
    "trendrag_queue_capacity": Watched("gauge", "How many may wait; more are refused"),
    "trendrag_model_retries": Watched("counter", "Calls of the model made again, before their first token"),
    "trendrag_cache_hits": Watched(
        "counter", "Answers found in a cache", "cache", ("description", "image", "caption", "query", "key")
    ),
    "trendrag_cache_misses": Watched(
        "counter", "Answers looked for in a cache in vain", "cache", ("description", "image", "caption", "query", "key")
    ),
    "trendrag_rate_limited": Watched(
        "counter", "Requests refused by a limit", "limit", ("rate", "quota", "concurrency")
    ),
    "trendrag_jobs": Watched("gauge", "Jobs by state", "state", ("queued", "running", "done", "failed", "cancelled")),
}
"""What parts that count for themselves are watched as, with ``Metrics.watch``."""


class Metrics:
    """Fed by the middleware (requests) and by the service's streams (captions)."""

    def __init__(self, now: Callable[[], datetime], schedule: Child | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.snapshot: Callable[[], SnapshotInfo | None] = lambda: None
        """Asked at each scrape; set once the service is open."""
        self.redis_up: Callable[[], bool | None] = lambda: None
        """The same; None where there is no Redis."""
        self._requests = self._counter("trendrag_http_requests", "Requests answered", "method", "route", "status")
        self._latency = self._histogram("trendrag_http_request_seconds", "Time to the answer's end", _REQUEST, "route")
        self.in_flight = Gauge("trendrag_captions_in_flight", "Captions being written", registry=self.registry)
        self._history = self._counter("trendrag_history", "Finished captions that were kept, or lost", "outcome")
        self.at_most = Gauge(
            "trendrag_captions_in_flight_limit", "How many may be written at once", registry=self.registry
        )
        self.waited = self._histogram("trendrag_queue_wait_seconds", "Time that a caption waited for the model", _WAIT)
        """Observed by the queue, in seconds."""
        self._captions = self._counter("trendrag_captions", "Caption requests completed, by who wrote", "writer")
        self._candidates = self._counter(
            "trendrag_candidates",
            "Captions written: with a trend, without though some were offered, with none offered, with trends off",
            "trends",
        )
        self._highlights = self._counter("trendrag_highlights", "Trend mentions marked in captions")
        self._failures = self._counter("trendrag_failures", "Caption requests that failed", "code")
        self._left = self._counter("trendrag_clients_left", "Clients gone before their answer's end")
        self._prompt = self._counter("trendrag_prompt_tokens", "Tokens of prompts, images included")
        self._cached = self._counter("trendrag_cached_tokens", "Those of them that the model server had cached")
        self._completion = self._counter("trendrag_completion_tokens", "Tokens written")
        self._descriptions = self._counter(
            "trendrag_descriptions", "Where it was learnt what a photo shows: model, cache or note", "source"
        )
        self._describe_seconds = self._histogram(
            "trendrag_describe_seconds", "Time in which the model described a photo", _ONE_ANSWER
        )
        self._retrieve_seconds = self._histogram("trendrag_retrieve_seconds", "Time to find trends", _RETRIEVE)
        self._judge_seconds = self._histogram(
            "trendrag_judge_seconds", "Time for the model's last look at trends", _ONE_ANSWER
        )
        self._first_token = self._histogram(
            "trendrag_first_token_seconds", "Time to a caption's first text", _FIRST_TOKEN
        )
        self._total = self._histogram("trendrag_caption_seconds", "Time to the last candidate's end", _CAPTION)
        self._trends = self._histogram(
            "trendrag_trends_retrieved",
            "Trends offered to the model for an image; bucket 0 counts those where none fitted",
            (0, 1, 2, 4, 8),
        )
        self._judged = self._counter(
            "trendrag_trends_judged", "The model's last looks at trends found: some, none, or failed", "outcome"
        )
        # From the start, so that the first of each is an increase and not a series that begins at 1.
        for writer in ("model", "draft"):
            self._captions.labels(writer)
        for use in ("used", "unused", "none", "off"):
            self._candidates.labels(use)
        self._codes = frozenset(_codes())
        for code in self._codes:
            self._failures.labels(code)
        build = Gauge("trendrag_build", "1, with the version that runs", ("version",), registry=self.registry)
        build.labels(version("trendrag")).set(1)
        ProcessCollector(registry=self.registry)
        self.registry.register(_SnapshotCollector(self, now))
        if schedule:
            self.registry.register(_ChildCollector(schedule))

    def watch(self, name: str, read: Callable[[], Reading]) -> Callable[[], None]:
        """Shows one of ``WATCHED``, until what is answered is called. ``read`` is asked at each scrape, on the event
        loop: it must not wait.

        Raises:
            KeyError: no such name is planned.
            ValueError: it is shown already.
        """
        collector = _WatchedCollector(name, WATCHED[name], read)
        self.registry.register(collector)
        return lambda: self.registry.unregister(collector)

    def caption(self, request: CaptionRequest) -> "CaptionCount":
        """Counts one request, to be fed with its events."""
        return CaptionCount(self, wanted=request.trends)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """``method`` is one of HTTP's, or "other"."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def described(self, event: Described) -> None:
        self._descriptions.labels(event.source).inc()

    def retrieved(self, event: TrendsRetrieved) -> None:
        self._trends.observe(len(event.trends))
        if event.judged:
            chose = "some" if event.trends else "none"
            self._judged.labels(chose if event.judged == "model" else "failed").inc()

    def highlighted(self) -> None:
        self._highlights.inc()

    def written(self, trends: Literal["used", "unused", "none", "off"]) -> None:
        self._candidates.labels(trends).inc()

    def done(self, event: Done, *, described: bool, retrieved: bool) -> None:
        """``described`` and ``retrieved`` say whether these steps took place, and their times mean anything."""
        timings, usage = event.timings, event.usage
        self._captions.labels("draft" if event.draft else "model").inc()
        self._prompt.inc(usage.prompt_tokens)
        self._cached.inc(usage.cached_tokens)
        self._completion.inc(usage.completion_tokens)
        self._total.observe(timings.total)
        for histogram, seconds in (
            (self._describe_seconds, timings.describe if described else None),
            (self._retrieve_seconds, timings.retrieve if retrieved else None),
            (self._judge_seconds, timings.judge),
            (self._first_token, timings.first_token),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def failed(self, code: str) -> None:
        self._failures.labels(code if code in self._codes else _OTHER).inc()

    def history(self, outcome: Literal["kept", "lost"]) -> None:
        self._history.labels(outcome).inc()

    def client_left(self) -> None:
        self._left.inc()

    def text(self) -> bytes:
        """Everything in the Prometheus text format, content type ``CONTENT_TYPE``."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, what, labels, buckets=buckets, registry=self.registry)


class CaptionCount:
    """``serving.watched.Watch`` that counts one request."""

    def __init__(self, metrics: Metrics, *, wanted: bool) -> None:
        self._metrics = metrics
        self._wanted = wanted
        self._offered = False
        self._described = False

    def event(self, event: CaptionEvent) -> None:
        match event:
            case Described():
                self._described = event.source == "model"
                self._metrics.described(event)
            case TrendsRetrieved():
                self._offered = bool(event.trends)
                if self._wanted:
                    self._metrics.retrieved(event)
            case Highlight():
                self._metrics.highlighted()
            case CandidateDone():
                offered: Literal["none", "off"] = "none" if self._wanted else "off"
                used: Literal["used", "unused"] = "used" if event.trend_ids else "unused"
                self._metrics.written(used if self._offered else offered)
            case Done():
                self._metrics.done(event, described=self._described, retrieved=self._wanted)
            case _:
                pass

    def end(self, outcome: str) -> None:
        if outcome == CLIENT_LEFT:
            self._metrics.client_left()
        elif outcome != DONE:
            self._metrics.failed(outcome)


def _codes(kind: type[TrendragError] = TrendragError) -> Iterator[str]:
    yield kind.code
    for each in kind.__subclasses__():
        yield from _codes(each)


class _WatchedCollector(Collector):
    def __init__(self, name: str, watched: Watched, read: Callable[[], Reading]) -> None:
        self._name = name
        self._watched = watched
        self._read = read
        self._failing = False

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        try:
            reading = self._read()
        except Exception:  # a part that can't be read must not hide all the others
            if not self._failing:
                log.exception("%s can't be read", self._name)
            self._failing = True
            return
        self._failing = False
        family = self._family()
        for labels, value in self._samples(reading):
            family.add_metric(labels, value)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        family = CounterMetricFamily if self._watched.kind == "counter" else GaugeMetricFamily
        return family(self._name, self._watched.what, labels=(self._watched.label,) if self._watched.label else ())

    def _samples(self, reading: Reading) -> Iterator[tuple[tuple[str, ...], float]]:
        if isinstance(reading, float | int):
            yield (), float(reading)
            return
        by_value = {reading: 1.0} if isinstance(reading, str) else reading
        known = dict.fromkeys(self._watched.values, 0.0)
        for value, number in by_value.items():
            key = value if value in known else _OTHER
            known[key] = known.get(key, 0.0) + number
        for value, number in known.items():
            yield (value,), number


class _SnapshotCollector(Collector):
    """Ages are those of the moment of the scrape."""

    def __init__(self, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._now = now

    def collect(self) -> Iterator[Metric]:
        if (up := self._metrics.redis_up()) is not None:
            yield GaugeMetricFamily("trendrag_redis_up", "0 while Redis is away and limits count here", value=up)
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
