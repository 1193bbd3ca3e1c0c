from collections.abc import Mapping, Sequence

import pytest
from pydantic import JsonValue

from evals.record import Item, Lit, Tokens
from evals.statistics import figure
from evals.tasks.photos import OUR_IMAGES, PhotoCase, Photos
from evals.tasks.trends import TrendsTask

CASES = (
    PhotoCase(id="cat", image="cat.jpg", fits=("orange cat behaviour",)),
    PhotoCase(id="rocket", image="rocket.jpg", fits=()),
    PhotoCase(id="coffee", image="coffee.jpg"),
)
PHOTOS = Photos(
    "ours", "0" * 64, {case.id: case for case in CASES}, {case.id: OUR_IMAGES / case.image for case in CASES}
)
TASK = TrendsTask(PHOTOS)


def written(id_: str, text: str, *lit: str) -> Item:
    spans = [Lit(start=text.index(words), end=text.index(words) + len(words), phrase=words) for words in lit]
    return Item(id=id_, output=text, lit=tuple(spans), latency_s=1.5, tokens=Tokens(prompt=9, completion=4))


def scored(item: Item, **said: JsonValue) -> Mapping[str, float | None]:
    return TASK.scored(item, said).scores


def test_each_photo_is_asked_about_with_trends_and_without() -> None:
    asked = [(question.id, question.ask["trends"]) for question in TASK.questions]
    assert asked[:3] == [("cat/on", True), ("cat/off", False), ("rocket/on", True)]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (written("cat/on", "Pure Orange-Cat behaviour.", "Orange-Cat behaviour"), (1, None, 1, 0)),
        (written("cat/on", "Just zoomies.", "zoomies"), (1, None, 0, 1)),
        (written("cat/on", "A cat."), (0, None, 0, 0)),
        (written("rocket/on", "zoomies!", "zoomies"), (1, 0, None, 1)),
        (written("rocket/on", "A rocket."), (0, 1, None, 0)),
        (written("coffee/on", "zoomies!", "zoomies"), (1, None, None, None)),  # nobody said what fits
    ],
)
def test_what_a_caption_with_trends_is_worth(item: Item, expected: tuple[float | None, ...]) -> None:
    scores = scored(item)
    names = ("use", "abstention where none fits", "fitting use", "forced")
    assert tuple(scores[name] for name in names) == expected
    assert scores["abstention"] == 1 - expected[0]  # type: ignore[operator]


def test_without_trends_only_lengths_and_costs_are_said() -> None:
    scores = scored(written("cat/off", "A cat."))
    assert scores == {"characters off": 6, "latency off": 1.5, "completion tokens off": 4, "prompt tokens off": 9}


def test_a_failed_caption_has_no_scores() -> None:
    assert scored(Item(id="cat/on", error="gone")) == {}


def test_verbatim_is_over_all_mentions() -> None:
    lit: list[JsonValue] = [{"verbatim": True}, {"verbatim": False}, {"verbatim": True}]
    one = TASK.scored(written("cat/on", "a zoomies", "zoomies"), {"lit": lit})
    none = TASK.scored(written("rocket/on", "A rocket."), {"lit": []})
    measure = next(each for each in TASK.finished((), ()).measures if each.name == "verbatim")
    found = figure(measure, [one, none])
    assert found is not None
    assert found.value == pytest.approx(2 / 3)


def test_what_is_mentioned_by_chance_is_looked_for_in_the_caption_without() -> None:
    items = [written("cat/on", "A cat."), written("cat/off", "All zoomies."), written("rocket/off", "zoomies")]
    said: Sequence[Mapping[str, JsonValue]] = [{"offered": {"t1": "zoomies"}}, {}, {}]
    after = TASK.finished(items, said).items
    assert [item.scores.get("chance mentions") for item in after] == [None, 1.0, None]


def test_the_judges_word_counts_and_its_silence_does_not() -> None:
    assert scored(written("cat/on", "A cat."), judged={"grounded": False})["grounded on"] == 0
    assert "grounded on" not in scored(written("cat/on", "A cat."), judged={"error": "no JSON"})
