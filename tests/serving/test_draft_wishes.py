"""What drafts make of wishes: those that a grammar can follow are followed, all others refused in words."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models.draft_plan import Plan
from serving.models.draft_wishes import SHORTER, Wishes, can_say, plan_request, understood
from tests.fakes import IMAGE
from tests.serving.test_draft_plan import found, texts
from trendrag.errors import NotSupported
from trendrag.types import CaptionRequest, Regenerate, Turn

NOTE = "slow sunday with my espresso"
BEFORE = "Slow Sunday with my espresso, and everyone's on about latte art."


def planned(candidate: int = 0, *, tags: str = "espresso, cup", **asked: Any) -> Plan:
    request = CaptionRequest.model_validate({"image": IMAGE, "note": NOTE} | asked)
    return plan_request(request, tags, (found("latte art"),), candidate)[0]


def changed(*changes: str, before: str = BEFORE, **asked: Any) -> Plan:
    turns = [
        turn for change in changes for turn in (Turn(role="assistant", text=before), Turn(role="user", text=change))
    ]
    return planned(turns=tuple(turns), **asked)


@pytest.mark.parametrize(
    ("changes", "wishes"),
    [
        (["shorter"], Wishes(shorter=True)),
        (["Make it shorter and more playful!"], Wishes(shorter=True, tone="play")),
        (["leave out the trend"], Wishes(no_trend=True)),
        (["no trends and no emoji"], Wishes(no_trend=True)),
        (["without hashtags"], Wishes()),
        (["mention my shop, and its roof."], Wishes(mention=("my shop, and its roof",))),
        (["Please add: Café Luz"], Wishes(mention=("Café Luz",))),
        (["another one"], Wishes(another=1)),
        (["shorter", "more formal", "mention Luz"], Wishes(shorter=True, tone="formal", mention=("Luz",))),
    ],
)
def test_changes_that_are_understood(changes: list[str], wishes: Wishes) -> None:
    assert understood(changes) == wishes


@pytest.mark.parametrize("change", ["kürzer", "translate it into French", "longer", "shorter and in rhyme", "\0", "?"])
def test_what_a_draft_cannot_do_is_said(change: str) -> None:
    with pytest.raises(NotSupported, match="It knows: shorter"):
        understood([change])


@given(st.lists(st.text(min_size=1, max_size=60), max_size=4))
def test_no_change_breaks_it(changes: list[str]) -> None:
    try:
        understood(changes)
    except NotSupported as error:
        assert "model server" in str(error)


def test_a_shorter_draft_is_shorter_whatever_the_model_picks() -> None:
    plan = changed("shorter")
    assert all(len(text) <= SHORTER * len(BEFORE) for text in texts(plan))
    with pytest.raises(NotSupported, match="no other way"):
        changed("shorter", before="Espresso.")


def test_without_the_trend_no_text_has_it() -> None:
    assert not any("latte art" in text for text in texts(changed("without the trend")))


def test_words_to_mention_are_in_every_text_and_nothing_is_said_twice() -> None:
    assert all("Café Luz" in text for text in texts(changed("mention Café Luz")))
    plan = planned(include=("my shop", "espresso"))
    for text in texts(plan):
        assert "my shop" in text
        assert text.casefold().count("espresso") == 1


def test_words_that_do_not_fit_are_left_out_rather_than_the_caption_grow() -> None:
    plan = planned(include=("a very long name of a shop in the old town by the river",), max_chars=70)
    assert plan.max_chars <= 70


def test_excluded_words_are_in_no_text() -> None:
    everyone = planned(exclude=("everyone",), candidates=4)
    assert not any("everyone" in text.casefold() for text in texts(everyone, 200))
    assert not any("slow" in text.casefold() for text in texts(planned(exclude=("slow",)), 200))


@pytest.mark.parametrize("candidate", range(4))
def test_another_try_can_never_say_what_was_said(candidate: int) -> None:
    dice = random.Random(3)  # noqa: S311  not for secrets
    said: list[str] = []
    for _ in range(5):
        again: dict[str, Any] = {"regenerate": Regenerate(candidate=candidate, avoid=tuple(said))} if said else {}
        plan = planned(candidate, candidates=4, **again)
        assert not any(can_say(plan, text) for text in said)
        said.append("".join(dice.choice(slot) for slot in plan.slots))
    assert len(set(said)) == 5


def test_alt_text_says_what_the_tagger_saw_and_nothing_of_the_note() -> None:
    plan = planned(alt_text=True)
    assert texts(plan, 1) == ["In the photo: espresso, cup."]
    assert texts(planned(alt_text=True, tags=""), 1) == ["In the photo: espresso."]
    assert texts(planned(1, alt_text=True), 1) != texts(plan, 1)
    with pytest.raises(NotSupported):
        changed("shorter", alt_text=True)
