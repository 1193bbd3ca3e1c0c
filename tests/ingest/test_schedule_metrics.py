"""What Prometheus is told, and that docs/operating.md tells the operator of all of it."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ingest.fetcher import HttpStatus
from ingest.metrics import OUTCOMES, ScheduleMetrics, StateCollector, exposed
from ingest.sources import load_sources
from ingest.store import ObservationStore
from serving.http.metrics import WATCHED, Metrics
from tests.fakes import SNAPSHOT
from tests.ingest.fakes import HOUR, NOW
from tests.ingest.test_due import FEED_URL, LATTE, MINUTE, TAGS_URL, Site
from trendrag.errors import ConfigurationError
from trendrag.settings import Settings

LIST = """
[[source]]
id = "tags"
type = "mastodon"
host = "m.example"
[[source]]
id = "feed"
type = "rss"
url = "https://paper.example/feed"
publisher = "Paper"
[[source]]
id = "new"
type = "hackernews"
"""
OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


@pytest.fixture
def site(database_settings: Settings) -> Iterator[Site]:
    store = ObservationStore.of(database_settings)
    database_settings.own_sources_file.parent.mkdir(parents=True, exist_ok=True)
    database_settings.own_sources_file.write_text(LIST)
    yield Site(database_settings, store)
    store.close()


def samples(settings: Settings, at: datetime) -> dict[str, float]:
    """One scrape by a process that has just been started."""
    registry = CollectorRegistry()
    collector = StateCollector(settings, lambda: at)
    registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    collector.close()
    return {name: float(value) for name, value in (each.rsplit(" ", 1) for each in lines if each[0] != "#")}


async def test_the_numbers_are_those_of_the_database_and_the_snapshot(site: Site) -> None:
    listed = load_sources(site.settings.sources_file)
    site.web.bodies = {TAGS_URL: LATTE, FEED_URL: HttpStatus("410", 410, {})}
    await site.refresh(NOW, listed[:2])
    site.web.bodies = {TAGS_URL: HttpStatus("500", 500, {})}
    await site.refresh(NOW + HOUR, listed[:1])
    seen = samples(site.settings, NOW + HOUR + MINUTE)
    assert seen["trendrag_ingest_readable"] == 1
    assert seen['trendrag_source_last_success_age_seconds{source="tags"}'] == 61 * 60
    assert seen['trendrag_source_items{source="tags"}'] == 1
    assert seen['trendrag_source_bytes{source="tags"}'] == len(LATTE)
    assert seen['trendrag_source_errors{source="tags"}'] == 1
    assert seen['trendrag_source_next_check_seconds{source="tags"}'] == 4 * 60
    assert [seen[f'trendrag_source_muted{{source="{name}"}}'] for name in ("tags", "feed", "new")] == [0, 1, 0]
    assert 'trendrag_source_last_success_age_seconds{source="new"}' not in seen
    assert seen["trendrag_snapshot_age_seconds"] == 61 * 60
    assert seen["trendrag_trends_age_seconds"] == 61 * 60
    assert seen["trendrag_snapshot_trends"] == 1
    assert 0 < seen["trendrag_snapshot_build_seconds"] < 60


async def test_an_answer_without_a_body_keeps_the_size_of_the_one_before(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE}
    for hour in range(2):
        await site.refresh(NOW + hour * HOUR)
    assert "If-None-Match" in site.web.asked[-1][1]
    assert samples(site.settings, NOW + HOUR)['trendrag_source_bytes{source="tags"}'] == len(LATTE)


def test_what_can_not_be_read_costs_no_other_number(settings: Settings, tmp_path: Path) -> None:
    settings.data_dir.mkdir(parents=True)
    settings.own_sources_file.write_text("not a list")
    assert samples(settings, NOW) == {"trendrag_ingest_readable": 0}


def test_they_are_served_on_loopback_and_a_taken_port_is_told(settings: Settings, unused_tcp_port: int) -> None:
    with exposed(settings, "127.0.0.1", unused_tcp_port) as metrics:
        metrics.leads(True)
        metrics.ran("published", 2.5, NOW, NOW + 5 * MINUTE)
        with urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        with pytest.raises(ConfigurationError, match="--metrics-port"), exposed(settings, "127.0.0.1", unused_tcp_port):
            pass
    assert 'trendrag_refreshes_total{outcome="published"} 1.0' in text
    assert "trendrag_refresh_seconds_total 2.5" in text
    assert "trendrag_schedule_leader 1.0" in text
    (wake,) = re.findall(r"^trendrag_refresh_next_timestamp_seconds (.*)", text, re.MULTILINE)
    assert float(wake) == (NOW + 5 * MINUTE).timestamp()
    assert "process_resident_memory_bytes" in text


async def test_the_operators_page_names_every_metric_and_no_other(site: Site) -> None:
    site.web.bodies = {TAGS_URL: LATTE}
    await site.refresh(NOW)
    registry = CollectorRegistry()
    counted = ScheduleMetrics(registry)
    for outcome in OUTCOMES:
        counted.ran(outcome, 1, NOW, NOW)
    collector = StateCollector(site.settings, lambda: NOW)
    registry.register(collector)
    serving = Metrics(lambda: NOW)
    serving.snapshot = lambda: SNAPSHOT
    serving.redis_up = lambda: True
    exported = generate_latest(registry).decode() + serving.text().decode()
    collector.close()
    told = set(re.findall(r"\b(trendrag_[a-z_]+)", OPERATING.read_text("utf-8")))
    told -= {"trendrag_server__secret"}  # a file of TRENDRAG_SECRETS_DIR
    known = set(re.findall(r"^(?:# TYPE )?(trendrag_[a-z_]+)", exported, re.MULTILINE))
    known |= {name + end for name in WATCHED for end in ("", "_total")}
    # Those of the process beside the server are shown where there is one.
    assert told - known <= {"trendrag_schedule_up", "trendrag_schedule_restarts_total"}
    own = set(re.findall(r"^(trendrag_[a-z_]+)", generate_latest(registry).decode(), re.MULTILINE))
    assert {name for name in own if not name.endswith("_created")} <= told
