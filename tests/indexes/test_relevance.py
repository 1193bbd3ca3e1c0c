"""Relevance is a probability that grows with each signal; what says the same is kept once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.relevance import Signals, distinct, relevance, squeezed, wanted
from tests.fakes import make_trend

PART = st.floats(0, 1, width=32)


def chance(cosine: float, lexical: float, bridge: float | None) -> float:
    one, two = np.array([cosine], dtype=np.float32), np.array([lexical], dtype=np.float32)
    three = None if bridge is None else np.array([bridge], dtype=np.float32)
    return float(relevance(Signals(one, two, three))[0])


@given(PART, PART, st.none() | PART, PART)
def test_it_is_a_probability_that_no_signal_lowers(
    cosine: float, lexical: float, bridge: float | None, more: float
) -> None:
    before = chance(cosine, lexical, bridge)
    assert 0 <= before <= 1
    assert chance(min(1, cosine + more), lexical, bridge) >= before
    assert chance(cosine, min(1, lexical + more), bridge) >= before
    if bridge is not None:
        assert chance(cosine, lexical, min(1, bridge + more)) >= before


@given(st.lists(st.floats(0, 1000, width=32), min_size=1))
def test_a_squeezed_score_keeps_its_order_and_stays_below_one(scores: list[float]) -> None:
    raw = np.array(scores, dtype=np.float32)
    found = squeezed(raw)
    assert ((found >= 0) & (found < 1)).all()
    assert (np.diff(found[np.argsort(raw)]) >= 0).all()


@given(PART, PART)
def test_heat_and_freshness_move_a_rank_by_a_sixth_at_most(score: float, left: float) -> None:
    factor = float(wanted(np.array([score], dtype=np.float32), np.array([left], dtype=np.float32))[0])
    assert 0.85 <= factor <= 1.0001


@given(st.permutations(range(6)), st.integers(1, 6))
def test_what_is_kept_is_a_part_of_the_order_with_the_best_first(order: list[int], most: int) -> None:
    trends = [make_trend(f"trend {row % 3}") for row in range(6)]  # rows 3 apart have one name
    apart = {row: np.eye(6, dtype=np.float32)[[row]] for row in range(6)}
    kept = distinct(order, trends, apart, most)
    assert kept[0] == order[0]
    assert kept == [row for row in order if row in kept]
    assert len(kept) == min(most, 3)
    assert len({row % 3 for row in kept}) == len(kept)


@pytest.mark.parametrize(("cosine", "kept"), [(0.9, [0]), (0.3, [0, 1])])
def test_near_vectors_are_one_trend(cosine: float, kept: list[int]) -> None:
    one = np.array([[1, 0]], dtype=np.float32)
    other = np.array([[0, 1], [cosine, np.sqrt(1 - cosine**2)]], dtype=np.float32)
    assert distinct([0, 1], [make_trend("alpha"), make_trend("beta")], {0: one, 1: other}, 5) == kept
