"""The eleven rules by example, and the laws that hold for all texts."""

import itertools
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendrag.highlight import Highlighter, Span, find_spans

# rule, caption with the expected mentions in [brackets], surfaces of the one trend
CASES = [
    (1, "Emoji 👩‍🚀 count: [latte art] ☕", ["latte art"]),
    (2, "[CAFÉ] and [cafe] and [Cafe\u0301] and [caf\u00e9]", ["Café"]),
    (2, "[Beyonce\u0301]!", ["Beyonce"]),
    (2, "[Beyonce\u0301]'", ["Beyoncé"]),
    (2, "[ΣΊΣΥΦΟΣ] and [σίσυφος]", ["σίσυφος"]),
    (2, "[STRASSE], [Straße]", ["straße"]),
    (2, "half a letter is none: ß", ["s"]),
    (2, "[Łódź] is [Lodz]", ["Łódź"]),
    (2, "[İstanbul] and [istanbul]", ["Istanbul"]),
    (2, "か is not が nor か\u3099", ["が゛"]),
    (2, "[が] and [か\u3099], never か", ["が"]),
    (2, "[각], never 가", ["각"]),
    (2, unicodedata.normalize("NFD", "각"), ["가"]),
    (3, "[AI] is not ai, Ai or paid", ["AI"]),
    (3, "[IT] and it", ["IT"]),
    (3, "two [AIs], one AIS, [AI's]", ["AI"]),
    (3, "[nasa] and [NASA]: four letters", ["NASA"]),
    (3, "[#AI] but not #ai", ["AI"]),
    (4, "[spider man], [Spider-Man], [spider\u2010man], [spider\u2011man], [spider \n man]", ["Spider-Man"]),
    (4, "[spider-man], not spider - man, spider--man or spider\u2013man", ["spider man"]),
    (4, "[A-day - the film], [a day - the film], [a day the film]", ["A-Day - The Film"]),
    (4, "[rock 'n' roll] and [rock ’n’ roll]", ["Rock ’n’ Roll"]),
    (5, "[AC/DC], not ACDC or AC DC", ["AC/DC"]),
    (5, "[C++], not C+, C or C++11", ["C++"]),
    (5, "[GTA 6], [GTA-6], [#GTA6], not GTA 66 or GTA", ["GTA 6"]),
    (5, "[.NET] but not ASP.NET", [".NET"]),
    (6, "[#coffee], [#Coffee]!", ["coffee"]),
    (6, "[#WorldCup], [#worldcup], [#world-cup], [#World Cup], not worldcup", ["World Cup"]),
    (6, "not #WorldCup2026, not #myWorldCup", ["World Cup"]),
    (6, "go[#worldcup]", ["World Cup"]),
    (6, "#[#latte]", ["latte"]),
    (6, "[#東京], not #東京タワー nor #大東京; [東京]タワー", ["東京"]),
    (6, "only [#OOTD], not OOTD", ["#OOTD"]),
    (7, "[cats], [cat's], [cat’s], [cat], not catty or cates", ["cat"]),
    (7, "[buses], [boxes], [waltzes], [churches]", ["bus", "box", "waltz", "church"]),
    (7, "[dishes], [tacoes], [tacos]", ["dish", "taco"]),
    (7, "[cats]' toys", ["cat"]),
    (7, "[cat'ś], [cat's\u0301]", ["cat"]),
    (7, "[#WorldCups]", ["World Cup"]),
    (7, "[LATTES], [CAT'S]", ["latte", "cat"]),
    (8, "[latte] (latte_art, platte, latte2, 2latte) [latte].", ["latte"]),
    (8, "\u00e9latte", ["latte"]),
    (9, "今日は[東京]タワーで", ["東京"]),
    (9, "新しい[iPhone]を買う", ["iPhone"]),
    (9, "[손흥민]은 오늘", ["손흥민"]),
    (9, "[東京]story and [東京's] end", ["東京"]),
    (10, "[new york city marathon]", ["new york", "york city", "new york city marathon", "marathon"]),
    (11, "[tea], [Tea] and [#tea] and [tea]", ["tea"]),
    (11, "", ["tea"]),
    (11, "no surfaces", ["", " ", "#", "-"]),
]


def read_brackets(marked: str) -> tuple[str, list[tuple[int, int]]]:
    text, spans, start = "", [], 0
    for char in marked:
        if char == "[":
            start = len(text)
        elif char == "]":
            spans.append((start, len(text)))
        else:
            text += char
    return text, spans


