"""Whatever operation of the storage is the last one that works, there is one complete snapshot on both sides."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexes.shelf
from indexes.manifest import current_id, snapshot_ids
from indexes.shelf import Shelf
from indexes.snapshot import open_newest
from tests.indexes.shelves import EMBEDDER, FailingFileSystem, publish_at
from trendrag.errors import ShelfError

URL = "failing://shelf"
OLD, NEW, NEWEST = ({f"trend {number}" for number in range(count)} for count in (8, 9, 3))


@pytest.fixture(autouse=True, params=["disk", "objects"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingFileSystem]]:
    """A disk shows files while they are written; what stores objects shows nothing of one whose writing failed."""
    FailingFileSystem.reset()
    monkeypatch.setattr(FailingFileSystem, "torn", request.param == "disk")
    if request.param == "objects":
        monkeypatch.setattr(indexes.shelf, "_WHOLE", {"failing"})
    yield FailingFileSystem
    FailingFileSystem.reset()


def in_use(folder: Path) -> set[str]:
    snapshot = open_newest(folder, EMBEDDER)
    assert snapshot.info.warning is None
    return {trend.phrase for trend in snapshot.trends}


def test_an_upload_that_stops_anywhere_leaves_a_complete_snapshot(
    storage: type[FailingFileSystem], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    old, new, newest = (publish_at(here, hour, *phrases) for hour, phrases in enumerate((OLD, NEW, NEWEST)))
    seen: list[set[str]] = []
    for steps in itertools.count():
        storage.reset()
        Shelf(URL).upload(here, old, 1)
        storage.left = steps
        try:
            Shelf(URL).upload(here, new, 1)
        except ShelfError as error:
            assert "failing://shelf" in str(error)
        finished, storage.left = storage.left >= 0, None
        there = tmp_path / f"there {steps}"
        Shelf(URL).download(there, EMBEDDER, 1)
        seen.append(in_use(there))
        Shelf(URL).upload(here, new, 1)
        Shelf(URL).download(there, EMBEDDER, 1)
        assert in_use(there) == NEW
        # The next one also clears away what was left behind.
        Shelf(URL).upload(here, newest, 1)
        assert len(Shelf(URL)._listing()) == len(list((here / newest).iterdir())) + 1  # CURRENT
        if finished:
            break
    assert len(seen) > 10
    # The old one until a certain step, and from then on the new one.
    assert [key for key, _ in itertools.groupby(seen)] == [OLD, NEW]


def test_a_download_that_stops_anywhere_changes_nothing(storage: type[FailingFileSystem], tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    new = publish_at(here, 1, *NEW)
    Shelf(URL).upload(here, new, 1)
    old = publish_at(there, 0, *OLD)
    for steps in itertools.count():
        storage.left = steps
        try:
            Shelf(URL).download(there, EMBEDDER, 5)
        except ShelfError as error:
            assert "failing://shelf" in str(error)
            assert (in_use(there), snapshot_ids(there)) == (OLD, [old])
            assert list(there.glob(".*.part")) == []
        else:
            break
    assert steps > 5
    assert (in_use(there), current_id(there)) == (NEW, new)
