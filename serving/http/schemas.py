"""What goes over the wire: the body of a caption request and the JSON answers.

The kernel's types are used as they are wherever they say everything; a stream sends the kernel's events.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from trendrag.text import clean_note
from trendrag.types import (
    MAX_CANDIDATES,
    MAX_CAPTION_CHARS,
    MAX_NOTE_CHARS,
    MAX_WORDS,
    CaptionRequest,
    Judged,
    Length,
    Platform,
    PreparedImage,
    Regenerate,
    Region,
    RetrievedTrend,
    SnapshotInfo,
    Timings,
    Trend,
    TrendFilters,
    Turns,
    Usage,
    Words,
)

# BCP 47 as far as a form needs it: "en", "pt-BR", "zh-Hant".
LanguageTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=60)]


class CaptionBody(BaseModel):
    """One image, as base64 or by its address, and how its captions should be."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "image": "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ...",
                    "note": "first coffee of the morning",
                    "platform": "instagram",
                    "candidates": 2,
                }
            ]
        },
    )

    image: str | None = Field(
        default=None,
        min_length=1,
        description="the image in base64, with or without a `data:` prefix: JPEG, PNG, WebP, GIF or AVIF",
    )
    image_url: str | None = Field(
        default=None,
        max_length=2_000,
        description="where the image is, on the public internet; it is fetched by the server",
    )
    note: str | None = Field(
        default=None, max_length=MAX_NOTE_CHARS, description="what the image is about, in your words"
    )
    platform: Platform = Field(default="generic", description="where the caption will appear")
    tone: str | None = Field(default=None, max_length=60, description="such as `playful` or `matter of fact`")
    language: LanguageTag = Field(default="en", description="BCP 47 tag of the caption's language")
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES, description="how many captions to write")
    length: Length | None = Field(
        default=None, description="how long roughly; the platform's rules say what that means"
    )
    max_chars: int | None = Field(
        default=None,
        ge=40,
        le=MAX_CAPTION_CHARS,
        description="longest caption, in characters (code points), which is kept; by default what `length` or else the "
        "platform has. More than the platform takes is refused",
    )
    alt_text: bool = Field(
        default=False, description="write the image's alt text instead: no trends, no hashtags, no emoji"
    )
    emoji: bool = Field(default=True, description="false keeps emoji out")
    hashtags: bool = Field(default=True, description="false keeps hashtags out")
    include: tuple[Words, ...] = Field(
        default=(), max_length=MAX_WORDS, strict=False, description="words or phrases that a caption should have"
    )
    exclude: tuple[Words, ...] = Field(
        default=(),
        max_length=MAX_WORDS,
        strict=False,
        description="words, phrases and trends (by phrase or id) never to use: such trends are not offered",
    )
    turns: Turns = Field(
        default=(),
        strict=False,
        description="to change a caption: what was said so far, oldest first, as `assistant` (a caption) and `user` "
        "(what to change) in turn, ending with `user`. Send everything else as before",
    )
    regenerate: Regenerate | None = Field(
        default=None,
        description="write one candidate anew, unlike the texts of `avoid`. Send everything else as before",
    )
    trends: bool = Field(default=True, description="false writes without looking for trends")
    k: int | None = Field(default=None, ge=1, le=20, description="how many trends to offer the model at most")
    region: Region | None = Field(default=None, description="ISO 3166-1 alpha-2; trends of that region or of none")
    trend_language: LanguageTag | None = Field(default=None, description="trends of that language or of an unknown one")
    categories: list[Category] = Field(default=[], max_length=20, description="trends of these categories only")

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image is None) == (self.image_url is None):
            raise ValueError("Send the image either in `image` (base64) or in `image_url`, and not in both.")
        return self

    def caption_request(self, image: PreparedImage) -> CaptionRequest:
        return CaptionRequest(
            image=image,
            # A note of nothing but blanks and control characters is no note.
            note=self.note if self.note and clean_note(self.note) else None,
            platform=self.platform,
            tone=self.tone or None,
            language=self.language,
            candidates=self.candidates,
            length=self.length,
            max_chars=self.max_chars,
            trends=self.trends,
            filters=TrendFilters(
                region=self.region, language=self.trend_language, categories=tuple(self.categories), k=self.k
            ),
            include=self.include,
            exclude=self.exclude,
            alt_text=self.alt_text,
            emoji=self.emoji,
            hashtags=self.hashtags,
            turns=self.turns,
            regenerate=self.regenerate,
        )


