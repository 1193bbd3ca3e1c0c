"""Concepts link trends and scenes that share no word; their vectors are made once and survive damage."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from indexes import concepts as module
from indexes.concepts import Concept, Concepts, link, make_concepts, open_concepts, read_concepts
from indexes.publishing import publish
from indexes.retriever import TrendRetriever
from indexes.snapshot import open_newest
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.test_retriever import ALL
from trendrag.types import TrendFilters

EMBEDDER = HashEmbedder()
KNOWN = (
    Concept(id="chess", about=("world chess final", "chess title"), scenes=("knight takes grandpa smirks",)),
    Concept(id="bears", about=("fat bear week",), scenes=("belly up after lunch", "asleep on the rug")),
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_concepts", lambda: KNOWN)


def test_ours_are_all_complete_and_named_once() -> None:
    ours = read_concepts()
    assert len({each.id for each in ours}) == len(ours)
    assert all(each.about and each.scenes for each in ours)


def test_a_trend_is_found_by_a_scene_that_shares_no_word_with_it(tmp_path: Path) -> None:
    trends = [make_trend("chess title"), make_trend("budget airline")]
    publish(tmp_path, trends, EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=1)
    snapshot = open_newest(tmp_path, EMBEDDER)
    found = {
        name: retriever(tmp_path, given).search(snapshot, "grandpa smirks knight takes", ALL)
        for name, given in (("with", make_concepts(EMBEDDER, tmp_path)), ("without", None))
    }
    assert [hit.trend.phrase for hit in found["with"].trends] == ["chess title"]
    assert found["without"].trends == ()
    assert found["without"].reason == "No trend fits this photo."


def test_concepts_are_used_once_they_are_there(tmp_path: Path) -> None:
    publish(tmp_path, [make_trend("chess title")], EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=1)
    make_concepts(EMBEDDER, tmp_path)
    loaded = retriever(tmp_path, None)
    loaded.load()
    answer = loaded.search(open_newest(tmp_path, EMBEDDER), "grandpa smirks knight takes", TrendFilters())
    assert [hit.trend.phrase for hit in answer.trends] == ["chess title"]


def retriever(directory: Path, concepts: Concepts | None) -> TrendRetriever:
    return TrendRetriever(
        directory,
        EMBEDDER,
        k=5,
        threshold=0.5,
        max_age=timedelta(hours=72),
        concepts=concepts,
        concepts_dir=None if concepts else directory,
        now=lambda: NOW,
    )


def test_none_before_they_are_made_and_the_same_ever_after(tmp_path: Path) -> None:
    assert open_concepts(EMBEDDER, tmp_path) is None
    made = make_concepts(EMBEDDER, tmp_path)
    again = open_concepts(EMBEDDER, tmp_path)
    assert again is not None
    assert np.array_equal(made.scenes, again.scenes)
    assert np.array_equal(made.about, again.about)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all" * 50])
def test_a_damaged_file_is_as_good_as_none_and_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    make_concepts(EMBEDDER, tmp_path)
    (path,) = tmp_path.glob("concepts-*.npy")
    path.write_bytes(damage)
    assert open_concepts(EMBEDDER, tmp_path) is None
    make_concepts(EMBEDDER, tmp_path)
    assert open_concepts(EMBEDDER, tmp_path) is not None


def test_links_agree_with_the_definition() -> None:
    rng = np.random.default_rng(5)
    unit = rng.normal(size=(30, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    about, vectors, owners = unit[:9], unit[9:], np.sort(rng.integers(0, 6, 21))
    starts = np.array([0, 1, 4, 6])
    links = link(Concepts(about, starts, about, starts), vectors, owners, 6)
    for row in range(6):
        for place, concept in enumerate(links.concepts[row].tolist()):
            own = about[starts[concept] : [*starts, 9][concept + 1]]
            near = max((np.sort(own @ vector)[-2:].mean() for vector in vectors[owners == row]), default=-1.0)
            expected = max(0.0, (near - module.FLOOR) / (1 - module.FLOOR)) ** module.EXPONENT
            assert links.weights[row, place] == pytest.approx(expected, abs=1e-5)


def test_progress_is_told_and_what_it_raises_ends_the_work(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make_concepts(EMBEDDER, tmp_path / "one", lambda done, total: told.append((done, total)))
    assert told == [(0, 6), (6, 6)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_concepts(EMBEDDER, tmp_path / "other", stop)
    assert not (tmp_path / "other").exists()
