import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ingest.observation import Intake, Origin
from ingest.store import ObservationStore
from tests.databases import DATABASES, database_of
from tests.ingest.fakes import HOUR, NOW, seen
from trendrag.errors import ConfigurationError
from trendrag.settings import Settings

LONG_AGO = NOW - timedelta(days=30)


@pytest.fixture(params=[*DATABASES, "memory"])
def store(request: pytest.FixtureRequest, settings: Settings) -> Iterator[ObservationStore]:
    with database_of(request.param, settings) as made_of:
        made = ObservationStore.in_memory() if request.param == "memory" else ObservationStore.of(made_of)
        yield made
        made.close()


def test_what_goes_in_comes_out(store: ObservationStore) -> None:
    observation = seen("latte art", news=["A headline about it all"], volume=9, region="US")
    assert store.add([observation]) == 1
    assert store.latest(LONG_AGO) == [observation]


def test_the_same_list_twice_stores_nothing_new(store: ObservationStore) -> None:
    listed = [seen(f"topic {number}") for number in range(450)]
    assert store.add(listed) == 450
    assert store.add(listed) == 0
    assert len(list(store.points(LONG_AGO))) == 450


def test_an_hour_later_a_live_item_is_a_new_point_of_the_same_item(store: ObservationStore) -> None:
    store.add([seen("latte art", volume=5)])
    later = seen("latte art", volume=50, at=NOW + HOUR)
    assert store.add([later]) == 1
    assert store.latest(LONG_AGO) == [later]
    assert [point.volume for point in store.points(LONG_AGO)] == [5, 50]


def test_an_article_is_never_redated(store: ObservationStore) -> None:
    def article(fetched_hours_later: int) -> None:
        intake = Intake(Origin("feed", "rss", "paper", "Paper", NOW + fetched_hours_later * HOUR))
        intake.add("headline", "Undated story")
        intake.add("headline", "No date at all", live=False)
        store.add(intake.parsed().observations)

    article(0)
    article(5)
    (undated,) = [each for each in store.latest(LONG_AGO) if each.title == "No date at all"]
    assert undated.at == NOW


def test_only_what_is_recent_is_given(store: ObservationStore) -> None:
    store.add([seen("old", at=NOW - timedelta(days=4)), seen("new")])
    assert [each.title for each in store.latest(NOW - timedelta(days=3))] == ["new"]


def test_a_failure_keeps_the_last_success(store: ObservationStore) -> None:
    store.add([seen("latte art")])
    store.succeeded("a", NOW, items=1, new=1)
    store.failed("a", NOW + HOUR, "no answer")
    store.failed("b", NOW, "never worked")
    status = store.statuses()
    assert (status["a"].last_success, status["a"].items, status["a"].last_error) == (NOW, 1, "no answer")
    assert status["b"].last_success is None
    assert len(store.latest(LONG_AGO)) == 1
    store.succeeded("a", NOW + 2 * HOUR, items=0, new=0)
    assert store.statuses()["a"].last_error is None
    assert len(store.latest(LONG_AGO)) == 1


def test_the_file_is_in_wal_mode_and_survives_reopening(tmp_path: Path) -> None:
    file = tmp_path / "t.sqlite3"
    first = ObservationStore.at(file)
    first.add([seen("latte art")])
    first.close()
    again = ObservationStore.at(file)
    assert [each.title for each in again.latest(LONG_AGO)] == ["latte art"]
    again.close()
    with sqlite3.connect(file) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_two_writers_wait_for_each_other(database_settings: Settings) -> None:
    stores = [ObservationStore.of(database_settings) for _ in range(2)]
    faults: list[ConfigurationError] = []

    def write(number: int) -> None:
        try:
            for turn in range(20):
                stores[number].add([seen(f"topic {number} {turn}")])
        except ConfigurationError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(stores[0].latest(LONG_AGO)) == 40  # a writer that ended in another way would leave fewer
    for each in stores:
        each.close()


def test_what_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "t.sqlite3"
    file.write_text("not a database, but long enough to be taken for one by its size alone" * 20)
    with pytest.raises(ConfigurationError, match="trend database"):
        ObservationStore.at(file)
    with pytest.raises(ConfigurationError, match="can't be made"):
        ObservationStore.at(file / "below" / "t.sqlite3")
