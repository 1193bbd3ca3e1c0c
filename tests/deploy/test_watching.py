"""Dashboard and alerts ask for metrics that exist, in words that Prometheus understands, and each alert can fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from ingest.metrics import ScheduleMetrics, StateCollector
from serving.app import create_app
from serving.child import Child
from serving.http.metrics import WATCHED
from serving.http.state import STATE_KEY
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from trendrag.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
OPERATING = (DEPLOY.parent / "docs" / "operating.md").read_text("utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/trendrag.json").read_text("utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds_bucket",
}
"""As the source of vLLM 0.32 names them."""


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]
    for name, rule in ALERTS.items():
        yield name, rule["expr"]


def asked_for(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:trendrag_|process_|vllm:)\w+", re.sub(r'"[^"]*"', "", expression)))


def families(text: str) -> set[str]:
    """Names as they are asked for: of a histogram its buckets, sum and count, of a counter its total."""
    names = set()
    for family in text_string_to_metric_families(text):
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + end for end in ends}
    return names


@pytest.fixture
def exposed(settings: Settings) -> set[str]:
    """What the real application and the schedule show, with every part watched that may be."""
    app = create_app(settings, FakeService().open, lambda: NOW, Child("The schedule", ["false"]))
    with TestClient(app) as client:
        metrics = client.app_state[STATE_KEY].metrics
        there = families(client.get("/metrics").text)
        for name, watched in WATCHED.items():
            if not {name, f"{name}_total"} & there:
                metrics.watch(name, lambda: 0.0 if not watched.label else {})  # noqa: B023  (asked at once)
                client.get("/metrics")
        names = families(client.get("/metrics").text)
    registry = CollectorRegistry()
    ScheduleMetrics(registry)
    states = StateCollector(settings, lambda: NOW)
    names |= {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    names |= {family.name for family in states.collect()}
    states.close()
    return names


def test_every_metric_that_is_asked_for_exists(exposed: set[str]) -> None:
    unknown = {(title, name) for title, expr in expressions() for name in asked_for(expr) if name not in exposed | VLLM}
    assert not unknown


def test_every_label_value_that_is_asked_for_exists() -> None:
    """Of the parts that are watched: a misspelt state would be a panel that is always empty."""
    for title, expression in expressions():
        for name, watched in WATCHED.items():
            for value in re.findall(rf'{name}(?:_total)?{{[^}}]*\b{watched.label or "-"}="([^"]*)"', expression):
                assert value in watched.values, title


def test_each_alert_says_where_to_read_on_and_has_a_case() -> None:
    cases = (DEPLOY / "prometheus/alerts_test.yml").read_text("utf-8")
    headings = {line.lstrip("# ").lower() for line in OPERATING.splitlines() if line.startswith("#")}
    for name, rule in ALERTS.items():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in headings, anchor) == ("docs/operating.md", True, name.lower())
        assert rule["labels"]["severity"] in ("page", "warn")
        assert f'alertname="{name}"' in cases


def test_every_metric_is_explained(exposed: set[str]) -> None:
    beside = ("_sum", "_count", "_created")
    shown = {name for name in exposed if name.startswith("trendrag_") and not name.endswith(beside)}
    unsaid = {name for name in shown if name.removesuffix("_bucket") not in OPERATING}
    assert not unsaid


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool, of Prometheus, is not on the PATH (Debian: apt-get install prometheus)")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_fire_when_they_should_and_not_when_all_is_well(promtool: str) -> None:
    run(promtool, "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    run(promtool, "test", "rules", str(DEPLOY / "prometheus/alerts_test.yml"))


def test_prometheus_understands_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = []
    for number, (_, expression) in enumerate(expressions()):
        if not expression.startswith("label_values"):  # Grafana's own
            plain = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            rules.append({"record": f"panel:{number}", "expr": plain})
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))


def test_panels_have_their_data_source_and_do_not_lie_on_each_other() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == source["uid"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
