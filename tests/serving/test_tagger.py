"""The tagger on real photos, and what becomes of its classes' names."""

import asyncio
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from serving.images import prepare_image
from serving.models.tagger import SURE, Tag, TagDescriber, Tagger, describe_tags, pixels, read_labels
from serving.models.tagger_graph import graph_file
from serving.models.tagger_words import plain_name, plain_words
from trendrag.errors import InvalidImage, WeightsError
from trendrag.settings import ImageSettings, default_data_dir
from trendrag.types import PreparedImage

PHOTOS = Path(__file__).parents[1] / "photos"
MODELS = default_data_dir() / "models"


def photo(name: str) -> PreparedImage:
    return prepare_image((PHOTOS / f"{name}.jpg").read_bytes(), ImageSettings())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("coffee", "espresso"),
        ("cat", "cat"),
        ("cyclists", "bicycle"),
        ("photographer", "tripod"),
        ("flower", ""),  # the network thinks of a honeycomb, and is not sure of it
        ("astronaut", ""),
    ],
)
async def test_it_says_what_is_sure_and_nothing_else(name: str, said: str) -> None:
    assert (await TagDescriber(Tagger(MODELS)).describe(photo(name))).text == said


async def test_tags_come_best_first_and_are_probabilities() -> None:
    tags = await Tagger(MODELS).tags(photo("cat"), k=10)

    assert tags[0].name == "cat"
    assert [tag.probability for tag in tags] == sorted((tag.probability for tag in tags), reverse=True)
    assert 0 <= sum(tag.probability for tag in tags) <= 1.0001


async def test_one_tagger_serves_many_at_once() -> None:
    tagger = Tagger(MODELS)

    answers = await asyncio.gather(*(tagger.tags(photo("coffee")) for _ in range(8)))

    assert {answer[0].name for answer in answers} == {"espresso"}


async def test_missing_weights_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="trendrag models fetch"):
        await Tagger(tmp_path).tags(photo("cat"))


def test_a_graph_of_other_weights_is_never_used(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")
    cached = tmp_path / f"w-{hashlib.sha256(b'one').hexdigest()[:16]}-v1.onnx"
    cached.write_bytes(b"a graph made of one")

    assert graph_file(weights, hashlib.sha256(b"one").hexdigest()) == cached
    weights.write_bytes(b"two")
    with pytest.raises(WeightsError):  # not the cached graph: "two" is read, and is no network
        graph_file(weights, hashlib.sha256(b"two").hexdigest())
    with pytest.raises(WeightsError, match="checksum"):
        graph_file(weights, hashlib.sha256(b"three").hexdigest())


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(InvalidImage):
        pixels(b"\xff\xd8\xff not a photo")


def test_pixels_are_what_the_network_takes() -> None:
    values = pixels(photo("coffee").data)

    assert values.shape == (1, 3, 260, 260)
    assert values.dtype == np.float32
    assert -127 / 128 <= values.min() < values.max() <= 1


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([], ""),
        ([Tag("cat", SURE - 0.01)], ""),
        ([Tag("cat", SURE)], "cat"),
        ([Tag("espresso", 0.6), Tag("cup", 0.3), Tag("plate", 0.05)], "espresso, cup"),
    ],
)
def test_only_probable_words_are_said(tags: list[Tag], said: str) -> None:
    assert describe_tags(tags) == said


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        ("tabby cat", "tabby cat"),
        ("kite (bird of prey)", "kite"),
        ("cardboard box / carton", "cardboard box"),
        ("tights for gymnastics, a one-piece leotard, or a sport jersey", "tights for gymnastics"),
    ],
)
def test_a_name_loses_its_explanations(label: str, plain: str) -> None:
    assert plain_name(label) == plain


def test_breeds_and_kinds_get_the_word_that_people_say() -> None:
    labels = read_labels(MODELS / "imagenet1k-clean-names.json")
    words = dict(zip(labels, plain_words(labels), strict=True))

    said = {name: words[name] for name in ("Golden Retriever", "Siamese cat", "mountain bike", "airliner", "espresso")}
    assert said == {
        "Golden Retriever": "dog",
        "Siamese cat": "cat",
        "mountain bike": "bicycle",
        "airliner": "plane",
        "espresso": "espresso",
    }
    assert all(words.values())


def test_names_that_are_damaged_say_so(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(["tench"]))

    with pytest.raises(WeightsError, match="--verify"):
        read_labels(file)
