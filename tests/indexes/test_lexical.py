"""BM25 finds shared words, rare ones first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.lexical import Lexical, words

TEXTS = st.lists(st.text(alphabet="abcde ", max_size=30), max_size=8)


def test_case_accents_plurals_and_common_words_do_not_count() -> None:
    assert words("The Cafés of München, and dogs!") == ["cafe", "munchen", "dog"]


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    scores = Lexical(["tea party", "tea garden", "tea chess"]).scores("chess tea")
    assert scores[2] > scores[0] == scores[1] > 0


def test_nothing_shared_is_zero_and_nothing_indexed_is_empty() -> None:
    assert Lexical(["tea"]).scores("chess").tolist() == [0]
    assert Lexical([]).scores("chess").tolist() == []


@given(TEXTS, st.text(alphabet="abcde ", max_size=20))
def test_a_score_is_positive_exactly_where_a_word_is_shared(texts: list[str], query: str) -> None:
    shared = [bool(set(words(text)) & set(words(query))) for text in texts]
    assert [score > 0 for score in Lexical(texts).scores(query).tolist()] == shared


@given(TEXTS, st.text(alphabet="abcde ", max_size=20))
def test_the_order_of_the_texts_does_not_matter(texts: list[str], query: str) -> None:
    forward, backward = Lexical(texts).scores(query), Lexical(texts[::-1]).scores(query)
    assert forward.tolist() == pytest.approx(backward[::-1].tolist())
