import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.score import FLOOR, Point, burst, course, decay, rate, scaled, strength, units
from tests.ingest.fakes import HOUR, NOW

HALF_LIFE = timedelta(hours=12)


def point(
    hours_ago: float, volume: int | None = 100, family: str = "a", source: str = "s", usual: float | None = None
) -> Point:
    return Point(source, family, "key", "form", NOW - hours_ago * HOUR, volume, usual)


UNIT = {"s": 100.0}


def score(*points: Point, at_hours: float = 0) -> float:
    return rate(points, UNIT, NOW + at_hours * HOUR, HALF_LIFE).score


def test_a_first_sighting_is_measured_against_the_floor() -> None:
    assert burst(1.0, 0.0) == pytest.approx((1 - FLOOR) ** 2 / FLOOR) == pytest.approx(2.25)
    assert score(point(0)) == pytest.approx(scaled(2.25))


@pytest.mark.parametrize(("volume", "value"), [(0, 0.0), (100, 1.0), (None, 1.0), (300, 1.5)])
def test_strength(volume: int | None, value: float) -> None:
    assert strength(volume, 100.0) == pytest.approx(value)


def test_a_sources_unit_is_its_median_volume() -> None:
    assert units([point(0, 10), point(0, 30), point(0, 1000), point(0, None), point(0, 0)]) == {"s": 30.0}


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.floats(0, 5))
def test_more_observed_is_never_scored_lower(one: int, other: int, usual: float) -> None:
    less, more = sorted((one, other))
    assert score(point(0, less, usual=usual)) <= score(point(0, more, usual=usual)) + 1e-9


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 50))
def test_more_expected_never_bursts_more(observed: float, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert burst(observed, less) >= burst(observed, more) - 1e-9


@given(st.integers(1, 10**6), st.floats(0, 200))
def test_a_half_life_after_the_end_the_score_is_half(volume: int, hours: float) -> None:
    now, later = score(point(0, volume), at_hours=hours), score(point(0, volume), at_hours=hours + 12)
    assert later == pytest.approx(now / 2, abs=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**7), st.sampled_from("abc")), min_size=1, max_size=12),
    st.randoms(),
)
def test_scores_lie_in_the_unit_interval_and_order_does_not_matter(
    rows: list[tuple[int, int, str]], random: object
) -> None:
    points = [point(hours, volume, family) for hours, volume, family in rows]
    rated = rate(points, UNIT, NOW, HALF_LIFE)
    assert 0 <= rated.score <= 1
    assert math.isfinite(rated.velocity)
    random.shuffle(points)  # type: ignore[attr-defined]  # Hypothesis' Random
    assert rate(points, UNIT, NOW, HALF_LIFE) == rated


def test_publishers_count_by_family() -> None:
    one = score(point(0), point(0, family="a", source="s2"))
    two = score(point(0), point(0, family="b", source="s2"))
    assert score(point(0)) <= one < two


def test_seeing_the_same_list_again_adds_nothing() -> None:
    assert score(point(0), point(0), point(0)) == score(point(0))


def test_what_is_there_every_day_does_not_burst() -> None:
    daily = [point(24 * day) for day in range(8)]
    assert score(*daily) < 0.05 < score(point(0))


def test_a_sources_own_baseline_counts() -> None:
    assert score(point(0, 100, usual=100)) == 0
    assert score(point(0, 100, usual=5)) > 0.3


def test_stages() -> None:
    def stage(*points: Point, hours: float = 0, began_hours_ago: float = 0) -> tuple[str, bool]:
        rated = rate(points, UNIT, NOW + hours * HOUR, HALF_LIFE, NOW - began_hours_ago * HOUR)
        return rated.stage, rated.velocity > 0

    assert stage(point(0)) == ("rising", True)
    assert stage(point(2, 50), point(1, 200), point(0, 2000)) == ("rising", True)
    assert stage(point(2, 2000), point(1, 2000), point(0, 2000)) == ("peaking", False)
    assert stage(point(0), began_hours_ago=20) == ("peaking", True)
    assert stage(point(0), hours=10) == ("fading", False)


def test_decay() -> None:
    assert decay(timedelta(0), HALF_LIFE) == 1
    assert decay(HALF_LIFE, HALF_LIFE) == 0.5
    assert decay(-HALF_LIFE, HALF_LIFE) == 1


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**7), st.sampled_from("abc")), min_size=1, max_size=12),
    st.floats(0, 500),
)
def test_a_course_gives_the_rating_at_any_later_time(rows: list[tuple[int, int, str]], hours: float) -> None:
    points = [point(ago, volume, family) for ago, volume, family in rows]
    kept = course(points, UNIT, HALF_LIFE)
    later = NOW + hours * HOUR
    assert kept.at(later, HALF_LIFE) == rate(points, UNIT, later, HALF_LIFE)
    assert kept.at(later, HALF_LIFE).score == pytest.approx(kept.potential * decay(later - kept.last, HALF_LIFE))
