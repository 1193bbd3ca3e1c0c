"""What reaches the reader: never too long, never what was not wanted, however the model's text was chunked."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich._emoji_codes import EMOJI

from trendrag.shaping import MARGIN, Shaper, is_emoji

LONG = "Coffee first. Then, the rain may do what it likes, and we stay inside with a book. Nobody calls today."
PIECES = st.sampled_from(
    [
        *["coffee ", "rain", "wörld ", "a", "I'm ", "well-known ", "x" * 30, "https://a.example/#b "],
        *[" ", "\n", "\n\n", "  ", ". ", "! ", "? ", ", ", "...", "…", ' "', '" ', ")", "(", "e\u0301"],
        *["#", "#latte", "#LatteArt", "##", "#1 ", "C# ", "＃東京", "#été", "&#", "#a#b", "#_"],
        *["🎃", "👩\u200d🚀", "👍🏽", "❤️", "🇩🇪", "1️⃣", "©️", "☕", "#️⃣", "\u200d", "\ufe0f"],
        *["今天", "天气很好。", "公園", "한국어 ", "क्\u200dष", "می\u200cخواهم ", "\x1b[2J", "\u202e"],
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200))


def shaped(
    text: str, limit: int = 280, *, step: int = 0, emoji: bool = True, hashtags: bool = True
) -> tuple[str, bool]:
    """The text fed ``step`` code points at a time, at once with 0; and whether it was cut."""
    shaper = Shaper(limit, emoji=emoji, hashtags=hashtags)
    pieces = [text[at : at + step] for at in range(0, len(text), step)] if step else [text]
    said = "".join([*map(shaper.feed, pieces), shaper.close()])
    return said, shaper.cut


@given(TEXTS, st.integers(40, 120), st.integers(1, 7), st.booleans(), st.booleans())
@example("#a #b\nc", 40, 1, True, False)
@example("Sure" + "!" * 9 + ")" * 40 + " More than fits here.", 40, 1, True, True)
def test_the_outcome_does_not_depend_on_the_chunks(
    text: str, limit: int, step: int, emoji: bool, hashtags: bool
) -> None:
    whole = shaped(text, limit, emoji=emoji, hashtags=hashtags)
    assert shaped(text, limit, step=step, emoji=emoji, hashtags=hashtags) == whole


@given(TEXTS, st.integers(40, 120), st.booleans(), st.booleans())
def test_the_length_is_kept_and_the_ends_are_clean(text: str, limit: int, emoji: bool, hashtags: bool) -> None:
    said, cut = shaped(text, limit, emoji=emoji, hashtags=hashtags)
    assert len(said) <= limit
    assert said == said.strip()
    longer, _ = shaped(text, 100_000, emoji=emoji, hashtags=hashtags)
    assert longer.startswith(said)
    assert cut == (said != longer)
    if cut:
        left = longer[len(said) :]
        torn = said[-1].isalnum() and left[0].isalnum() and said[-1].isascii() and left[0].isascii()
        assert not torn or len(re.split(r"\s", said)[-1]) > min(MARGIN, limit // 3) - 2, (
            "only a word that never ends is torn"
        )
        assert unicodedata.category(left[0])[0] != "M"
        assert left[0] != "\u200d"


@given(TEXTS)
def test_without_wishes_the_text_stays_what_it_was(text: str) -> None:
    said, cut = shaped(text, 100_000)
    kept = "".join(c for c in text if c == "\n" or c in "\u200c\u200d" or unicodedata.category(c)[0] != "C")
    assert said == kept.strip()
    assert not cut


@given(TEXTS, st.booleans())
def test_no_emoji_is_left(text: str, hashtags: bool) -> None:
    said, _ = shaped(text, 100_000, emoji=False, hashtags=hashtags)
    assert not any(map(is_emoji, said))
    assert "\ufe0f" not in said


@given(TEXTS, st.booleans())
@example("#_🎃coffee", False)
@example("❤️＃東京", True)
def test_no_hashtag_is_left(text: str, emoji: bool) -> None:
    said, _ = shaped(text, 100_000, emoji=emoji, hashtags=False)
    assert not re.search(r"(?<![\w&/=?#＃\u0300-\u036f\u200c\u200d])[#＃]+[0-9_]*[^\W\d_]", said), said


def test_every_emoji_goes_or_becomes_plain_text() -> None:
    left = {shaped(f"a {emoji} b", emoji=False)[0] for emoji in EMOJI.values()}
    signs = {text.removeprefix("a ").removesuffix(" b") for text in left} - {"a b"}
    assert all(len(sign) <= 1 for sign in signs), "at most a plain sign is left: a digit, ©, an arrow"
    assert len(signs) < 60
    assert not signs & set("☺☹✌❤☀⭐⏰⌚♥♀✨")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Slow morning 🎃 at home", "Slow morning at home"),
        ("What a day 🎉!", "What a day!"),
        ("What a day! 🎉🎉 And now?", "What a day! And now?"),
        ("Nice. 🎉.", "Nice."),
        ("one🎃two", "one two"),
        ("🎃 first", "first"),
        ("last 🎃", "last"),
        ("line one 🎃\n🎃 line two", "line one\nline two"),
        ("1️⃣ step ©️ ❤️\u200d🔥", "1 step ©"),
        ("कर्\u200dम stays", "कर्\u200dम stays"),
    ],
)
def test_what_is_left_without_emoji_reads_well(text: str, said: str) -> None:
    assert shaped(text, emoji=False) == (said, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Loving autumn #fall #cozy", "Loving autumn"),
        ("Happy #Halloween", "Happy Halloween"),
        ("My #PumpkinSpice latte, at last", "My Pumpkin Spice latte, at last"),
        ("Slow Sunday. #coffee", "Slow Sunday."),
        ("Slow Sunday.\n\n#coffee #latte\n#more", "Slow Sunday."),
        ("#Autumn is here", "Autumn is here"),
        ("#sunset #beach", "sunset beach"),
        ("We are #1 fans of C#", "We are #1 fans of C#"),
        ("see https://a.example/#part", "see https://a.example/#part"),
        ("rain ##wet", "rain wet"),
        ("#fun #sun! And more", "fun sun! And more"),
        ("Done. #fun #sun! And more", "Done. And more"),
        ("#fun\n", "fun"),
    ],
)
def test_hashtags_stay_as_words_only_where_they_belong_to_a_sentence(text: str, said: str) -> None:
    assert shaped(text, hashtags=False) == (said, False)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (200, LONG),
        (len(LONG), LONG),
        (len(LONG) - 1, "Coffee first. Then, the rain may do what it likes, and we stay inside with a book."),
        (70, "Coffee first. Then, the rain may do what it likes, and we stay inside"),
        (50, "Coffee first. Then, the rain may do what it likes"),
    ],
)
def test_too_long_a_text_ends_with_a_sentence_that_fits_or_else_a_word(limit: int, said: str) -> None:
    assert shaped(LONG, limit) == (said, said != LONG)


def test_scripts_without_spaces_are_cut_between_letters() -> None:
    text = "今天天气很好。我们去公园散步吧。" * 4
    assert shaped(text, 40) == (text[:39], True)
    assert text[38] == "。"
    assert shaped("字" * 60, 40) == ("字" * 40, True)


def test_white_space_before_the_part_that_is_held_back_is_not_the_end() -> None:
    assert shaped("a" * 26 + " " + "b" * 60, 40) == ("a" * 26, True)


def test_text_streams_at_once_but_for_the_end() -> None:
    shaper = Shaper(280)
    words = [f"word{number} " for number in range(20)]  # 130 characters of 280
    said = [shaper.feed(word) for word in words]
    assert "".join(said) == "".join(words).rstrip()
    assert all(said)


def test_a_text_within_its_length_is_complete_when_it_ends() -> None:
    shaper = Shaper(60)
    through = shaper.feed(LONG[:58])
    assert 40 <= len(through) < 58
    assert through + shaper.close() == LONG[:58].rstrip()


def test_after_the_cut_nothing_comes_any_more() -> None:
    shaper = Shaper(40)
    said = shaper.feed("word " * 20)
    assert shaper.cut
    assert (shaper.feed("more"), shaper.close()) == ("", "")
    assert said == "word " * 7 + "word"
