"""A server's directory follows the shelf by itself; a shelf that fails is told of once and costs nothing."""

import logging
import threading
from pathlib import Path

import pytest

from indexes.following import following
from indexes.manifest import current_id
from indexes.shelf import Shelf, Transfer
from tests.indexes.shelves import EMBEDDER, FailingFileSystem, publish_at

OFTEN_S = 0.001


class Watched(Shelf):
    """Tells when a look is over."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.looks = threading.Semaphore(0)

    def download(self, *arguments: object, **options: object) -> Transfer | None:
        try:
            return super().download(*arguments, **options)  # type: ignore[arg-type]
        finally:
            self.looks.release()

    def wait(self, looks: int) -> None:
        """Until so many more are over, and one that may have begun before."""
        for _ in range(looks + 1):
            assert self.looks.acquire(timeout=60)


def test_it_follows_what_is_published(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    publisher, shelf = Shelf(f"file://{tmp_path}/shelf"), Watched(f"file://{tmp_path}/shelf")
    with following(shelf, there, EMBEDDER, keep=2, every=OFTEN_S):
        for hour in range(3):
            publisher.upload(here, made := publish_at(here, hour, f"tea {hour}"), 2)
            while shelf.looks.acquire(blocking=False):
                pass
            shelf.wait(1)
            assert current_id(there) == made
    assert "shelf" not in {each.name for each in threading.enumerate()}


def test_a_shelf_that_fails_is_logged_once_and_once_when_it_is_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    old, new = publish_at(there, 0, "tea"), publish_at(here, 1, "snow")
    FailingFileSystem.reset()
    Shelf("failing://shelf").upload(here, new, 2)
    FailingFileSystem.left = 0
    shelf = Watched("failing://shelf")
    caplog.set_level(logging.INFO)
    with following(shelf, there, EMBEDDER, keep=2, every=OFTEN_S):
        shelf.wait(5)
        assert current_id(there) == old
        FailingFileSystem.left = None
        while shelf.looks.acquire(blocking=False):
            pass
        shelf.wait(1)
    FailingFileSystem.reset()
    assert current_id(there) == new
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "failing://shelf" in warnings[0]
    assert "can be read again" in caplog.text