def in_chunks(text: str, cuts: list[int], trends: list[tuple[str, list[str]]]) -> list[Span]:
    highlighter = Highlighter(trends)
    spans: list[Span] = []
    edges = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        spans += highlighter.feed(text[start:end])
    return spans + highlighter.close()


@pytest.mark.parametrize(("rule", "marked", "surfaces"), CASES)
def test_rules(rule: int, marked: str, surfaces: list[str]) -> None:
    caption, expected = read_brackets(marked)
    found = find_spans(caption, [("t", surfaces)])
    assert [caption[s.start : s.end] for s in found] == [caption[a:b] for a, b in expected]
    assert [(s.start, s.end) for s in found] == expected
    assert in_chunks(caption, list(range(len(caption))), [("t", surfaces)]) == found


def test_ties_go_to_the_earliest_then_to_the_first_listed() -> None:
    assert find_spans("aa bb cc", [("1", ["bb cc"]), ("2", ["aa bb"])]) == [Span(0, 5, "2")]
    assert find_spans("aa", [("1", ["aa"]), ("2", ["AA!", "aa"])]) == [Span(0, 2, "1")]


def test_longest_wins_frees_what_the_shorter_would_have_taken() -> None:
    # "aa bb" loses to "bb cccc", which overlaps it; "aa" is then free again.
    trends = [("short", ["aa bb"]), ("long", ["bb cccc"]), ("first", ["aa"])]
    assert find_spans("aa bb cccc", trends) == [Span(0, 2, "first"), Span(3, 10, "long")]


def test_a_span_comes_as_soon_as_it_is_certain() -> None:
    highlighter = Highlighter([("t", ["latte art"]), ("u", ["latte art championship"])])
    assert highlighter.feed("my latte art") == []  # "latte art championship" is still possible
    assert highlighter.feed(" is") == [Span(3, 12, "t")]
    assert highlighter.close() == []


def test_a_closed_highlighter_takes_no_more_text() -> None:
    highlighter = Highlighter([("t", ["x"])])
    highlighter.close()
    with pytest.raises(ValueError, match="closed"):
        highlighter.feed("x")


VOCABULARY = "ai AI café cafe\u0301 tea world cup # - 's ’s es s 東 京 が か\u3099 _ 2 . / ß İ 가 각 \u0301 box +"
words = st.sampled_from([*VOCABULARY.split(" "), " ", "\n"])
captions = st.lists(words, max_size=25).map("".join) | st.text(max_size=40)
surface_lists = st.lists(st.lists(words, min_size=1, max_size=4).map("".join), min_size=1, max_size=5)


@given(captions, surface_lists, st.randoms(use_true_random=False))
def test_spans_do_not_depend_on_the_chunks(caption: str, surfaces: list[str], rng: random.Random) -> None:
    trends = [(str(i), [surface]) for i, surface in enumerate(surfaces)]
    cuts = [rng.randint(0, len(caption)) for _ in range(rng.randint(0, 8))]
    assert in_chunks(caption, cuts, trends) == find_spans(caption, trends)


@given(captions, surface_lists)
def test_spans_are_ordered_disjoint_and_inside_the_caption(caption: str, surfaces: list[str]) -> None:
    spans = find_spans(caption, [("t", surfaces)])
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert all(0 <= span.start < span.end <= len(caption) for span in spans)


@given(captions, surface_lists)
def test_composed_and_decomposed_text_mention_the_same(caption: str, surfaces: list[str]) -> None:
    composed = unicodedata.normalize("NFC", caption)
    decomposed = unicodedata.normalize("NFD", caption)
    # Normalising moves marks across the edges of a text that begins with one; captions don't.
    a = find_spans(composed, [("t", surfaces)])
    b = find_spans(decomposed, [("t", surfaces)])
    assert [unicodedata.normalize("NFD", composed[s.start : s.end]) for s in a] == [
        decomposed[s.start : s.end] for s in b
    ]


@given(st.lists(st.sampled_from(["latte art", "world cup", "espresso"]), min_size=1, max_size=6))
def test_every_plain_occurrence_is_found(mentions: list[str]) -> None:
    caption = ", ".join(mentions)
    spans = find_spans(caption, [(name, [name]) for name in set(mentions)])
    assert [caption[s.start : s.end] for s in spans] == mentions
    assert [s.trend_id for s in spans] == mentions
