"""The measures agree with what is worked out by hand, and keep their laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.bootstrap import mean, paired_difference
from evals.measures.abstention import abstention
from evals.measures.ndcg import ndcg
from evals.measures.recall import recall
from evals.measures.shares import repeats, share

_GRADES = st.lists(st.integers(0, 2), min_size=1, max_size=12).filter(any)


def test_ndcg_by_hand() -> None:
    # DCG = 1/log2(2) + 2/log2(4) = 2; the best order gives 2/log2(2) + 1/log2(3).
    assert ndcg([1, 0, 2], [2, 1], 5) == pytest.approx(2 / (2 + 1 / math.log2(3)))
    assert ndcg([], [1], 5) == 0


def test_ndcg_sees_no_further_than_k() -> None:
    assert ndcg([0, 0, 2], [2], 2) == 0
    assert ndcg([1, 1], [1, 1, 1, 1, 1], 2) == pytest.approx(1)


@given(_GRADES, st.randoms(use_true_random=False), st.integers(1, 8))
def test_ndcg_is_at_most_one_and_best_in_order(grades: list[int], random: object, k: int) -> None:
    shuffled = list(grades)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    assert 0 <= ndcg(shuffled, grades, k) <= ndcg(sorted(grades, reverse=True), grades, k) == pytest.approx(1)


def test_ndcg_without_anything_relevant_is_undefined() -> None:
    with pytest.raises(ValueError, match="undefined"):
        ndcg([0], [0], 5)


def test_recall_by_hand() -> None:
    assert recall(["a", "x", "b", "c"], {"a", "b", "c"}, 3) == pytest.approx(2 / 3)
    assert recall(["a", "b"], {"a", "b", "c"}, 2) == 1
    with pytest.raises(ValueError, match="undefined"):
        recall(["a"], set(), 5)


def test_abstention_by_hand() -> None:
    found = abstention([(True, True), (True, False), (False, True), (False, False), (False, True)])
    assert found.precision == 0.5
    assert found.recall == pytest.approx(1 / 3)
    assert abstention([(False, False)]).precision is None
    assert abstention([(False, False)]).recall is None


def test_repeats_and_shares() -> None:
    assert repeats(["a", "b", "a", "a"]) == [False, False, True, True]
    assert share([True, False]) == 0.5
    assert share([]) == 0


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_and_repeats(values: list[float]) -> None:
    found = mean(values)
    assert found is not None
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert found == mean(values)
    assert found.n == len(values)


def test_a_clear_difference_is_told_from_chance() -> None:
    better = paired_difference([0.9, 0.8, 0.7, 0.9, 0.8], [0.1, 0.2, 0.1, 0.2, 0.1])
    same = paired_difference([0.9, 0.1, 0.5], [0.1, 0.9, 0.5])
    assert better is not None
    assert better.low > 0
    assert same is not None
    assert same.low <= 0 <= same.high
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [])
