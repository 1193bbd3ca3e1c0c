import shutil

import pytest

from evals.record import Item
from evals.statistics import figure
from evals.tasks.caption import CaptionTask
from evals.tasks.photos import read_photos

TASK = CaptionTask(read_photos(None, None, limit=4))


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second a run in place of a quarter of a minute; the measures have tests of their own."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_the_chain_is_asked_to_describe_or_for_a_caption_without_trends() -> None:
    assert {question.ask["alt_text"] for question in TASK.questions} == {True}
    caption = CaptionTask(TASK.photos, style="caption")
    assert {(question.ask["alt_text"], question.ask["trends"]) for question in caption.questions} == {(False, False)}


def test_anchors_are_of_the_same_photos_and_know_nothing_of_them() -> None:
    constant, other, person = (items for _, items in TASK.anchors())
    ids = [case.id for case in TASK.photos.cases]
    for items in (constant, other, person):
        assert [item.id for item in items] == ids
    assert len({item.output for item in constant}) == 1
    assert all(item.output not in item.references for item in other)
    for case, item in zip(TASK.photos.cases, person, strict=True):
        assert {item.output, *item.references} == set(case.references)
        assert item.output not in item.references


def test_a_person_is_better_than_a_sentence_that_never_changes() -> None:
    def cider(items: tuple[Item, ...]) -> float:
        finished = TASK.finished(items, [{} for _ in items])
        found = figure(next(each for each in finished.measures if each.name == "CIDEr"), finished.items)
        assert found is not None
        return found.value

    values = {label: cider(items) for label, items in TASK.anchors()}
    assert values["anchor: a person, against the others"] > 2 * values["anchor: one constant sentence"]


def test_a_failed_photo_has_no_scores_and_the_others_keep_theirs() -> None:
    ids = [case.id for case in TASK.photos.cases]
    items = [TASK.scored(Item(id=id_, output="A cup of coffee."), {}) for id_ in ids[:3]]
    items.append(TASK.scored(Item(id=ids[3], error="gone"), {}))
    finished = TASK.finished(items, [{} for _ in items])
    assert ["CIDEr" in item.scores for item in finished.items] == [True, True, True, False]
    assert any("Java" in note for note in finished.notes)
    nothing = TASK.finished([Item(id=ids[0], error="gone")], [{}])
    assert nothing.items[0].scores == {}
