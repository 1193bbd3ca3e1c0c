"""Figures of runs, their intervals, and whether two runs differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.measures.captions import bleu_counts
from evals.measures.kendall import tau
from evals.record import Item, Measure
from evals.statistics import LATENCY, WORDS, difference, differs, figure, measures, paired, value
from trendrag.errors import RequestError

QUALITY = Measure(name="quality")
NUMBERS = st.floats(-100, 100)


def scored(values: list[float | None], name: str = "quality") -> list[Item]:
    return [Item(id=str(number), scores={name: each}) for number, each in enumerate(values)]


@settings(max_examples=20, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_a_mean_lies_in_its_interval_and_that_between_the_extremes(values: list[float]) -> None:
    found = figure(QUALITY, scored([*values]))
    assert found
    assert found.n == len(values)
    assert found.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_the_interval_is_that_of_theory_where_there_is_one() -> None:
    values = np.random.default_rng(5).normal(size=400).tolist()
    found = figure(QUALITY, scored([*values]))
    assert found
    error = float(np.std(values)) / 400**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found == figure(QUALITY, scored([*values]))


def test_items_that_say_nothing_are_not_counted() -> None:
    found = figure(QUALITY, scored([1.0, None, 3.0]))
    assert found
    assert (found.value, found.n) == (2.0, 2)
    assert figure(QUALITY, scored([None])) is None


def test_corpus_measures_are_of_sums_not_means() -> None:
    items = [Item(id="1", counts={"hits": (1, 1)}), Item(id="2", counts={"hits": (0, 9)})]
    found = figure(Measure(name="recall", how="ratio", counts="hits"), items)
    assert found
    assert found.value == pytest.approx(0.1)
    f1 = figure(Measure(name="F1", how="f1"), [Item(id="1", counts={"F1": (2, 4, 3)})])
    assert f1
    assert f1.value == pytest.approx(4 / 7)
    assert figure(Measure(name="recall", how="ratio"), [Item(id="1", counts={"recall": (0, 0)})]) is None


def test_a_ratio_of_few_is_of_few_however_many_items_there_are() -> None:
    measure = Measure(name="right", how="ratio")

    def items(taken: int) -> list[Item]:
        return [Item(id=str(number), counts={"right": (0.0, float(number < taken))}) for number in range(40)]

    found = figure(measure, items(3))
    assert found is not None
    assert found.n == 3
    change = difference(measure, list(zip(items(12), items(1), strict=True)))
    assert change is not None
    assert change.n == 1
    assert not differs(change)


def test_how_soon_a_call_failed_is_no_time_of_an_answer() -> None:
    items = [Item(id="1", output="a", latency_s=2.0), Item(id="2", error="refused", latency_s=0.001)]
    found = figure(LATENCY, items)
    assert found is not None
    assert (found.value, found.n) == (2.0, 1)


def test_bleu_of_a_run_is_the_bleu_of_its_texts_together() -> None:
    def item(name: str, output: str, *references: str) -> Item:
        return Item(id=name, counts={"bleu": bleu_counts(output.split(), [each.split() for each in references])})

    items = [
        item("1", "the cat sat on the mat", "the cat sat on the mat", "a cat on a mat"),
        item("2", "dogs", "two dogs run"),
    ]
    one = figure(Measure(name="BLEU-1", how="bleu-1", counts="bleu"), items)
    assert one
    assert one.value == pytest.approx(np.exp(1 - 9 / 7))  # every word is right, two are missing
    four = figure(Measure(name="BLEU-4", how="bleu-4", counts="bleu"), items[:1])
    assert four
    assert four.value == pytest.approx(1.0)
    assert value(Measure(name="BLEU-4", how="bleu-4", counts="bleu"), items[1]) == 0.0


def test_a_word_counts_as_often_as_a_reference_has_it() -> None:
    assert bleu_counts(["the"] * 7, [["the", "cat", "the"], ["a"]])[0] == 2


def test_times_and_lengths_are_shown_without_being_asked_for() -> None:
    items = [Item(id=str(number), output="one two", latency_s=number) for number in range(1, 12)]
    assert measures(items, [QUALITY])[:1] == (QUALITY,)
    assert {WORDS, LATENCY} <= set(measures(items, [QUALITY]))
    middle = figure(LATENCY, items)
    assert middle
    assert middle.value == 6
    assert measures(scored([1.0]), [QUALITY]) == (QUALITY,)


@settings(max_examples=10, deadline=None)
@given(st.lists(NUMBERS, min_size=10, max_size=20), st.floats(0.5, 5))
def test_a_constant_gain_differs_however_much_the_items_do(before: list[float], gain: float) -> None:
    pairs = list(zip(scored([*before]), scored([each + gain for each in before]), strict=True))
    change = difference(QUALITY, pairs)
    assert change
    assert differs(change)
    assert change.low == pytest.approx(gain)
    back = difference(QUALITY, [(new, old) for old, new in pairs])
    assert back
    assert back.value == pytest.approx(-change.value)


@settings(max_examples=10, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_a_run_does_not_differ_from_itself(values: list[float]) -> None:
    items = scored([*values])
    change = difference(QUALITY, list(zip(items, items, strict=True)))
    assert change
    assert (change.low, change.value, change.high) == (0, 0, 0)
    assert not differs(change)


def test_chance_is_called_a_difference_about_one_time_in_twenty() -> None:
    generator = np.random.default_rng(7)
    called = 0
    for _ in range(200):
        before, after = generator.random((2, 30)).tolist()
        pairs = list(zip(scored(before), scored(after), strict=True))
        change = difference(QUALITY, pairs)
        assert change
        called += differs(change)
    assert 2 <= called <= 24


def test_few_items_never_differ() -> None:
    pairs = list(zip(scored([0.0] * 9), scored([1.0] * 9), strict=True))
    change = difference(QUALITY, pairs)
    assert change
    assert not differs(change)


def test_runs_over_other_cases_are_refused() -> None:
    with pytest.raises(RequestError, match=r"1 only in A \(2\)"):
        paired(scored([1, 2, 3]), scored([1, 2]))
    with pytest.raises(RequestError, match="references differ in 1 of 1"):
        paired([Item(id="1", references=("a",))], [Item(id="1", references=("b",))])
    assert [old.id for old, _ in paired(scored([1, 2]), scored([1, 2])[::-1])] == ["0", "1"]


def naive_tau(values: list[int], grades: list[int]) -> tuple[float, float]:
    n, surplus, pairs_x, pairs_y = len(values), 0, 0, 0
    for one in range(n):
        for other in range(one):
            x, y = values[one] - values[other], grades[one] - grades[other]
            surplus += (x * y > 0) - (x * y < 0)
            pairs_x, pairs_y = pairs_x + (x != 0), pairs_y + (y != 0)
    least = min(len(set(values)), len(set(grades)))
    return surplus / (pairs_x * pairs_y) ** 0.5, 2 * surplus * least / (n * n * (least - 1))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 4)), min_size=2, max_size=30))
def test_kendalls_tau_is_that_of_its_definition(rows: list[tuple[int, int]]) -> None:
    values, grades = [row[0] for row in rows], [row[1] for row in rows]
    if len(set(values)) < 2 or len(set(grades)) < 2:
        with pytest.raises(ValueError, match="undefined"):
            tau(values, grades)
        return
    assert tau(values, grades) == pytest.approx(naive_tau(values, grades))
