import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.headlines import own_phrase
from ingest.observation import joined_form
from ingest.phrases import usable_name


@pytest.mark.parametrize(
    ("headline", "language", "phrase"),
    [
        ("Inside “The Quiet Orchard”, read aloud everywhere", "en", "The Quiet Orchard"),
        ("« Le Jardin de papier » triomphe au box-office", "fr", "Le Jardin de papier"),
        ("Meet the ‘grandma hobbies’ taking over your feed", "en", "grandma hobbies"),
        ("Northern lights: where to see them tonight", "en", "Northern lights"),
        ("Wordle today: hints and answer", "en", "Wordle"),
        ("Live: Arsenal v Chelsea", "en", "Arsenal v Chelsea"),
        ("The 15 best Christmas markets in Europe", "en", "Christmas markets"),
        ("The return of the long lunch", "en", "long lunch"),
        ("Moo Deng turns two with a fruit cake", "en", "Moo Deng"),
        ("A night at the Paper Moon Parade", "en", "Paper Moon Parade"),
        ("Labubu dolls sell out in minutes across Europe", "en", "Labubu dolls"),
        ("Winter balcony gardens", "en", "Winter balcony gardens"),
        ("Show HN: Birdnest – a feed reader for the terminal", "en", "Birdnest"),
        ("Helene Fischer kündigt Stadiontour an", "de", "Helene Fischer"),
        ("Rosalía announces world tour - The Daybook", "en", None),
    ],
)
def test_what_a_headline_is_about(headline: str, language: str, phrase: str | None) -> None:
    assert own_phrase(headline, language) == phrase


@pytest.mark.parametrize(
    "headline",
    [
        "‘We are all tired,’ says head of nurses' union",
        "Trump: I will decide in two weeks",
        "Opinion: We should all walk more slowly",
        "One pot, four dinners: cooking on a Monday",
        "Ukraine: what we know on day 1,300",
        "White House says talks go on",
        "Otter steals a surfboard in Santa Cruz",
        "Why do cats purr?",
        "Whales return to bay",
        "Dog bites mayor",
        "Snow falls early",
        "I quit my job to bake bread",
        "The Guardian view on rail fares: time for a freeze",
    ],
)
def test_a_sentence_is_no_phrase(headline: str) -> None:
    assert own_phrase(headline, "en") is None


@given(st.text(max_size=200), st.sampled_from(["en", "de", "fr", "und"]))
def test_a_phrase_can_be_said_and_is_of_the_headline(text: str, language: str) -> None:
    phrase = own_phrase(text, language)
    if phrase is not None:
        assert usable_name(phrase)
        assert joined_form(phrase) in joined_form(text)


_PARTS = [
    "the",
    "Moon",
    "best",
    ":",
    "“Paper",
    "Boats”",
    "says",
    "of",
    "‘soft",
    "clubbing’",
    "7",
    "in",
    "return of the",
    "—",
    "HN",
    "Show",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=12).map(" ".join))
def test_a_phrase_of_what_looks_like_a_headline_can_be_said(text: str) -> None:
    phrase = own_phrase(text, "en")
    assert phrase is None or usable_name(phrase)
