"""What was asked for lately costs nothing; what was asked for long ago takes no room."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexes.embedder import Vectors
from indexes.publishing import publish
from indexes.recent import MAX_TEXTS, Recent, RememberingEmbedder
from indexes.retriever import ANSWER_SECONDS, TrendRetriever
from indexes.snapshot import open_newest
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.types import TrendFilters

ALL = TrendFilters()


class Counting(HashEmbedder):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return super().embed(texts)


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 6))))
def test_the_last_ones_are_kept(most: int, steps: list[tuple[bool, int]]) -> None:
    recent: Recent[int, str] = Recent(most)
    order: list[int] = []
    for puts, key in steps:
        expected = str(key) if key in order else None
        if puts:
            recent.put(key, str(key))
        else:
            assert recent.get(key) == expected
        if puts or expected:
            order = [*(each for each in order if each != key), key][-most:]
        assert len(recent) == len(order)


@given(st.lists(st.lists(st.sampled_from(["tea", "coffee", "snow day", "x" * 3000]), max_size=5), max_size=5))
def test_vectors_are_those_of_the_embedder(asked: list[list[str]]) -> None:
    counting = Counting()
    remembering = RememberingEmbedder(counting)
    for texts in asked:
        assert np.array_equal(remembering.embed(texts), HashEmbedder().embed(texts))
    short = [text for text in counting.texts if len(text) < 100]
    assert len(short) == len(set(short))


def test_no_more_texts_are_remembered_than_that() -> None:
    counting = Counting()
    remembering = RememberingEmbedder(counting)
    remembering.embed(["the first"])
    remembering.embed([f"text {number}" for number in range(MAX_TEXTS)])
    remembering.embed(["the first"])
    assert counting.texts.count("the first") == 2


class Clock:
    now = NOW


def test_a_question_asked_again_is_answered_without_a_search_for_a_while(tmp_path: Path) -> None:
    clock, counting = Clock(), Counting()
    old = make_trend("coffee", last_seen=NOW - timedelta(hours=72) + timedelta(seconds=5))
    publish(tmp_path, [old], counting, origin="live", recorded_at=NOW, now=NOW, keep=2)
    retriever = TrendRetriever(
        tmp_path, counting, k=3, threshold=0.3, max_age=timedelta(hours=72), now=lambda: clock.now
    )
    retriever.load()
    snapshot = open_newest(tmp_path, counting)
    first = retriever.search(snapshot, "coffee", ALL)
    assert [hit.trend.phrase for hit in first.trends] == ["coffee"]
    assert retriever.search(snapshot, "coffee", ALL) is first
    assert retriever.search(snapshot, "coffee", TrendFilters(region="GB")) is not first
    clock.now = NOW + timedelta(seconds=4)
    assert retriever.search(snapshot, "coffee", ALL) is first
    clock.now = NOW + timedelta(seconds=6)  # it is too old by now
    assert retriever.search(snapshot, "coffee", ALL).trends == ()


def test_an_answer_is_not_given_again_for_longer_than_that(tmp_path: Path) -> None:
    clock, embedder = Clock(), HashEmbedder()
    publish(tmp_path, [make_trend("coffee")], embedder, origin="live", recorded_at=NOW, now=NOW, keep=2)
    retriever = TrendRetriever(
        tmp_path, embedder, k=3, threshold=0.3, max_age=timedelta(hours=72), now=lambda: clock.now
    )
    snapshot = open_newest(tmp_path, embedder)
    first = retriever.search(snapshot, "coffee", ALL)
    clock.now = NOW + timedelta(seconds=ANSWER_SECONDS + 1)
    assert retriever.search(snapshot, "coffee", ALL) is not first
    clock.now = NOW - timedelta(seconds=1)
    assert retriever.search(snapshot, "coffee", ALL) is not first


async def test_a_new_snapshot_answers_anew(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    retriever = TrendRetriever(tmp_path, embedder, k=3, threshold=0.3, max_age=timedelta(hours=72), now=lambda: NOW)
    for phrase in ("coffee cup", "coffee mug"):
        publish(tmp_path, [make_trend(phrase)], embedder, origin="live", recorded_at=NOW, now=NOW, keep=2)
        retriever.load()
        assert [hit.trend.phrase for hit in (await retriever.retrieve("coffee", ALL)).trends] == [phrase]
