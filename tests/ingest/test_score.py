import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.score import (
    HISTORY,
    PEAK_HOURS,
    STAGES,
    Courses,
    Coverage,
    Point,
    Rating,
    burst,
    course,
    coverage,
    decay,
    hour_of,
    power,
    rate,
    scaled,
    strength,
    units,
)
from tests.ingest.fakes import HOUR, NOW
from trendrag.clock import microseconds

HALF_LIFE = timedelta(hours=12)
UNIT = {"s": 100.0}
Row = tuple[int, int, str]


def point(
    hours_ago: float, volume: int | None = 100, family: str = "a", source: str = "s", usual: float | None = None
) -> Point:
    return Point(source, family, "key", "form", NOW - hours_ago * HOUR, volume, usual)


def score(*points: Point, at_hours: float = 0, read: Coverage | None = None) -> float:
    return rate(points, UNIT, NOW + at_hours * HOUR, HALF_LIFE, read=read).score


def read_at(*hours_ago: int) -> Coverage:
    return {"s": np.array(sorted(hour_of(NOW - ago * HOUR) for ago in hours_ago))}


def daily(days: Sequence[int], volume: int = 100) -> list[Point]:
    return [point(24 * day, volume) for day in days]


rows = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 10**7), st.sampled_from("abc")), min_size=1, max_size=12)


def of_rows(found: Sequence[Row]) -> list[Point]:
    return [point(hours, volume, family) for hours, volume, family in found]


@pytest.mark.parametrize(("volume", "value"), [(0, 0.0), (100, 1.0), (300, 1.5), (1, 0.507)])
def test_strength(volume: int | None, value: float) -> None:
    assert strength(volume, 100.0) == pytest.approx(value, abs=1e-3)


def test_an_item_of_unknown_volume_lies_between_the_least_and_the_median() -> None:
    assert strength(1, 100.0) < strength(None, 100.0) < strength(100, 100.0)


def test_a_sources_unit_is_its_median_volume() -> None:
    assert units([point(0, 10), point(0, 32), point(0, 1000), point(0, None), point(0, 0)]) == {"s": 32.0}


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.floats(0, 5), rows)
@example(1, 2, 2.0, [(1, 219, "a")])  # what is usual once counted for no more than what was seen
def test_more_observed_is_never_scored_lower(one: int, other: int, usual: float, before: list[Row]) -> None:
    less, more = sorted((one, other))
    past = [each for each in of_rows(before) if each.at < NOW]
    assert score(point(0, less, usual=usual), *past) <= score(point(0, more, usual=usual), *past) + 1e-9


@given(st.floats(0, 50), st.floats(0.1, 50), st.floats(0, 50), st.floats(0, 50))
def test_more_expected_never_bursts_more(observed: float, variance: float, one: float, other: float) -> None:
    expected = np.array(sorted((one, other)))
    low, high = burst(np.full(2, observed), expected, np.full(2, variance))
    assert low >= high >= 0


@given(rows, st.floats(0, 200))
def test_a_half_life_after_the_end_the_score_is_half(found: list[Row], hours: float) -> None:
    now, later = score(*of_rows(found), at_hours=hours), score(*of_rows(found), at_hours=hours + 12)
    assert later == pytest.approx(now / 2, abs=1e-12)


@given(rows, st.randoms())
def test_scores_lie_in_the_unit_interval_and_order_does_not_matter(found: list[Row], random: object) -> None:
    points = of_rows(found)
    rated = rate(points, UNIT, NOW, HALF_LIFE, read=coverage(points))
    assert 0 <= rated.score <= 1
    assert math.isfinite(rated.velocity)
    random.shuffle(points)  # type: ignore[attr-defined]  # Hypothesis' Random
    assert rate(points, UNIT, NOW, HALF_LIFE, read=coverage(points)) == rated


@given(rows, st.integers(0, 71))
def test_a_course_scores_by_the_strongest_of_its_moments(found: list[Row], hours: int) -> None:
    """What was the score at any moment before has only decayed since."""
    points = of_rows(found)
    moment = max(each.at for each in points) - hours * HOUR
    now = course(points, UNIT, HALF_LIFE).at(NOW, HALF_LIFE).score
    if earlier := [each for each in points if each.at <= moment]:
        then = course(earlier, UNIT, HALF_LIFE)
        if max(each.at for each in points) - then.last < (PEAK_HOURS - 1) * HOUR:
            assert now >= then.height * decay(NOW - then.last, HALF_LIFE) - 1e-9


@given(rows, st.integers(0, 10**6))
def test_what_is_older_than_the_history_changes_nothing(found: list[Row], volume: int) -> None:
    points = of_rows(found)
    old = Point("s", "a", "key", "form", max(each.at for each in points) - HISTORY - HOUR, volume)
    assert rate([*points, old], UNIT, NOW, HALF_LIFE) == rate(points, UNIT, NOW, HALF_LIFE)


@given(rows, st.integers(0, 10**6))
def test_another_family_never_lowers_the_score(found: list[Row], volume: int) -> None:
    points = of_rows(found)
    # Seen by it at the moment of the topic's last sighting, so that no other moment comes under scrutiny.
    last = max(each.at for each in points)
    other = Point("s", "d", "key", "form", last, volume)
    assert score(*points, other) >= score(*points) - 1e-9


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_family_alone_is_never_above_two_that_agree(alone: int, number: int) -> None:
    read = read_at(*range(0, 400, 6))
    hyped = [point(hours, alone, source=f"s{number}") for number in range(3) for hours in range(6)]
    assert score(*hyped, read=read) < score(point(0), point(0, family="b"), read=read)


