"""What the draft engine makes of wishes that a language model would simply be told: changes to a caption, words that it
should have, another try, alt text.

A grammar can't follow an instruction, so the few kinds that a plan can follow are recognised, in English, and all else
is refused in words that say so. Pure functions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.models.draft_plan import FORMAL, LIVELY, Plan, make_plan
from serving.models.draft_words import find_subject
from trendrag.errors import NotSupported
from trendrag.highlight import find_spans
from trendrag.text import clean_line, clean_note
from trendrag.types import CaptionRequest, RetrievedTrend

SHORTER = 0.8
"""A shorter draft has at most this share of the characters of the one before."""

TRIES = 24
"""So many numbers are tried for a plan that can't say what is to be avoided."""

_MENTION = re.compile(r"(?:please )?(?:also )?(?:mention|add|include|name|say)(?: that)?:? +(.+)", re.IGNORECASE)
_PARTS = re.compile(r"[,;.!\n]| and (?!trend)| but ")
_NO_TREND = re.compile(r"\b(?:no|without|drop|remove|skip|omit|leave out|forget)\b.*\btrends?\b")
_NO_DECORATION = re.compile(r"\b(?:no|without|drop|remove|skip|omit)\b.*\b(?:emojis?|hashtags?)\b")
_SHORTER = re.compile(r"\b(?:shorter|shorten|briefer|brief|tighter|trim|more concise)\b")
_ANOTHER = re.compile(r"\b(?:another|different|differently|again|anew|something else|try again|new one)\b")
_CALM = ("calm", "quiet", "plain", "simple")
_ALT = ("In the photo: ", "Seen here: ", "The photo shows: ")

_CANT = (
    "The draft engine can't make this change. It knows: shorter, another, without the trend, mention ..., and more "
    "playful, formal or calm. Point TrendRAG at a model server for any other (TRENDRAG_MODEL__PROVIDER)."
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the turns of a request ask for, all of them together."""

    shorter: bool = False
    no_trend: bool = False
    tone: str | None = None
    mention: tuple[str, ...] = ()
    another: int = 0  # how often


def plan_request(
    request: CaptionRequest, description: str, trends: Sequence[RetrievedTrend], candidate: int
) -> tuple[Plan, int]:
    """The plan of one candidate, and its number: that of the candidate, or a later one for another try.

    Raises:
        NotSupported: a change that no plan can follow.
    """
    if request.alt_text:
        if request.turns:
            raise NotSupported(_CANT)
        number = candidate + (len(request.regenerate.avoid) if request.regenerate else 0)
        return _alt_plan(request, description, number), number
    wishes = understood([turn.text for turn in request.turns if turn.role == "user"])
    avoid = [turn.text for turn in request.turns if turn.role == "assistant"]
    limit = request.limit
    if wishes.shorter:
        limit = min(limit, int(len(avoid[-1]) * SHORTER))
    number = candidate + wishes.another
    if request.regenerate:
        avoid += request.regenerate.avoid
        number += request.candidates
    asked = request.model_copy(update={"max_chars": limit, "tone": wishes.tone or request.tone})
    words = (*request.include, *wishes.mention)
    offered = () if wishes.no_trend else trends
    plans = (_with_words(asked, description, offered, number + tried, words) for tried in range(TRIES))
    plan = next((plan for plan in plans if not any(can_say(plan, text) for text in avoid)), None)
    if plan is None or (wishes.shorter and plan.max_chars > limit):
        raise NotSupported("The draft engine has no other way to say this. Try another note.")
    return plan, number


def understood(changes: Sequence[str]) -> Wishes:
    """What the changes ask for.

    Raises:
        NotSupported: something that a draft can't be changed to.
    """
    wishes = Wishes()
    for change in changes:
        text = " ".join(clean_note(change).split())
        if mention := _MENTION.fullmatch(text):
            words = clean_line(mention[1].strip(" .!\"'“”"), 80)
            wishes = replace(wishes, mention=(*wishes.mention, words) if words else wishes.mention)
            continue
        parts = [part.strip() for part in _PARTS.split(text.casefold()) if part.strip()]
        if not parts:
            raise NotSupported(_CANT)
        for part in parts:
            wishes = _with_part(wishes, part)
    return wishes


def _with_part(wishes: Wishes, part: str) -> Wishes:
    if _NO_TREND.search(part):
        return replace(wishes, no_trend=True)
    if _NO_DECORATION.search(part):
        return wishes  # a draft has neither
    if _SHORTER.search(part):
        return replace(wishes, shorter=True)
    for tones in (LIVELY, FORMAL, _CALM):
        if tone := next((tone for tone in tones if re.search(rf"\b{tone}", part)), None):
            return replace(wishes, tone=tone)
    if _ANOTHER.search(part):
        return replace(wishes, another=wishes.another + 1)
    raise NotSupported(_CANT)


def can_say(plan: Plan, text: str) -> bool:
    """Whether the text is one of the plan's."""
    slots = ("(?:" + "|".join(map(re.escape, slot)) + ")" for slot in plan.slots)
    return re.fullmatch("".join(slots), text) is not None


def _with_words(
    request: CaptionRequest,
    description: str,
    trends: Sequence[RetrievedTrend],
    candidate: int,
    words: Sequence[str],
) -> Plan:
    """A plan whose texts all hold the words, as far as these fit."""
    plan = make_plan(request, description, trends, candidate)
    lacking = [line for each in words if (line := clean_line(each, 80)) and not _always_says(plan, line)]
    for count in range(len(lacking), 0, -1):
        said = ", ".join(lacking[:count])
        end = "" if said.endswith((".", "!", "?", "…")) else "."
        added = (f" Also here: {said}{end}", f" Not to forget: {said}{end}", f" With {said}{end}")
        room = request.limit - max(map(len, added))
        shorter = make_plan(request.model_copy(update={"max_chars": room}), description, trends, candidate)
        if shorter.max_chars <= room:
            return replace(shorter, slots=(*shorter.slots, added))
    return plan


def _always_says(plan: Plan, words: str) -> bool:
    return any(all(find_spans(text, [("", (words,))]) for text in slot) for slot in plan.slots)


def _alt_plan(request: CaptionRequest, description: str, candidate: int) -> Plan:
    """What the tagger saw, and nothing of the note: that may say what can't be seen."""
    subject = find_subject("" if description else request.note or "", description)
    tags = clean_line(description, request.limit - max(map(len, _ALT)) - 1) or subject.name
    turned = (*_ALT[candidate % len(_ALT) :], *_ALT[: candidate % len(_ALT)])
    return Plan((turned[:1], (tags,), (".",)), subject, None)
