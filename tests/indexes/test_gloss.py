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
    ("text", "thing"),
    [
        ("un chat sur la table de mes parents", "cat"),
        ("der Hund und ich, wir sind nicht allein", "dog"),
        ("el perro y yo, los dos en la playa de siempre", "beach"),
    ],
)
def test_articles_and_the_like_tell_the_language_and_are_left_out(text: str, thing: str) -> None:
    words = (gloss(text) or "").split()
    assert thing in words
    assert not {"un", "sur", "la", "und", "wir", "el", "los", "de"} & set(words)


@pytest.mark.parametrize(
    "text", ["a cup of tea in the garden", "my dog on the beach", "", "123 !!", "Przepraszam bardzo"]
)
def test_english_and_what_no_glossary_has_get_none(text: str) -> None:
    assert gloss(text) is None


def test_what_is_said_to_be_english_is_left_alone() -> None:
    assert gloss("Frühstück", "en") is None
