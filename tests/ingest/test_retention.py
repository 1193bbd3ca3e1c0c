"""What is old goes, in pieces; what a score may look at, and what still tells an old item from a new one, stays."""

from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner

import ingest.retention
from ingest.commands import refresh as command
from ingest.observation import Intake, Observation, Origin
from ingest.policy import FetchState
from ingest.retention import PAUSE, kept_for, needed_for, prune
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.databases import environment
from tests.ingest.fakes import HOUR, NOW, seen, source
from trendrag.errors import ConfigurationError
from trendrag.settings import IngestSettings, Settings

DAY = timedelta(days=1)
KEPT = 30 * DAY


def titles(store: ObservationStore) -> set[str]:
    return {each.title for each in store.latest(NOW - 9999 * DAY)}


def undated(title: str, days_ago: int) -> Observation:
    intake = Intake(Origin("feed", "rss", "paper", "Paper", NOW - days_ago * DAY))
    intake.add("headline", title, live=False)
    return intake.parsed().observations[0]


def test_what_is_older_goes_and_the_rest_stays(store: ObservationStore) -> None:
    store.add([seen("old", at=NOW - 32 * DAY), seen("just in", at=NOW - KEPT), seen("new")])
    assert prune(store.engine, ["a"], now=NOW, kept=KEPT) == 1
    assert titles(store) == {"just in", "new"}


def test_it_is_done_once_a_day(store: ObservationStore) -> None:
    store.add([seen(f"topic {hours}", at=NOW - KEPT - hours * HOUR) for hours in range(25)])
    assert prune(store.engine, ["a"], now=NOW, kept=KEPT) == 0
    assert prune(store.engine, ["a"], now=NOW + HOUR, kept=KEPT) == 25
    store.add([seen("next", at=NOW - KEPT + 2 * HOUR)])
    assert prune(store.engine, ["a"], now=NOW + PAUSE, kept=KEPT) == 0
    assert prune(store.engine, ["a"], now=NOW + PAUSE + 3 * HOUR, kept=KEPT) == 1


def test_much_goes_in_pieces_and_the_oldest_first(store: ObservationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.retention, "BATCH", 7)
    monkeypatch.setattr(ingest.retention, "BATCHES", 3)
    store.add([seen(f"topic {days}", at=NOW - days * DAY) for days in range(70)])
    assert [prune(store.engine, ["a"], now=NOW, kept=KEPT) for _ in range(3)] == [21, 18, 0]
    assert titles(store) == {f"topic {days}" for days in range(31)}


def test_an_undated_item_is_remembered_for_a_year_so_that_it_is_not_new_again(store: ObservationStore) -> None:
    still_listed, forgotten = undated("still listed", 300), undated("forgotten", 400)
    store.add([still_listed, forgotten, seen("dated", at=NOW - 40 * DAY)])
    assert prune(store.engine, ["feed"], now=NOW, kept=KEPT) == 2
    assert titles(store) == {"still listed"}
    store.add([replace(still_listed, at=NOW, observed_at=NOW)])
    (found,) = store.latest(NOW - 9999 * DAY)
    assert found.at == NOW - 300 * DAY


def test_sources_that_left_the_list_long_ago_are_forgotten(store: ObservationStore) -> None:
    states = FetchStates(store.engine)
    entries = {
        name: source(f'id = "{name}"\ntype = "rss"\nurl = "https://a.example/{name}"')
        for name in ("listed", "left", "left-lately", "fails")
    }
    for name, entry in entries.items():
        days = 5 if name == "left-lately" else 300
        states.save(entry, FetchState(last_attempt=NOW - days * DAY, errors=1))
        store.succeeded(name, NOW - days * DAY, items=1, new=1)
    store.failed("fails", NOW - DAY, "no answer")
    store.add([seen("old", at=NOW - 32 * DAY)])
    prune(store.engine, ["listed"], now=NOW, kept=KEPT)
    assert set(store.statuses()) == {"listed", "left-lately", "fails"}
    assert {name for name, state in states.load(entries.values()).items() if state.errors} == {"listed", "left-lately"}


def test_the_default_keeps_what_scores_need(settings: Settings) -> None:
    assert kept_for(settings.ingest) > needed_for(settings.ingest)


def test_keeping_less_than_scores_need_is_a_clear_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    days = needed_for(IngestSettings()) / DAY
    assert kept_for(IngestSettings(keep_days=days)) == days * DAY
    with pytest.raises(ConfigurationError, match="KEEP_DAYS"):
        kept_for(IngestSettings(keep_days=days - 0.1))
    with pytest.raises(ConfigurationError, match="MAX_AGE_HOURS"):
        kept_for(IngestSettings(max_age_hours=24 * 29))
    for name, value in (environment(settings) | {"TRENDRAG_INGEST__KEEP_DAYS": "5"}).items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(command, [])
    assert (result.exit_code, "TRENDRAG_INGEST__KEEP_DAYS is 5" in result.stderr) == (1, True)
