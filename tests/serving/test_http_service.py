"""Health, metrics, headers, the page and the description of the API."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import serving.http
from serving.app import create_app
from serving.child import Child
from tests.fakes import NOW, SNAPSHOT, FakeJudge, FakeRetriever, FakeWriter, found
from tests.serving.conftest import MakeClient
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import body
from trendrag.errors import ModelInterrupted, ModelTimeout, ModelUnavailable
from trendrag.settings import Settings

STATIC = Path(serving.http.__file__).parent / "static"


def test_alive_whatever_the_model_does(make_client: MakeClient) -> None:
    answer = make_client(FakeService(model_error=ModelUnavailable("gone"))).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_ready_says_which_trends(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["model"], told["trends"]) == ("ready", "fake", "sample")
    assert told["snapshot"]["label"] == SNAPSHOT.label


def test_ready_without_trends(make_client: MakeClient) -> None:
    answer = make_client(FakeService(snapshot_now=None)).get("/readyz")
    assert (answer.status_code, answer.json()["trends"], answer.json()["snapshot"]) == (200, "none", None)


def test_not_ready_without_a_model_and_why(make_client: MakeClient) -> None:
    answer = make_client(FakeService(model_error=ModelUnavailable("Start the model server."))).get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not_ready"
    assert answer.json()["message"] == "Start the model server."


def test_the_schedule_beside_the_server_is_told_of_and_never_decides_readiness(settings: Settings) -> None:
    class Down(Child):
        """Failed long ago, and is started again in a while."""

        @asynccontextmanager
        async def running(self) -> AsyncIterator[None]:
            yield

    schedule = Down("The schedule", [])
    schedule.restarts = 3
    with TestClient(create_app(settings, FakeService().open, lambda: NOW, schedule)) as client:
        assert client.get("/readyz").json()["schedule"] == "restarting"
        assert client.get("/readyz").status_code == 200
        schedule.up = True
        assert client.get("/readyz").json()["schedule"] == "running"
        assert samples(client)["trendrag_schedule_up"] == 1
        assert samples(client)["trendrag_schedule_restarts_total"] == 3
    with TestClient(create_app(settings, FakeService().open, lambda: NOW)) as client:
        assert client.get("/readyz").json()["schedule"] == "off"
        assert "trendrag_schedule_up" not in samples(client)


def samples(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_happened(client: TestClient, service: FakeService) -> None:
    client.post("/api/v1/caption", json=body(candidates=2))
    service.retriever = FakeRetriever(found())
    client.post("/api/v1/caption/stream", json=body())
    service.writer = FakeWriter(error=ModelInterrupted("x"))
    client.post("/api/v1/caption", json=body())
    client.post("/api/v1/caption", json={})
    client.get("/some/%0Apath")
    seen = samples(client)
    route = 'method="POST",route="/api/v1/caption"'
    assert seen[f'trendrag_http_requests_total{{{route},status="200"}}'] == 1
    assert seen[f'trendrag_http_requests_total{{{route},status="502"}}'] == 1
    assert seen[f'trendrag_http_requests_total{{{route},status="422"}}'] == 1
    assert seen['trendrag_http_requests_total{method="GET",route="unmatched",status="404"}'] == 1
    assert seen["trendrag_captions_total"] == 2
    assert seen["trendrag_candidates_total"] == 3
    assert seen["trendrag_first_token_seconds_count"] == 2
    assert seen['trendrag_trends_retrieved_bucket{le="0.0"}'] == 2
    assert seen["trendrag_trends_retrieved_count"] == 3
    assert seen['trendrag_failures_total{code="model_interrupted"}'] == 1
    assert seen["trendrag_captions_in_flight"] == 0
    assert seen["trendrag_clients_left_total"] == 0
    assert seen['trendrag_snapshot{origin="sample"}'] == 1
    assert seen["trendrag_snapshot_age_seconds"] == 0
    service.snapshot_now = None
    assert samples(client)['trendrag_snapshot{origin="none"}'] == 1


def test_metrics_count_the_models_last_looks(client: TestClient, service: FakeService) -> None:
    client.post("/api/v1/caption", json=body())
    for judge in (FakeJudge(frozenset({0})), FakeJudge(), FakeJudge(), FakeJudge(error=ModelTimeout("slow"))):
        service.judge = judge
        client.post("/api/v1/caption", json=body())
    seen = samples(client)
    outcomes = {name: seen[f'trendrag_trends_judged_total{{outcome="{name}"}}'] for name in ("some", "none", "failed")}
    assert outcomes == {"some": 1, "none": 2, "failed": 1}
    assert seen["trendrag_judge_seconds_count"] == 4


def test_two_applications_count_for_themselves(make_client: MakeClient) -> None:
    one, other = make_client(FakeService()), make_client(FakeService())
    one.post("/api/v1/caption", json=body())
    assert samples(one)["trendrag_captions_total"] == 1
    assert samples(other)["trendrag_captions_total"] == 0


def test_request_ids(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("", "a b", "x" * 65, "<b>"):
        made = client.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/", "/nothing", "/static/page.js"])
def test_security_headers_on_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/api/v1/caption", "/api/v1/caption/stream"])
def test_captions_are_not_stored_by_anyone(client: TestClient, path: str) -> None:
    assert client.post(path, json=body()).headers["cache-control"] == "no-store"
    assert client.post(path, json={}).headers["cache-control"] == "no-store"


def test_the_page_fits_its_own_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    html = answer.text
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)|https?:", html)
    for path in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert client.get(path).status_code == 200, path
    script = (STATIC / "page.js").read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    used = set(re.findall(r'\$\("([a-z]+)"\)', script))
    assert used <= set(re.findall(r'id="([a-z]+)"', html))


def test_openapi_describes_answers_events_and_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert {"CaptionBody", "CaptionsAnswer", "ErrorAnswer", "Described", "TrendsRetrieved", "Failed", "Done"} <= set(
        schemas
    )
    assert "HTTPValidationError" not in schemas
    for path in ("/api/v1/caption", "/api/v1/caption/stream"):
        answers = described["paths"][path]["post"]["responses"]
        assert {"200", "413", "422", "503"} <= set(answers)
        assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
    stream = described["paths"]["/api/v1/caption/stream"]["post"]["responses"]
    assert set(stream["200"]["content"]) == {"text/event-stream"}
    assert set(stream["503"]["content"]) == {"application/json"}
