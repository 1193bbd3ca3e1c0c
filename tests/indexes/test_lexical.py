"""BM25 finds shared words, rare ones first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.lexical import Lexical, postings, words

TEXTS = st.lists(st.text(alphabet="abcde ", max_size=30), max_size=8)


def index(texts: list[str]) -> Lexical:
    return Lexical([(postings(texts), np.arange(len(texts)))])


def test_case_accents_plurals_and_common_words_do_not_count() -> None:
    assert words("The Cafés of München, and dogs!") == ["cafe", "munchen", "dog"]


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    scores = index(["tea party", "tea garden", "tea chess"]).scores("chess tea")
    assert scores[2] > scores[0] == scores[1] > 0


def test_nothing_shared_is_zero_and_nothing_indexed_is_empty() -> None:
    assert index(["tea"]).scores("chess").tolist() == [0]
    assert index([]).scores("chess").tolist() == []


@given(TEXTS, st.text(alphabet="abcde ", max_size=20))
def test_a_score_is_positive_exactly_where_a_word_is_shared(texts: list[str], query: str) -> None:
    shared = [bool(set(words(text)) & set(words(query))) for text in texts]
    assert [score > 0 for score in index(texts).scores(query).tolist()] == shared


@given(TEXTS, st.text(alphabet="abcde ", max_size=20))
def test_the_order_of_the_texts_does_not_matter(texts: list[str], query: str) -> None:
    forward, backward = index(texts).scores(query), index(texts[::-1]).scores(query)
    assert forward.tolist() == pytest.approx(backward[::-1].tolist())


@given(st.lists(st.tuples(st.text(alphabet="abcde ", max_size=30), st.booleans()), max_size=8), st.integers(0, 8))
def test_texts_in_parts_with_dead_ones_score_as_the_living_would_alone(
    texts: list[tuple[str, bool]], split: int
) -> None:
    live = np.array([lives for _, lives in texts], dtype=np.bool_)
    places = np.where(live, np.cumsum(live) - 1, -1)
    halves = [slice(None, split), slice(split, None)]
    parts = [(postings(text for text, _ in texts[half]), places[half]) for half in halves]
    whole = index([text for text, lives in texts if lives])
    for query in ("a bad cab", "abc", "de"):
        assert Lexical(parts).scores(query).tolist() == pytest.approx(whole.scores(query).tolist())
