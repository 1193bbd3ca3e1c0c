"""The book gives what deciding on everything from the start gives, whatever came in whichever order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from ingest.book.assign import Role
from ingest.book.keeping import advance, standing, trends
from ingest.book.topics import GateJudge
from ingest.observation import Intake, Kind, Observation, Origin
from ingest.pipeline import Decision
from ingest.retention import prune
from ingest.schema import BookFormRow, BookItemRow, BookMemberRow
from ingest.score import STAGES
from ingest.store import ObservationStore
from ingest.user_lists import UserLists
from tests.ingest.fakes import GATE, HOUR, NOW, TIMES, decided

JUDGE = GateJudge(GATE, None)

NAMES = [
    "World Cup",
    "#worldcup",
    "World Cups",
    "World Cup 17",
    "Latte Art",
    "Lattes Art",
    "#LatteArt",
    "Kayak",
    "kayak race",
    "kayak races",
    "Isle of Glass",
    "Glass Isle",
    "Ada Moon",
    "Moon",
    "Kaleidoscope Night",
    "Kaleidscope Night",
    "Kaleidoscop Night",
    "Worldwide Designers Conference",
    "WDC",
]
HEADLINES = [
    "Fans fill the square as the World Cup begins",
    "Why Ada Moon sings on the Isle of Glass",
    "Ada Moon wins a prize for a song nobody knew",
    "A night with Ada Moon at the World Cup in the rain",
    "Six hurt in a Kayak crash near the Isle of Glass",
    "A quiet Kayak trip",
    "Kayak trips are the quiet joy of this season",
    "Sourdough starters: what a baker wants you to know",
    "cold brew season",
    "She said that nobody had told her about it before",
    "Latte Art",
    "How the “Paper Lantern Summer” became a film",
    "Paper Lantern Summer opens in every town this week",
    "the latte art of a whole small town fills a museum",
    "Isle of Glass",
    "WDC, the Worldwide Designers Conference, opens with a song",
    "The Moon festival tour comes to town, and the festival tour sells out",
]
WORDS = ["Lantern", "Pumpkin", "Cactus", "Harbour", "Saxophone", "Velvet", "Thimble", "Orchard"]
FAMILIES = ["north", "south", "west"]
KINDS: list[Kind] = ["phrase", "hashtag", "article"]


def told(source: int, kind: Kind, title: str, at: datetime, volume: int | None, seen_at: datetime) -> Observation:
    """By one of six sources, of three families."""
    live = kind != "headline"
    intake = Intake(Origin(f"s{source}", "test", FAMILIES[source % 3], f"Source {source}", seen_at, None, "en"))
    intake.add(
        kind, title, volume=volume, published_at=None if live else at, live=live, url=f"https://a.example/{source}"
    )
    (seen,) = intake.parsed().observations
    return seen if live else replace(seen, at=at)


@st.composite
def tellings(draw: st.DrawFn) -> list[tuple[datetime, list[Observation]]]:
    """What was seen by when, at least once."""
    now, rounds = NOW, []
    for _ in range(draw(st.integers(1, 6))):
        now += draw(st.sampled_from([timedelta(minutes=7), HOUR, 5 * HOUR, 30 * HOUR, 71 * HOUR, 9 * 24 * HOUR]))
        batch = []
        for _ in range(draw(st.integers(0, 7))):
            source = draw(st.integers(0, 5))
            if draw(st.booleans()):
                kind, title, old = draw(st.sampled_from(KINDS)), draw(st.sampled_from(NAMES)), timedelta()
            else:
                kind, title = "headline", draw(st.sampled_from(HEADLINES))
                old = draw(st.sampled_from([timedelta(), HOUR, 20 * HOUR, 71 * HOUR, 100 * HOUR, 400 * HOUR]))
            batch.append(told(source, kind, title, now - old, draw(st.sampled_from([None, 1, 50, 900])), now))
        rounds.append((now, batch))
    return rounds


def kept(store: ObservationStore, now: datetime) -> Decision:
    """What the book says, as it is published."""
    found = standing(store.engine, TIMES, now)
    told = trends(store.engine, found.rows["key"])
    rated = [
        trend.model_copy(
            update={
                "score": float(row["score"]),
                "velocity": float(row["velocity"]),
                "stage": STAGES[row["stage"]],
                "last_seen": datetime.fromtimestamp(int(row["last_seen"]) / 1e6, now.tzinfo),
            }
        )
        for trend, row in zip(told, found.rows, strict=True)
    ]
    return Decision(tuple(rated), found.withheld, found.left_out)


def rounded(decision: Decision) -> tuple[Any, ...]:
    """Sums of floats differ in their last digits with the order of what is summed."""
    plain = {
        trend.id: trend.model_dump() | {"score": round(trend.score, 7), "velocity": round(trend.velocity, 7)}
        for trend in decision.trends
    }
    return plain, decision.withheld, decision.left_out


def after_each(rounds: Sequence[tuple[datetime, list[Observation]]]) -> None:
    store = ObservationStore.in_memory()
    for now, batch in rounds:
        store.add(batch)
        advance(store.engine, JUDGE, TIMES, now)
        assert rounded(kept(store, now)) == rounded(decided(store, now))
    store.close()


@given(tellings())
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_any_sequence_of_refreshes_gives_what_one_decision_at_the_end_gives(
    rounds: list[tuple[datetime, list[Observation]]],
) -> None:
    after_each(rounds)


@given(tellings())
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
def test_so_it_does_where_keys_become_too_common_and_rare_again(
    rounds: list[tuple[datetime, list[Observation]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("ingest.unite", "ingest.book.unions"):
            patch.setattr(f"{module}.MAX_BLOCK", 2)
        after_each(rounds)


def test_the_world_of_these_tests_has_all_that_can_happen() -> None:
    """Or else they would show little."""
    store = ObservationStore.in_memory()
    for number, title in enumerate(NAMES):
        store.add([told(number % 6, "hashtag" if title[0] == "#" else "article", title, NOW, 50, NOW)])
    for number, title in enumerate(HEADLINES * 2):
        store.add([told(number % 3, "headline", title, NOW - number * HOUR, None, NOW)])
    advance(store.engine, JUDGE, TIMES, NOW)
    found = kept(store, NOW)
    assert rounded(found) == rounded(decided(store, NOW))
    assert found.withheld
    assert found.left_out
    with store.engine.connect() as connection:
        roles = set(connection.execute(select(BookMemberRow.role)).scalars())
        sizes = connection.execute(select(func.count(BookFormRow.form)).group_by(BookFormRow.topic)).scalars().all()
        loose = connection.execute(select(BookItemRow.loose).distinct()).scalars().all()
    assert roles == set(Role)
    assert max(sizes) > 1
    assert set(loose) == {True, False}
    store.close()


def test_what_is_new_is_made_anew_and_nothing_else() -> None:
    store = ObservationStore.in_memory()
    store.add([told(n % 6, "hashtag", f"#{word}Picnic", NOW, 50, NOW) for n, word in enumerate(WORDS)])
    assert advance(store.engine, JUDGE, TIMES, NOW) == len(WORDS)
    assert advance(store.engine, JUDGE, TIMES, NOW) == 0
    later = NOW + 2 * HOUR
    store.add([told(0, "hashtag", f"#{WORDS[0]}Picnic", later, 60, later)])
    assert advance(store.engine, JUDGE, TIMES, later) == 1
    assert advance(store.engine, JUDGE, TIMES, later, rebuild=True) == len(WORDS)
    assert rounded(kept(store, later)) == rounded(decided(store, later))
    store.close()


def test_the_book_is_made_anew_where_the_gate_or_a_setting_or_the_clock_is_another() -> None:
    store = ObservationStore.in_memory()
    store.add([told(n % 6, "hashtag", f"#{word}Picnic", NOW, 50, NOW) for n, word in enumerate(WORDS)])
    other = GateJudge(replace(GATE, lists=UserLists(block=("velvet",))), None)
    for judge, times, now in [
        (JUDGE, TIMES, NOW),
        (other, TIMES, NOW),
        (other, replace(TIMES, half_life=HOUR), NOW),
        (other, replace(TIMES, half_life=HOUR), NOW - HOUR),
    ]:
        assert advance(store.engine, judge, times, now) == len(WORDS)
        assert advance(store.engine, judge, times, now) == 0
    store.close()


def test_what_gets_the_number_of_a_removed_observation_is_not_missed(tmp_path: Path) -> None:
    """SQLite gives numbers of last rows that are gone again; an old entry of a feed is such a row day after day."""
    store = ObservationStore.at(tmp_path / "trends.sqlite3")
    store.add([told(0, "hashtag", "#LanternPicnic", NOW, 50, NOW)])
    store.add([told(1, "headline", "An old story about nothing much", NOW - timedelta(days=40), None, NOW)])
    advance(store.engine, JUDGE, TIMES, NOW)
    assert prune(store.engine, ["s0"], now=NOW, kept=timedelta(days=30)) == 1
    later = NOW + HOUR
    store.add([told(2, "hashtag", "#VelvetPicnic", later, 50, later)])
    advance(store.engine, JUDGE, TIMES, later)
    assert {trend.phrase for trend in kept(store, later).trends} == {"Lantern Picnic", "Velvet Picnic"}
    store.close()


def test_where_nothing_was_read_for_long_what_was_removed_meanwhile_does_no_harm(tmp_path: Path) -> None:
    store = ObservationStore.at(tmp_path / "trends.sqlite3")
    store.add([told(n, "headline", HEADLINES[n], NOW, None, NOW) for n in range(6)])
    store.add([told(0, "article", "Ada Moon", NOW, 50, NOW)])
    advance(store.engine, JUDGE, TIMES, NOW)
    later = NOW + timedelta(days=60)
    prune(store.engine, [], now=later, kept=timedelta(days=30))
    store.add([told(2, "hashtag", "#VelvetPicnic", later, 50, later)])
    advance(store.engine, JUDGE, TIMES, later)
    assert rounded(kept(store, later)) == rounded(decided(store, later))
    store.close()
