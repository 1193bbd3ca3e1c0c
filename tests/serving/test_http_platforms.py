"""What whoever counts characters is told of the platforms."""

from pathlib import Path
from typing import get_args

from starlette.testclient import TestClient

from serving.app import create_app
from tests.serving.conftest import SMALL
from tests.serving.fakes import FakeService
from tests.serving.pages import TINY_PAGE
from trendrag.settings import Settings
from trendrag.types import Platform


def test_every_platform_that_a_request_can_name_is_there(client: TestClient) -> None:
    items = client.get("/api/v1/platforms").json()["items"]
    assert [item["id"] for item in items] == list(get_args(Platform))
    (x,) = (item for item in items if item["id"] == "x")
    assert (x["name"], x["max_chars"], x["usual_chars"]) == ("X", 280, 280)
    assert all(item["usual_chars"] <= item["max_chars"] for item in items)


def test_the_operators_own_rules_are_told(settings: Settings, service: FakeService, tmp_path: Path) -> None:
    own = tmp_path / "platforms.toml"
    own.write_text('[x]\nmax_chars = { value = 500, kind = "limit", seen = 2026-11-21, source = "ours" }\n')
    changed = settings.model_copy(update={**SMALL, "platforms_file": own})
    with TestClient(create_app(changed, service.open, built_page=TINY_PAGE)) as client:
        items = client.get("/api/v1/platforms").json()["items"]
    assert {item["id"]: item["max_chars"] for item in items}["x"] == 500
