"""The application as two owners see it: who asks is what the header X-Owner says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Header
from starlette.testclient import TestClient

from serving.app import create_app
from serving.http.callers import Caller, caller
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import body
from trendrag.settings import LimitSettings, Settings


@dataclass
class Clock:
    """Each look at it is a second after the last."""

    at: datetime = field(default=NOW)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


async def _owner(x_owner: Annotated[str, Header()] = "visitor:one") -> Caller:
    return Caller(x_owner, "visitor")


@contextmanager
def opened(
    settings: Settings, service: FakeService | None = None, now: Callable[[], datetime] | None = None
) -> Iterator[TestClient]:
    unlimited = LimitSettings(requests_per_minute=0, captions_per_day=0, concurrent=0)
    settings = settings.model_copy(update={"limits": unlimited})
    app = create_app(settings, (service or FakeService()).open, now or Clock())
    app.dependency_overrides[caller] = _owner
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def of(owner: str) -> dict[str, str]:
    return {"X-Owner": owner}


def captioned(client: TestClient, owner: str = "visitor:one", **fields: object) -> str:
    """The id of a new answer of the owner's."""
    answer = client.post("/api/v1/caption", json=body(**fields), headers=of(owner))
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found
