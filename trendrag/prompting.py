"""Prompts: text files in ``trendrag/prompts``, put together here.

The calls for one image (describe, judge, caption) begin with the same bytes, system prompt and image, and all text that
varies comes after them, so that the model server's prefix cache serves the image almost for free to all but the first.
"""

import base64
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from trendrag.text import clean_line, clean_note
from trendrag.types import CaptionRequest, PreparedImage, RetrievedTrend

MAX_PHRASE_CHARS = 80
MAX_SUMMARY_CHARS = 160

_PLATFORMS = {"generic": "social media", "x": "X", "tiktok": "TikTok", "linkedin": "LinkedIn"}


@cache
def prompt(name: str) -> str:
    """The text of ``prompts/NAME.txt``, without the last line's end."""
    return (files("trendrag") / "prompts" / f"{name}.txt").read_text("utf-8").removesuffix("\n")


def describe_messages(image: PreparedImage) -> list[BaseMessage]:
    return _messages(image, prompt("describe"))


def caption_messages(request: CaptionRequest, trends: Sequence[RetrievedTrend]) -> list[BaseMessage]:
    return _messages(request.image, caption_text(request, trends))


def caption_text(request: CaptionRequest, trends: Sequence[RetrievedTrend]) -> str:
    """The varying part of the caption prompt."""
    note = clean_note(request.note or "")
    tone = clean_line(request.tone or "", 60)
    return prompt("caption").format(
        language=clean_line(request.language, 35),
        platform=_PLATFORMS.get(request.platform, request.platform.capitalize()),
        max_chars=request.max_chars,
        tone=f"Tone: {tone}." if tone else "",
        note=prompt("note").format(note=note) + "\n" if note else "",
        trends=prompt("trends").format(trends="\n".join(map(trend_line, trends))) + "\n" if trends else "",
    )


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
