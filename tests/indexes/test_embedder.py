from pathlib import Path

import numpy as np
import pytest

from indexes.embedder import MiniLMEmbedder, open_embedder
from trendrag.errors import WeightsError
from trendrag.settings import default_data_dir


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return open_embedder(default_data_dir() / "models")


def test_vectors_have_the_promised_form(embedder: MiniLMEmbedder) -> None:
    vectors = embedder.embed(["a cup of coffee", "", "🙂", "x" * 20_000])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(embedder: MiniLMEmbedder) -> None:
    texts = ["latte art", "the rocket launch was delayed by rain over the coast", "tea"]
    np.testing.assert_array_equal(embedder.embed(texts)[0], embedder.embed(texts[:1])[0])


def test_nor_on_those_that_share_its_batch(embedder: MiniLMEmbedder) -> None:
    words = ("tea", "snow", "chess", "!!!!!", "rocket", "cat", "beach")
    texts = [f"{one} {two}" for one in words for two in words] + ["a much longer text stands among them"]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_array_equal(embedder.embed(texts), alone)


def test_what_is_alike_lies_near(embedder: MiniLMEmbedder) -> None:
    espresso, coffee, rocket = embedder.embed(["an espresso on a wooden table", "coffee", "a rocket launch"])
    assert espresso @ coffee > espresso @ rocket + 0.1


def test_missing_and_broken_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="trendrag models fetch"):
        open_embedder(tmp_path)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="trendrag models fetch"):
        MiniLMEmbedder(broken, broken)


def test_the_default_install_embeds_without_torch(embedder: MiniLMEmbedder) -> None:
    import sys

    assert "torch" not in sys.modules
