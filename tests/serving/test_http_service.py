"""Health, metrics, headers, the page and the description of the API."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from serving.app import create_app
from serving.child import Child
from tests.fakes import NOW, SNAPSHOT, FakeJudge, FakeRetriever, FakeWriter, found
from tests.serving.conftest import MakeClient
from tests.serving.fakes import FakeService
from tests.serving.pages import SCRIPT
from tests.serving.test_http_captions import body
from trendrag.errors import ModelInterrupted, ModelTimeout, ModelUnavailable
from trendrag.settings import Settings


def test_alive_whatever_the_model_does(make_client: MakeClient) -> None:
    answer = make_client(FakeService(model_error=ModelUnavailable("gone"))).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_ready_says_which_trends(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["model"], told["trends"]) == ("ready", "fake", "sample")
    assert told["redis"] == "off"
    assert told["snapshot"]["label"] == SNAPSHOT.label


def test_readiness_and_metrics_tell_of_a_redis_that_is_away(settings: Settings) -> None:
    server = settings.server.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1"), "keys": "off"})
    app = create_app(settings.model_copy(update={"server": server}), FakeService().open, lambda: NOW)
    with TestClient(app, client=("203.0.113.9", 1)) as client:
        assert client.post("/api/v1/caption", json=body()).status_code == 200
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["redis"]) == (200, "away")
        assert samples(client)["trendrag_redis_up"] == 0


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
    assert seen['trendrag_captions_total{writer="model"}'] == 2
    assert seen['trendrag_candidates_total{trends="used"}'] == 2
    assert seen['trendrag_candidates_total{trends="none"}'] == 1
    assert seen["trendrag_highlights_total"] == 2
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
    assert samples(one)['trendrag_captions_total{writer="model"}'] == 1
    assert samples(other)['trendrag_captions_total{writer="model"}'] == 0


def test_request_ids(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("", "a b", "x" * 65, "<b>"):
        made = client.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/", "/nothing", SCRIPT])
def test_security_headers_on_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers, "of no use, and refused by browsers, without TLS"


def test_who_came_by_tls_comes_by_nothing_else(settings: Settings) -> None:
    server = settings.server.model_copy(update={"trusted_proxies": ("192.0.2.1/32",)})
    app = create_app(settings.model_copy(update={"server": server}), FakeService().open, lambda: NOW)
    proxied = {"X-Forwarded-Proto": "https"}
    with TestClient(app, client=("192.0.2.1", 1)) as client:
        assert client.get("/", headers=proxied).headers["strict-transport-security"] == "max-age=31536000"
    with TestClient(app, client=("192.0.2.2", 1)) as client:
        assert "strict-transport-security" not in client.get("/", headers=proxied).headers


@pytest.mark.parametrize("path", ["/api/v1/caption", "/api/v1/caption/stream"])
def test_captions_are_not_stored_by_anyone(client: TestClient, path: str) -> None:
    assert client.post(path, json=body()).headers["cache-control"] == "no-store"
    assert client.post(path, json={}).headers["cache-control"] == "no-store"


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
