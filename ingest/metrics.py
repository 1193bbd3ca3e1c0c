"""What a schedule tells Prometheus: of each source and the snapshot from where they are kept, of its runs by counting.

Sources and the snapshot are read at each scrape, from the database and the manifest: the numbers are right after a
restart, and the same from every replica. Names and labels are here and nowhere else; docs/operating.md explains them.
Labels are ids of the sources file and values from small fixed sets.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indexes.manifest import current_manifest
from ingest.sources import load_sources
from ingest.states import FetchStates
from ingest.store import ObservationStore
from trendrag.errors import ConfigurationError, TrendragError
from trendrag.settings import Settings

OUTCOMES = ("published", "unchanged", "nothing", "busy", "error")


class ScheduleMetrics:
    """``ingest.schedule.Watch`` that counts in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._leader = Gauge(
            "trendrag_schedule_leader", "1 where this replica is the one that refreshes", registry=registry
        )
        self._runs = Counter(
            "trendrag_refreshes", "Refreshes since the start, by how they ended", ("outcome",), registry=registry
        )
        self._seconds = Counter(
            "trendrag_refresh_seconds", "Time spent on refreshes since the start", registry=registry
        )
        self._ended = Gauge("trendrag_refresh_last_timestamp_seconds", "When the last refresh ended", registry=registry)
        self._wake = Gauge("trendrag_refresh_next_timestamp_seconds", "When the next one begins", registry=registry)
        for outcome in OUTCOMES:
            self._runs.labels(outcome)

    def leads(self, leading: bool) -> None:
        self._leader.set(leading)

    def ran(self, outcome: str, seconds: float, ended: datetime, wake: datetime) -> None:
        self._runs.labels(outcome).inc()
        self._seconds.inc(seconds)
        self._ended.set(ended.timestamp())
        self._wake.set(wake.timestamp())


class StateCollector(Collector):
    """Reads the list of sources, the database and the snapshot's manifest at each scrape, in the scraper's thread."""

    def __init__(self, settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._now = now
        self._store: ObservationStore | None = None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def collect(self) -> Iterator[Metric]:
        now = self._now()
        yield from self._snapshot(now)
        try:
            metrics = self._sources(now)
        except TrendragError:  # the log says why; a scrape that failed would hide all the rest
            metrics = []
        yield GaugeMetricFamily(
            "trendrag_ingest_readable", "1 where the list of sources and the database can be read", bool(metrics)
        )
        yield from metrics

    def _snapshot(self, now: datetime) -> Iterator[Metric]:
        manifest = current_manifest(self._settings.snapshots_dir)
        if manifest is None:
            return
        age = (now - manifest.created_at).total_seconds()
        yield GaugeMetricFamily("trendrag_snapshot_age_seconds", "Time since it was written", age)
        if manifest.recorded_at is not None:
            seen = (now - manifest.recorded_at).total_seconds()
            yield GaugeMetricFamily("trendrag_trends_age_seconds", "Time since its newest trend was seen", seen)
        yield GaugeMetricFamily("trendrag_snapshot_trends", "Trends in it", manifest.count)
        if manifest.build_seconds is not None:
            took = "What deciding on its trends and writing them took"
            yield GaugeMetricFamily("trendrag_snapshot_build_seconds", took, manifest.build_seconds)

    def _sources(self, now: datetime) -> list[Metric]:
        listed = load_sources(self._settings.sources_file)
        if self._store is None:
            self._store = ObservationStore.of(self._settings)
        states = FetchStates(self._store.engine).load(listed)
        statuses = self._store.statuses()

        def gauge(name: str, what: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"trendrag_source_{name}", what, labels=("source",))

        success = gauge("last_success_age_seconds", "Time since its last good answer")
        items = gauge("items", "Items in its last good answer that was read")
        size = gauge("bytes", "Size of its last good answer that had a body, decompressed")
        errors = gauge("errors", "Errors since its last good answer")
        check = gauge("next_check_seconds", "Time until it is due; negative where that is past")
        muted = gauge("muted", "1 where it is not asked any more (410), until its entry is changed")
        for source in listed:
            state, status = states[source.id], statuses.get(source.id)
            labels = (source.id,)
            errors.add_metric(labels, state.errors)
            muted.add_metric(labels, bool(state.muted))
            if status and status.last_success:
                success.add_metric(labels, (now - status.last_success).total_seconds())
                items.add_metric(labels, status.items)
                if status.size is not None:
                    size.add_metric(labels, status.size)
            if state.next_due:
                check.add_metric(labels, (state.next_due - now).total_seconds())
        return [success, items, size, errors, check, muted]


@contextmanager
def exposed(settings: Settings, host: str, port: int) -> Iterator[ScheduleMetrics]:
    """The metrics at http://host:port/metrics, served by a thread for as long as the context is open.

    Raises:
        ConfigurationError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    metrics = ScheduleMetrics(registry)
    ProcessCollector(registry=registry)
    states = StateCollector(settings)
    registry.register(states)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"Metrics can't be served on {host}, port {port} ({error.strerror or error}). Choose another with"
            " --metrics-port and --metrics-host"
        ) from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        states.close()
