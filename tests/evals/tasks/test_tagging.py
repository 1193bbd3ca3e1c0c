import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.tasks.answers import json_object
from evals.tasks.photos import PhotoCase
from evals.tasks.tagging import compared, read_tags, recall

CASE = PhotoCase(id="1", image="1.jpg", tags=("cup|mug", "spoon", "wooden table"))
TAGS = st.lists(st.sampled_from(["mug", "cup", "spoons", "Wooden  tables", "dog", "", "red"]), max_size=8)
TREES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ('{"tags": ["Cup", "cups", " spoon "]}', ("cup", "spoon")),
        ('Here you are:\n```json\n{"tags": ["a cup"]}\n```', ("a cup",)),
        ('{"tags": ["glass", "bus", "flowers", 3, null]}', ("glass", "bus", "flower")),
        ('{"tags": "cup"}', ()),
        ('{"tags": ["cup", "spo', ()),
        ("cup, spoon", ()),
        ("{" * 5_000, ()),
        ("", ()),
    ],
)
def test_tags_are_those_of_the_json_that_was_asked_for(answer: str, tags: tuple[str, ...]) -> None:
    assert read_tags(answer) == tags


def test_recall_counts_gold_tags_by_any_of_their_ways() -> None:
    assert recall(CASE, read_tags('{"tags": ["Mugs", "cup", "dog", "wooden-table"]}')) == pytest.approx(2 / 3)


@given(TAGS, TAGS)
def test_more_tags_never_lower_recall_and_their_order_is_nothing(tags: list[str], more: list[str]) -> None:
    forms = [compared(tag) for tag in tags]
    assert 0 <= recall(CASE, forms) <= recall(CASE, [compared(tag) for tag in [*more, *tags]]) <= 1
    assert recall(CASE, forms) == recall(CASE, forms[::-1])


@given(st.dictionaries(st.text(), TREES), st.text(st.characters(exclude_characters="{}")), st.text())
def test_the_first_object_is_found_whatever_is_around_it(told: dict[str, object], before: str, after: str) -> None:
    assert json_object(before[:1_000] + json.dumps(told) + after) == told
