"""Jobs over HTTP, and requests that are sent twice."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.http.callers import Caller, caller
from tests.fakes import FakeWriter
from tests.serving.conftest import MakeClient
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import PHOTO, body
from trendrag.errors import ModelInterrupted, ModelRejected

JOBS = "/api/v1/jobs"
CAPTION = "/api/v1/caption"
STREAM = "/api/v1/caption/stream"


def finished(client: TestClient, job: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The job once it is over. A real worker does it; this asks as a client would."""
    deadline = time.monotonic() + 60
    while (told := client.get(f"{JOBS}/{job}", headers=headers).json()["job"])["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
    found: dict[str, Any] = told
    return found


def test_a_job_is_taken_in_at_once_and_its_result_is_what_a_caption_request_answers(client: TestClient) -> None:
    direct = client.post(CAPTION, json=body(candidates=2)).json()
    answer = client.post(JOBS, json=body(candidates=2))
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert answer.headers["location"] == f"{JOBS}/{job['id']}"
    assert (job["state"], job["result"], job["error"]) == ("queued", None, None)
    done = finished(client, job["id"])
    assert done["state"] == "done"
    assert done["result"]["captions"] == direct["captions"]


def test_what_can_not_be_done_is_refused_before_it_is_taken_in(client: TestClient) -> None:
    assert client.post(JOBS, json=body(image="bm90IGFuIGltYWdl")).json()["code"] == "invalid_image"
    assert client.post(JOBS, json=body(candidates=9)).status_code == 422
    assert client.get(JOBS).json()["items"] == []


def test_a_job_that_fails_says_why(make_client: MakeClient) -> None:
    client = make_client(FakeService(FakeWriter(chunks=(), error=ModelRejected("The filter stopped it."))))
    job = client.post(JOBS, json=body()).json()["job"]
    told = finished(client, job["id"])
    assert (told["state"], told["error"]["code"]) == ("failed", "model_rejected")
    assert "filter" in told["error"]["message"]


def test_a_job_sent_twice_with_a_key_is_one(client: TestClient, service: FakeService) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.post(JOBS, json=body(), headers=key).json()["job"]
    assert client.post(JOBS, json=body(), headers=key).json()["job"]["id"] == first["id"]
    other = client.post(JOBS, json=body(note="other"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [job["id"] for job in client.get(JOBS).json()["items"]] == [first["id"]]
    finished(client, first["id"])
    assert len(service.requests) == 1


def test_jobs_of_others_are_not_there(make_client: MakeClient) -> None:
    client = make_client(FakeService())
    job = client.post(JOBS, json=body()).json()["job"]["id"]
    finished(client, job)

    async def stranger() -> Caller:
        return Caller("key:stranger", "key")

    client.app.dependency_overrides[caller] = stranger  # type: ignore[attr-defined]  # typed as any ASGI app
    for answer in (client.get(f"{JOBS}/{job}"), client.post(f"{JOBS}/{job}/cancel")):
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_job")
    assert client.get(JOBS).json()["items"] == []


def test_pages_of_jobs(client: TestClient) -> None:
    made = [client.post(JOBS, json=body()).json()["job"]["id"] for _ in range(3)]
    first = client.get(JOBS, params={"limit": 2}).json()
    rest = client.get(JOBS, params={"limit": 2, "cursor": first["next"]}).json()
    assert [job["id"] for job in first["items"] + rest["items"]] == sorted(made, reverse=True)
    assert rest["next"] is None
    assert client.get(JOBS, params={"cursor": "rubbish"}).status_code == 422


def test_cancelling_a_finished_job_changes_nothing(client: TestClient) -> None:
    job = client.post(JOBS, json=body()).json()["job"]["id"]
    finished(client, job)
    assert client.post(f"{JOBS}/{job}/cancel").json()["job"]["state"] == "done"


Ask = Callable[..., Any]


@pytest.fixture(params=["json", "form"])
def ask(request: pytest.FixtureRequest, client: TestClient) -> Ask:
    """Sends a caption request with a key, as JSON or as a form (whose boundary is another each time)."""

    def send(path: str, key: str, note: str = "first snow") -> Any:
        headers = {"Idempotency-Key": key}
        if request.param == "json":
            return client.post(path, json=body(note=note), headers=headers)
        return client.post(path, data={"note": note}, files={"image": ("a.jpg", PHOTO)}, headers=headers)

    if request.param == "form":
        pytest.importorskip("serving.http.uploads")
    return send


@pytest.mark.parametrize("path", [CAPTION, STREAM])
def test_a_request_sent_again_is_answered_as_before_and_not_written_again(
    ask: Ask, service: FakeService, path: str
) -> None:
    first, second = ask(path, "k"), ask(path, "k")
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    for name in ("content-type", "x-caption-id", "x-history"):
        assert second.headers[name] == first.headers[name]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(service.requests) == 1
    assert ask(path, "other").content
    assert len(service.requests) == 2


def test_what_is_repeated_can_be_kept_and_judged(ask: Ask, client: TestClient) -> None:
    ask(STREAM, "k")
    route = f"/api/v1/history/{ask(STREAM, 'k').headers['x-caption-id']}/candidates/0"
    assert client.put(f"{route}/favourite").status_code == 204
    assert client.put(f"{route}/feedback", json={"verdict": "like", "edited": "Mine."}).is_success
    (kept,) = client.get("/api/v1/history").json()["items"]
    assert (kept["captions"][0]["favourite"], kept["captions"][0]["edited"]) == (True, "Mine.")


def test_a_key_for_another_request_is_refused(ask: Ask) -> None:
    ask(CAPTION, "k")
    again = ask(CAPTION, "k", note="second snow")
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
    assert ask(STREAM, "k").status_code == 422


@pytest.mark.parametrize("path", [CAPTION, STREAM])
def test_a_failure_is_not_kept(make_client: MakeClient, path: str) -> None:
    service = FakeService(FakeWriter(error=ModelInterrupted("gone")))
    client = make_client(service)
    key = {"Idempotency-Key": "k"}
    client.post(path, json=body(), headers=key)
    service.writer.error = None
    answer = client.post(path, json=body(), headers=key)
    assert answer.status_code == 200
    assert "idempotency-replayed" not in answer.headers


def test_what_stands_behind_the_path_makes_another_request(client: TestClient) -> None:
    key = {"Idempotency-Key": "k"}
    assert client.post(CAPTION, json=body(), headers=key).status_code == 200
    answer = client.post(f"{CAPTION}?parent={32 * 'a'}", json=body(), headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_a_key_must_be_sane(client: TestClient) -> None:
    for key in ("", "a b", "x" * 201):
        answer = client.post(CAPTION, json=body(), headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_the_document_names_the_header(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in (CAPTION, STREAM, JOBS):
        assert "Idempotency-Key" in [each["name"] for each in paths[path]["post"]["parameters"]]