class ErrorAnswer(BaseModel):
    status: Literal["error"] = "error"
    code: str = Field(description="stable and machine-readable", examples=["invalid_image"])
    message: str = Field(description="for people: what is wrong and what to do")


class HighlightAnswer(BaseModel):
    """Code points [start, end) of the caption's text mention the trend."""

    start: int
    end: int
    trend_id: str


class CaptionAnswer(BaseModel):
    candidate: int = Field(description="its number, from 0: those that failed are missing")
    text: str
    confidence: float | None = Field(
        description="exp(mean token log-probability): how sure the model was of its wording, not of its truth"
    )
    highlights: list[HighlightAnswer]
    trends: list[Trend] = Field(description="the trends that the text mentions, with where each was seen")
    cut: bool = Field(
        description="the model wrote more than fits; the text ends with the last sentence or word that did"
    )
    missing: list[str] = Field(description="those of `include` that the text lacks")
    unwanted: list[str] = Field(description="those of `exclude` that the text has all the same")
    degraded: bool = Field(description="true where a draft engine wrote it because the model could not")


class FailedAnswer(BaseModel):
    """A candidate that could not be finished while others could."""

    candidate: int
    code: str
    message: str


History = Literal["on", "off", "unavailable"]


class CaptionsAnswer(BaseModel):
    status: Literal["success"] = "success"
    id: str | None = Field(default=None, description="of this answer in your history; null where none is kept")
    history: History = Field(
        default="off",
        description="`on`: you find this answer again at /api/v1/history/{id}; `off`: nothing is kept here; "
        "`unavailable`: the service database does not answer just now, and this may be lost",
    )
    captions: list[CaptionAnswer] = Field(description="at least one; where all fail, the answer is an error")
    failed: list[FailedAnswer]
    description: str = Field(description="what is in the image; empty where the note stood alone")
    retrieved: list[RetrievedTrend] = Field(description="the trends that the model was offered")
    reason: str | None = Field(description="why no trend was offered, where none was")
    judged: Judged | None = Field(
        description="`model`: it had the last look at the trends found and chose among them; `failed`: it should have, "
        "and they were offered as found; null where it is not asked to, or nothing was found"
    )
    snapshot: SnapshotInfo | None
    snapshot_age_s: float | None = Field(description="seconds since its newest trend was seen")
    model: str
    draft: bool = Field(description="true where the small embedded engine wrote any of the text")
    degraded: bool = Field(description="true where it did so because the model could not")
    usage: Usage
    timings: Timings


class ReadyAnswer(BaseModel):
    status: Literal["ready", "degraded", "not_ready"] = Field(
        description="`degraded`: the model can't be used now, and drafts are written in its place"
    )
    model: str
    draft: bool
    message: str | None = Field(description="what to do, where the model can't be used")
    trends: Literal["live", "sample", "none"] = Field(description="captions work without trends, so none is no failure")
    snapshot: SnapshotInfo | None
    schedule: Literal["off", "running", "restarting"] = Field(
        description="the process that collects trends beside the server, where it was asked for"
    )
    redis: Literal["off", "up", "away"] = Field(
        description="what several servers share limits and caches by; while it is away, each keeps its own"
    )


class AliveAnswer(BaseModel):
    status: Literal["alive"] = "alive"
