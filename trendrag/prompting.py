"""Prompts: text files in ``trendrag/prompts``, put together here.

The calls for one image (describe, judge, caption, refine) begin with the same bytes, system prompt and image, and all
text that varies comes after them, so that the model server's prefix cache serves the image almost for free to all but
the first. Of that text, what only one candidate is told (its angle) comes last, so that candidates share the rest too.

Whatever comes from outside is cleaned by ``clean_note`` or ``clean_line``, after which it can't hold an angle bracket:
nothing can close the fence that it stands in.
"""

import base64
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from trendrag.platforms import Platforms, built_in_platforms
from trendrag.text import clean_line, clean_note
from trendrag.types import CaptionRequest, Length, PreparedImage, RetrievedTrend

MAX_PHRASE_CHARS = 80
MAX_SUMMARY_CHARS = 160

MAX_EARLIER_CHARS = 500

_ID = re.compile(r"[0-9a-f]{12,64}")  # of a trend; it says nothing to a model

_LENGTHS: dict[Length, str] = {
    "short": "Keep it to one short sentence.",
    "medium": "Two or three sentences.",
    "long": "A paragraph of several sentences.",
}


@cache
def prompt(name: str) -> str:
    """The text of ``prompts/NAME.txt``, without the last line's end."""
    return (files("trendrag") / "prompts" / f"{name}.txt").read_text("utf-8").removesuffix("\n")


def describe_messages(image: PreparedImage) -> list[BaseMessage]:
    return _messages(image, prompt("describe"))


def caption_messages(
    request: CaptionRequest,
    trends: Sequence[RetrievedTrend],
    candidate: int = 0,
    platforms: Platforms | None = None,
) -> list[BaseMessage]:
    """Asks for one candidate; where the request has turns, for the last caption with the last change.

    Only the end of the last message differs between the candidates of a request.
    """
    asked = caption_text(request, trends, platforms)
    told: list[BaseMessage] = []
    for turn in request.turns:
        if turn.role == "assistant":
            told.append(AIMessage(clean_note(turn.text)))
        else:
            told.append(HumanMessage(_change(turn.text, request.limit)))
    messages = [*_messages(request.image, asked if told else _with_tail(asked, request, candidate)), *told]
    if told:
        messages[-1] = HumanMessage(_with_tail(_change(request.turns[-1].text, request.limit), request, candidate))
    return messages


def caption_text(request: CaptionRequest, trends: Sequence[RetrievedTrend], platforms: Platforms | None = None) -> str:
    """The part of the caption prompt that varies from request to request, the same for all candidates."""
    rules = (platforms or built_in_platforms())[request.platform]
    note = clean_note(request.note or "")
    tone = clean_line(request.tone or "", 60)
    wishes = [f"Tone: {tone}." if tone else "", _LENGTHS[request.length] if request.length else ""]
    unwanted = [words for words in request.exclude if not _ID.fullmatch(words)]
    words = _listed("include", request.include, MAX_PHRASE_CHARS) + _listed("exclude", unwanted, MAX_PHRASE_CHARS)
    parts = {
        "language": clean_line(request.language, 35),
        "max_chars": request.limit,
        "note": prompt("note").format(note=note) + "\n" if note else "",
        "words": words,
    }
    if request.alt_text:
        return prompt("alt").format(wishes=_joined(wishes), **parts)
    if not request.emoji or rules.emoji.value == "none":
        wishes.append("No emoji.")
    elif rules.emoji.value == "few":
        wishes.append("One or two emoji at most.")
    if not request.hashtags or not rules.hashtags.value:
        wishes.append("No hashtags.")
    elif request.platform != "generic":
        wishes.append(f"Hashtags, if any, at the end: {rules.hashtags.value} at most.")
    return prompt("caption").format(
        platform=rules.name,
        wishes=_joined(wishes),
        trends=prompt("trends").format(trends="\n".join(map(trend_line, trends))) + "\n" if trends else "",
        **parts,
    )


def angle(candidate: int) -> str:
    """How one candidate should set about it. After as many as there are, they begin anew."""
    angles = prompt("angles").splitlines()
    return angles[candidate % len(angles)]


def _with_tail(text: str, request: CaptionRequest, candidate: int) -> str:
    """``text`` with what this candidate alone is told."""
    tail: list[str] = []
    if request.regenerate:
        avoid = request.regenerate.avoid
        tail.append(_listed("earlier", avoid, MAX_EARLIER_CHARS).rstrip("\n"))
        candidate += request.candidates + len(avoid) - 1  # an angle that none of those written had
    if not request.alt_text and (request.regenerate or request.candidates > 1):
        tail.append(angle(candidate))
    return "\n".join(part for part in (text, *tail) if part)


def _change(text: str, max_chars: int) -> str:
    change = clean_note(text)
    return prompt("change").format(change=change, max_chars=max_chars)


def _listed(name: str, texts: Sequence[str], max_chars: int) -> str:
    """The prompt ``name`` with a line for each text, "" where there is none."""
    lines = [f"- {line}" for text in texts if (line := clean_line(text, max_chars))]
    return prompt(name).format(words="\n".join(lines)) + "\n" if lines else ""


def _joined(wishes: Sequence[str]) -> str:
    return " ".join(wish for wish in wishes if wish)


def judge_messages(request: CaptionRequest, trends: Sequence[RetrievedTrend]) -> list[BaseMessage]:
    """Asks which of the trends, numbered from 1, fit: an object of JSON whose ``fits`` lists their numbers."""
    note = clean_note(request.note or "")
    numbered = (f"{number}. {trend_text(found)}" for number, found in enumerate(trends, 1))
    text = prompt("judge").format(
        note=prompt("note").format(note=note) + "\n" if note else "", trends="\n".join(numbered)
    )
    return _messages(request.image, text)


def trend_line(found: RetrievedTrend) -> str:
    return f"- {trend_text(found)}"


def trend_text(found: RetrievedTrend) -> str:
    """One trend as the model sees it. Cleaned again here: a snapshot may come from an older or a foreign writer."""
    phrase = clean_line(found.trend.phrase, MAX_PHRASE_CHARS)
    summary = clean_line(found.trend.summary, MAX_SUMMARY_CHARS)
    return f"{phrase}: {summary}" if summary else phrase


def _messages(image: PreparedImage, text: str) -> list[BaseMessage]:
    block = {"type": "image", "base64": base64.b64encode(image.data).decode("ascii"), "mime_type": image.mime_type}
    return [SystemMessage(prompt("system")), HumanMessage([block, {"type": "text", "text": text}])]
