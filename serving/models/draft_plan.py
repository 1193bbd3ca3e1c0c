"""What a draft may say: a plan of alternatives, from which the model picks the likeliest for the photo.

A 135M model, left to itself, writes words that are none and facts that are not ("no more winter coats, just a new one
for my cat"); a free part of a few words did not read better. So the words of a draft are the note's, the trend's and
those written here, and the model chooses. Every text of a plan is one line within the length asked for, ends as a
sentence, names the subject, and holds the trend word for word. English only: a request in another language gets English
too, since the model knows no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.models.draft_words import Subject, capital, find_subject, names, note_clause
from trendrag.highlight import find_spans
from trendrag.prompting import MAX_PHRASE_CHARS
from trendrag.text import clean_line
from trendrag.types import CaptionRequest, RetrievedTrend

Register = Literal["calm", "lively", "formal"]
Slots = tuple[tuple[str, ...], ...]

TREND_CHOICE = 2
"""Candidates take turns with so many of the best trends."""

LIVELY = ("fun", "play", "excit", "enthus", "lively", "happy", "joy", "bold", "energ", "cheer", "witty", "humor")
FORMAL = ("formal", "profession", "business", "serious", "neutral", "sober", "corporate")

# {s} is the subject's phrase ("my espresso"), {t} the trend.
_OPENINGS: dict[Register, tuple[str, ...]] = {
    "calm": (
        "A quiet moment with {s}",
        "Today's view: {s}",
        "A little time with {s}",
        "Keeping {s} for later",
        "Just {s}, nothing else",
        "Made my day: {s}",
        "Taking it slow with {s}",
        "Stopped everything for {s}",
        "A good look at {s}",
        "Some days are all about {s}",
        "One for the album: {s}",
        "Here for {s}",
    ),
    "lively": (
        "Hello to {s}",
        "Can't get enough of {s}",
        "All eyes on {s}",
        "Best part of today: {s}",
        "Look at {s}",
        "Today's mood: {s}",
        "Big fan of {s}",
        "Front row for {s}",
        "Say hi to {s}",
    ),
    "formal": (
        "In focus today: {s}",
        "A closer look at {s}",
        "A moment with {s}",
        "Today's highlight: {s}",
        "Seen today: {s}",
        "Worth sharing: {s}",
    ),
}
_REMARKS: dict[Register, tuple[str, ...]] = {
    "calm": (
        "Nothing to add",
        "Keeping this one",
        "That's all I need today",
        "A moment worth keeping",
        "No rush at all",
        "I could stay here a while",
        "It's the little things",
        "Exactly where I want to be",
        "Today was a good day",
    ),
    "lively": (
        "Best day in a while",
        "More of this, please",
        "I'd do it all again",
        "Zero regrets",
        "What a day",
        "Yes, it was worth it",
    ),
    "formal": (
        "A moment worth sharing",
        "A day to remember",
        "Glad to share this one",
        "More to come",
    ),
}
_LINKS: dict[Register, tuple[str, ...]] = {
    "calm": (
        ", and everyone's on about {t}",
        ", with {t} on everyone's mind",
        ", while my feed is all {t}",
        ", right when {t} is everywhere",
        ", just as everyone's talking about {t}",
        ". Meanwhile, it's all {t} out there",
        ". And yes, everyone's on about {t}",
        ", somewhere between all the talk of {t}",
    ),
    "lively": (
        ", and everyone's on about {t}",
        ", right on time for {t}",
        ", and my feed is all {t}",
        ". And yes, {t} is everywhere",
    ),
    "formal": (
        ", as many are talking about {t}",
        ", with {t} in the conversation",
        ", at a time when {t} is on many minds",
        ", while {t} is making the rounds",
    ),
}
_CONTRASTS: dict[Register, tuple[str, ...]] = {
    "calm": (
        "Everyone's on about {t}, and here: ",
        "My feed is all {t}. Over here: ",
        "While the world talks about {t}: ",
    ),
    "lively": ("Everyone's on about {t}, and me: ", "My feed is all {t}. Over here: ", "Between all the {t} talk: "),
    "formal": ("While many are talking about {t}: ", "Alongside the talk about {t}: "),
}
_PLAIN = ("just {s}", "still all about {s}", "happy with {s}", "{s}, as ever")


@dataclass(frozen=True, slots=True)
class Plan:
    """``slots``: a text is one alternative of each, in order. ``trend`` is the cleaned phrase that all texts hold."""

    slots: Slots
    subject: Subject
    trend: str | None

    @property
    def max_chars(self) -> int:
        return sum(max(map(len, slot)) for slot in self.slots)


def make_plan(request: CaptionRequest, description: str, trends: Sequence[RetrievedTrend], candidate: int) -> Plan:
    """The plan of one candidate. Candidates differ in form, in the alternatives they get, and in the trend."""
    note = request.note or ""
    subject, clause = find_subject(note, description), note_clause(note)
    register = _register(request)
    phrases = [phrase for found in trends if (phrase := clean_line(found.trend.phrase, MAX_PHRASE_CHARS))]
    turn = phrases[: max(1, TREND_CHOICE)]
    for trend in [turn[candidate % len(turn)], *phrases] if turn else []:
        for slots in _with_trend(subject, clause, trend, register, candidate):
            if fitting := _fit(_allowed(slots, request.exclude), request.limit):
                return Plan(fitting, subject, trend)
    for slots in _without_trend(subject, clause, register, candidate):
        if fitting := _fit(_allowed(slots, request.exclude), request.limit):
            return Plan(fitting, subject, None)
    return Plan(((capital(subject.phrase),), (".",)), subject, None)


def _with_trend(subject: Subject, clause: str, trend: str, register: Register, candidate: int) -> list[Slots]:
    """Forms that hold the trend, the preferred one first. The last ones are for very few characters."""
    opening = _fill(_turn(_OPENINGS[register], candidate, 3), s=subject.phrase)
    links = _closed(_fill(_turn(_LINKS[register], candidate, 4), t=trend), register)
    contrasts = _fill(_turn(_CONTRASTS[register], candidate, len(_CONTRASTS[register])), t=trend)
    end = _ends("", register)
    told = capital(clause)
    plain = _fill(_PLAIN, s=subject.phrase)
    direct: Slots = (opening, links)
    if clause and _mentions(told, trend) and names(clause, subject):
        remarks = _turn(_REMARKS[register], candidate, 3)
        forms: list[Slots] = [(_closed((told,), register),), ((told,), (". ",), remarks, end)]
    elif clause and names(clause, subject):
        forms = [((told,), links), (contrasts, (clause,), end), direct, (contrasts, plain, end)]
    elif clause:
        turned_round: Slots = (opening, (". ",), (told,), links)
        forms = [((told,), (". ",), opening, links), (contrasts, plain, end), direct, turned_round]
    else:
        forms = [direct, (contrasts, plain, end)]
    turned = [*forms[candidate % len(forms) :], *forms[: candidate % len(forms)]]
    said = _closed((f" and {trend}",), register)
    short: list[Slots] = [((capital(name),), said) for name in (subject.phrase, subject.name)]
    return [*turned, direct, *short]


def _mentions(text: str, trend: str) -> bool:
    """Whether the text has the trend already, word for word and as words of its own."""
    return any(trend in text[span.start : span.end] for span in find_spans(text, [("", (trend,))]))


def _without_trend(subject: Subject, clause: str, register: Register, candidate: int) -> list[Slots]:
    opening = _fill(_turn(_OPENINGS[register], candidate, 3), s=subject.phrase)
    remarks, end, told = _turn(_REMARKS[register], candidate, 3), _ends("", register), capital(clause)
    plain: Slots = (opening, (". ",), remarks, end)
    if clause and names(clause, subject):
        forms: list[Slots] = [((told,), (". ",), remarks, end), plain]
    elif clause:
        forms = [((told,), (". ",), opening, end), (opening, (". ",), (told,), end)]
    else:
        forms = [plain, (opening, end)]
    turned = [*forms[candidate % len(forms) :], *forms[: candidate % len(forms)]]
    return [*turned, (opening, end)]


def _allowed(slots: Slots, exclude: Sequence[str]) -> Slots:
    """The alternatives that hold none of the words; a slot may be left without any."""
    if not exclude:
        return slots
    unwanted = [("", tuple(exclude))]
    return tuple(tuple(text for text in slot if not find_spans(text, unwanted)) for slot in slots)


def _fit(slots: Slots, max_chars: int) -> Slots | None:
    """The plan without its longest alternatives, so that no text is longer than asked for; None where none fits, or a
    slot is empty."""
    if not all(slots):
        return None
    kept = [sorted(slot, key=len) for slot in slots]
    while sum(len(slot[-1]) for slot in kept) > max_chars:
        wide = [slot for slot in kept if len(slot) > 1]
        if not wide:
            return None
        max(wide, key=lambda slot: len(slot[-1]) - len(slot[0])).pop()
    return tuple(tuple(text for text in slot if text in left) for slot, left in zip(slots, kept, strict=True))


def _turn(texts: tuple[str, ...], candidate: int, groups: int) -> tuple[str, ...]:
    """The candidate's share of the texts, so that candidates that follow each other share none."""
    return texts[candidate % groups :: groups]


def _fill(texts: Sequence[str], *, s: str = "", t: str = "") -> tuple[str, ...]:
    # Not str.format: a trend may hold braces of its own.
    return tuple(text.replace("{s}", s, 1) if s else text.replace("{t}", t, 1) for text in texts)


def _closed(texts: Sequence[str], register: Register) -> tuple[str, ...]:
    """Each text with each way in which a sentence may end after it."""
    return tuple(text + end for text in texts for end in _ends(text, register))


def _ends(last: str, register: Register) -> tuple[str, ...]:
    """How a sentence ends whose last words are ``last``: a phrase that ends a sentence by itself needs nothing."""
    if last.endswith((".", "!", "?", "…", "。", "！", "？")):
        return ("",)
    return ("!", ".") if register == "lively" else (".",)


def _register(request: CaptionRequest) -> Register:
    tone = (request.tone or "").casefold()
    if any(word in tone for word in FORMAL):
        return "formal"
    if any(word in tone for word in LIVELY):
        return "lively"
    if not tone and request.platform == "linkedin":
        return "formal"
    return "lively" if not tone and request.platform == "tiktok" else "calm"
