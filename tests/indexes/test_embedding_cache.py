from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.embedder import Vectors
from indexes.embedding_cache import CachedEmbedder
from tests.fakes import HashEmbedder


class CountingEmbedder(HashEmbedder):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        return super().embed(texts)


@given(st.lists(st.lists(st.text(max_size=5), max_size=8), max_size=4))
def test_it_answers_what_the_embedder_would(tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]) -> None:
    counting = CountingEmbedder()
    cached = CachedEmbedder(counting, tmp_path_factory.mktemp("cache") / "vectors.sqlite3")
    for texts in batches:
        vectors = cached.embed(texts)
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, HashEmbedder().embed(texts))
    assert sorted(counting.asked) == sorted({text for texts in batches for text in texts})


def test_it_outlives_the_process_and_keeps_embedders_apart(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "vectors.sqlite3"
    CachedEmbedder(CountingEmbedder(), file).embed(["tea"])
    again = CountingEmbedder()
    CachedEmbedder(again, file).embed(["tea", "coffee"])
    assert again.asked == ["coffee"]
    other = CountingEmbedder()
    other.sha256 = "1" * 64
    CachedEmbedder(other, file).embed(["tea"])
    assert other.asked == ["tea"]


@pytest.mark.parametrize("damage", [b"rubbish" * 1000, b""])
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "vectors.sqlite3"
    file.write_bytes(damage)
    np.testing.assert_array_equal(CachedEmbedder(HashEmbedder(), file).embed(["tea"]), HashEmbedder().embed(["tea"]))


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    vectors = CachedEmbedder(HashEmbedder(), tmp_path / "file" / "vectors.sqlite3").embed(["tea"])
    assert vectors.shape == (1, HashEmbedder.dim)