def test_publishers_count_by_family() -> None:
    one = score(point(0), point(0, family="a", source="s2"))
    two = score(point(0), point(0, family="b", source="s2"))
    assert score(point(0)) <= one < two


def test_seeing_the_same_list_again_adds_nothing() -> None:
    assert score(point(0), point(0), point(0)) == score(point(0))


def test_what_is_there_every_day_does_not_burst() -> None:
    assert score(*daily(range(15))) < 0.05 < score(point(0))


def test_what_comes_every_week_does_not_burst_on_its_day() -> None:
    assert score(point(0)) > 0.4
    assert score(*daily([0, 7, 14])) == 0
    assert score(*daily([0, 7])) == 0
    assert score(*daily([0, 3, 10])) > 0.2  # as often, and on another day


def test_what_comes_and_goes_bursts_less_than_what_is_new_or_steady_before() -> None:
    erratic = [point(0, 1000), *daily([1, 5, 9], 1000)]
    steady = [point(0, 1000), *daily(range(1, 15))]
    assert score(*erratic) < score(*steady) < score(point(0, 1000))


@given(st.integers(1, 13), st.integers(1, 10**5), st.integers(1, 10**5))
def test_an_outage_raises_no_score(days: int, usual: int, volume: int) -> None:
    """Days on which nothing could be read look like days on which nothing was said. They count as neither."""
    rest = range(days + 1, 15)
    out = score(point(0, volume), *daily(rest, usual), read=read_at(0, *(24 * day for day in rest)))
    without = score(point(0, volume), *daily(range(1, 15), usual), read=read_at(*range(0, 360, 24)))
    assert out <= without + 1e-9
    assert days > 6 or out == pytest.approx(without, abs=0.1)


def test_after_an_outage_what_was_usual_before_still_is() -> None:
    seen = [point(0), *daily(range(8, 14))]
    assert score(*seen, read=read_at(0, *(24 * day for day in range(8, 14)))) < 0.02
    assert score(*seen) > 0.1


def test_the_first_day_of_a_source_is_less_sure_than_a_later_one() -> None:
    assert 0 < score(point(0), read=read_at(0)) < score(point(0), read=read_at(*range(0, 360, 24))) / 2


def test_coverage_is_when_a_source_said_anything() -> None:
    seen = [point(0), point(0.5), point(30, source="t")]
    found = coverage(seen)
    assert {source: hours.tolist() for source, hours in found.items()} == {
        "s": sorted({hour_of(seen[0].at), hour_of(seen[1].at)}),
        "t": [hour_of(seen[2].at)],
    }


def test_a_sources_own_baseline_counts() -> None:
    assert score(point(0, 100, usual=100)) == 0
    assert score(point(0, 100, usual=5)) > 0.3


def test_stages() -> None:
    def rated(*points: Point, hours: float = 0, began_hours_ago: float = 0) -> Rating:
        return rate(points, UNIT, NOW + hours * HOUR, HALF_LIFE, NOW - began_hours_ago * HOUR)

    assert rated(point(0)).stage == "rising"
    assert rated(point(0)).velocity > 0
    assert rated(point(13, 5), point(6, 20), point(0, 2000)).stage == "rising"
    assert rated(*(point(hours, 2000) for hours in range(14))).stage == "peaking"
    assert rated(point(0), began_hours_ago=20).stage == "peaking"
    falling = rated(*(point(10 + hours, 2000, family) for hours in range(6) for family in "abc"), point(0, 30))
    assert falling.stage == "fading"
    assert falling.velocity < 0
    assert rated(point(0), hours=10).stage == "fading"
    assert rated(point(0), hours=10).velocity < 0


@given(st.floats(0, 1e6))
def test_power_undoes_scaled(value: float) -> None:
    assert power(scaled(value)) == pytest.approx(value, rel=1e-6)


def test_decay() -> None:
    assert decay(timedelta(0), HALF_LIFE) == 1
    assert decay(HALF_LIFE, HALF_LIFE) == 0.5
    assert decay(-HALF_LIFE, HALF_LIFE) == 1


@given(st.lists(rows, min_size=1, max_size=5), st.floats(-1, 400), st.floats(1, 60))
def test_many_courses_at_once_are_each_what_it_is_alone(found: list[list[Row]], hours: float, half_life: float) -> None:
    half = timedelta(hours=half_life)
    alone = [course(of_rows(each), UNIT, half) for each in found]
    fields = [[microseconds(each.last) for each in alone]]
    fields += [[getattr(each, name) for each in alone] for name in Courses._fields[1:]]
    now = NOW + hours * HOUR
    together = Courses(*map(np.array, fields)).at(now, half)
    for number, each in enumerate(alone):
        expected = each.at(now, half)
        assert together.score[number] == pytest.approx(expected.score, abs=1e-9)
        assert together.velocity[number] == pytest.approx(expected.velocity, abs=1e-9)
        assert STAGES[together.stage[number]] == expected.stage


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=30))
def test_a_rounded_unit_moves_no_strength_by_more_than_a_sixteenth(volumes: list[int]) -> None:
    (unit,) = units([point(0, volume) for volume in volumes]).values()
    exact = sorted(volumes)[(len(volumes) - 1) // 2]
    for volume in (1, exact, 10**9):
        assert abs(strength(volume, unit) - strength(volume, exact)) <= 1 / 16 + 1e-9
