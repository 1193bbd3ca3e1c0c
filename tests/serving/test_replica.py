"""A server whose snapshots come from a shelf."""

import secrets
from pathlib import Path

import pytest
from pydantic import SecretStr

from indexes.shelf import Shelf
from serving.service import open_service
from tests.indexes.shelves import EMBEDDER, publish_at
from trendrag.settings import Settings, SnapshotSettings


def with_shelf(settings: Settings, url: str) -> Settings:
    shelf = SnapshotSettings(url=SecretStr(url), poll_s=1000)
    return settings.model_copy(update={"snapshots": shelf})


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.service.open_embedder", lambda _settings: EMBEDDER)


async def test_one_that_starts_with_nothing_has_the_trends_of_the_shelf(settings: Settings, tmp_path: Path) -> None:
    url = f"memory://{secrets.token_hex(4)}"
    made = publish_at(tmp_path / "publisher", 0, "tea")
    Shelf(url).upload(tmp_path / "publisher", made, 5)
    async with open_service(with_shelf(settings, url)) as service:
        snapshot = service.snapshot()
    assert snapshot
    assert snapshot.id == made


async def test_one_starts_without_its_shelf(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    made = publish_at(settings.snapshots_dir, 0, "tea")
    async with open_service(with_shelf(settings, "ftp://ann:secret@127.0.0.1:9/trends")) as service:
        snapshot = service.snapshot()
    assert snapshot
    assert snapshot.id == made
    assert "ftp://127.0.0.1:9/trends" in caplog.text
    assert "secret" not in caplog.text
