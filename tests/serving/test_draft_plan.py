"""What drafts may say: the laws that every text of a plan keeps, and what is taken from a note."""

import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models.draft_grammar import grammar, literal
from serving.models.draft_plan import Plan, make_plan
from serving.models.draft_words import find_subject, note_clause
from tests.fakes import make_trend
from trendrag.prompting import MAX_PHRASE_CHARS
from trendrag.text import clean_line
from trendrag.types import CaptionRequest, PreparedImage, RetrievedTrend

IMAGE = PreparedImage(data=b"x", mime_type="image/jpeg", width=28, height=28, sha256="0")
NOTES = st.one_of(
    st.none(),
    st.text(max_size=200),
    st.sampled_from(
        [
            "slow sunday with my espresso",
            "Woke me up again",
            "make it funny",
            "東京の夜景",
            "مقهى صغير",
            "a \"quoted\" 'note'",
        ]
    ),
)


def found(phrase: str) -> RetrievedTrend:
    return RetrievedTrend(trend=make_trend(phrase), similarity=0.5, score=0.5)


def plan_for(note: str | None, *trends: str, tags: str = "", candidate: int = 0, **request: object) -> Plan:
    asked = CaptionRequest.model_validate({"image": IMAGE, "note": note, **request})
    return make_plan(asked, tags, tuple(map(found, trends)), candidate)


def texts(plan: Plan, count: int = 20) -> list[str]:
    """All texts of a small plan, some of a large one."""
    dice = random.Random(1)  # noqa: S311  not for secrets
    total = math.prod(map(len, plan.slots))
    return ["".join(dice.choice(slot) for slot in plan.slots) for _ in range(min(count, total * 3))]


@given(
    note=NOTES,
    tags=st.sampled_from(["", "espresso", "cat, cup", "historic building"]),
    phrases=st.lists(st.text(max_size=100), max_size=3),
    candidate=st.integers(0, 7),
    max_chars=st.integers(40, 400),
    tone=st.sampled_from([None, "playful", "professional", '\n"x"']),
    platform=st.sampled_from(["generic", "linkedin", "tiktok"]),
)
def test_every_text_keeps_the_laws(
    note: str | None, tags: str, phrases: list[str], candidate: int, max_chars: int, tone: str | None, platform: str
) -> None:
    asked = {"max_chars": max_chars, "tone": tone, "platform": platform}
    plan = plan_for(note, *phrases, tags=tags, candidate=candidate, **asked)

    assert all(slot for slot in plan.slots)
    assert plan.max_chars <= max_chars
    cleaned = {clean_line(phrase, MAX_PHRASE_CHARS) for phrase in phrases}
    assert plan.trend is None or plan.trend in cleaned
    for text in texts(plan):
        assert len(text.splitlines()) == 1
        assert text.strip() == text
        assert plan.subject.name.casefold() in text.casefold()
        if plan.trend is None:
            assert text[-1] in ".!"
            assert not re.search(r'[<>"`*_#\[\]]', text)
        else:
            assert plan.trend in text
            assert text[-1] in ".!?…。！？"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_literal_can_be_read_back_and_holds_nothing_that_ends_it(text: str) -> None:
    written = literal(text)

    assert re.fullmatch(r'"(?:[A-Za-z0-9 ]|\\U[0-9A-F]{8})*"', written)
    assert re.sub(r"\\U([0-9A-F]{8})", lambda match: chr(int(match[1], 16)), written[1:-1]) == text


def test_a_grammar_has_a_rule_for_each_slot() -> None:
    assert grammar([("a", "b"), ("!",)]) == 'root ::= s0 s1\ns0 ::= "a" | "b"\ns1 ::= "\\U00000021"\n'


@pytest.mark.parametrize(
    "phrase", ["latte art", "Moon landing anniversary", "AC/DC", "#CoffeeTok", '"Wicked" {t} {s}', "東京マラソン"]
)
@pytest.mark.parametrize("candidate", range(4))
def test_a_trend_that_fits_is_always_in(phrase: str, candidate: int) -> None:
    cleaned = clean_line(phrase, MAX_PHRASE_CHARS)

    plan = plan_for("slow sunday with my espresso", phrase, candidate=candidate)

    assert plan.trend == cleaned
    assert all(cleaned in text for text in texts(plan))


def test_a_trend_that_does_not_fit_is_left_out() -> None:
    plan = plan_for("slow sunday with my espresso", "an extremely long topic of today's news", max_chars=40)

    assert plan.trend is None
    assert all("espresso" in text and len(text) <= 40 for text in texts(plan))


def test_candidates_share_no_text() -> None:
    plans = [plan_for("slow sunday with my espresso", "latte art", "matcha", candidate=number) for number in range(3)]
    said = [set(texts(plan, 200)) for plan in plans]

    assert not said[0] & said[1]
    assert not said[0] & said[2]
    assert not said[1] & said[2]
    assert {plan.trend for plan in plans} == {"latte art", "matcha"}


def test_the_tone_and_the_platform_change_the_wording() -> None:
    note = "charity ride through town"
    plain, formal, playful, linkedin = (
        set(texts(plan_for(note, "Tour de France", tone=tone, platform=platform), 100))
        for tone, platform in ((None, "generic"), ("formal", "generic"), ("playful", "generic"), (None, "linkedin"))
    )

    assert not plain & formal
    assert plain != playful
    assert linkedin == formal


@pytest.mark.parametrize(
    ("note", "tags", "subject"),
    [
        ("slow sunday with my espresso", "espresso", "my espresso"),
        ("slow sunday with my espresso", "", "my espresso"),
        ("woke me up at six again", "cat", "this cat"),
        ("my cats slept all day", "cat", "my cats"),
        ("rocket on the pad before the launch", "", "this rocket"),
        ("official portrait of an astronaut in her orange suit", "", "this astronaut"),
        ("first dahlia in our garden", "honeycomb", "this dahlia"),
        ("we climbed all the way up to the old pagoda above the lake", "historic building", "this pagoda"),
        ("waiting for the rocket launch", "", "this rocket launch"),
        ("fresh strawberries from the market", "", "these fresh strawberries"),
        ("", "espresso, cup", "this espresso"),
        ("", "", "this moment"),
        ("🎉🎉", "", "this moment"),
    ],
)
def test_the_subject_is_what_the_note_names_or_else_the_tag(note: str, tags: str, subject: str) -> None:
    assert find_subject(note, tags).phrase == subject


@pytest.mark.parametrize(
    ("note", "clause"),
    [
        ("slow sunday with my espresso.", "slow Sunday with my espresso"),
        ("Mittens woke me up. Again!", "Mittens woke me up"),
        ("make it funny", ""),
        ("is this a cat?", ""),
        ("read https://example.org now", ""),
        ('he said "hi" to me', ""),
        ("**bold** words", ""),
        ("espresso", ""),
        ("word " * 30, ""),
        ("café au lait, comme toujours", "café au lait, comme toujours"),
    ],
)
def test_a_note_stands_in_the_caption_only_where_it_can(note: str, clause: str) -> None:
    assert note_clause(note) == clause
