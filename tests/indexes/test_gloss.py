"""Glosses: English words for what is in another language, and none for English."""

import pytest

from indexes.gloss import gloss


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("ein Frühstück mit Zucker", None, {"breakfast", "sugar"}),
        ("le sucre, la cannelle", None, {"sugar", "cinnamon"}),
        ("Frühstück bei Tiffany", "de-AT", {"breakfast", "tiffany"}),
        ("お寺の門の前", None, {"temple"}),
    ],
)
def test_the_words_that_are_known_become_english_and_names_stay(
    text: str, language: str | None, expected: set[str]
) -> None:
    assert expected <= set((gloss(text, language) or "").split())


@pytest.mark.parametrize(
    "text", ["a cup of tea in the garden", "my dog on the beach", "", "123 !!", "Przepraszam bardzo"]
)
def test_english_and_what_no_glossary_has_get_none(text: str) -> None:
    assert gloss(text) is None


def test_what_is_said_to_be_english_is_left_alone() -> None:
    assert gloss("Frühstück", "en") is None
