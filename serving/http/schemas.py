"""What goes over the wire: the body of a caption request and the JSON answers.

The kernel's types are used as they are wherever they say everything; a stream sends the kernel's events.
"""

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from trendrag.errors import InvalidImage
from trendrag.text import clean_note
from trendrag.types import (
    MAX_CANDIDATES,
    MAX_NOTE_CHARS,
    CaptionRequest,
    Judged,
    Platform,
    PreparedImage,
    Region,
    RetrievedTrend,
    SnapshotInfo,
    Timings,
    Trend,
    TrendFilters,
    Usage,
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
    image_url: str | None = Field(default=None, max_length=2_000, description="not taken yet: answers 501")
    note: str | None = Field(
        default=None, max_length=MAX_NOTE_CHARS, description="what the image is about, in your words"
    )
    platform: Platform = Field(default="generic", description="where the caption will appear")
    tone: str | None = Field(default=None, max_length=60, description="such as `playful` or `matter of fact`")
    language: LanguageTag = Field(default="en", description="BCP 47 tag of the caption's language")
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES, description="how many captions to write")
    max_chars: int = Field(default=280, ge=40, le=5_000, description="longest caption, in characters")
    trends: bool = Field(default=True, description="false writes without looking for trends")
    region: Region | None = Field(default=None, description="ISO 3166-1 alpha-2; trends of that region or of none")
    trend_language: LanguageTag | None = Field(default=None, description="trends of that language or of an unknown one")
    categories: list[Category] = Field(default=[], max_length=20, description="trends of these categories only")

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image is None) == (self.image_url is None):
            raise ValueError("Send the image either in `image` (base64) or in `image_url`, and not in both.")
        return self

    def image_bytes(self) -> bytes:
        """Raises InvalidImage where ``image`` is not base64."""
        text = self.image or ""
        if text[:5].lower() == "data:":
            head, comma, text = text.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                raise InvalidImage("image: a data: URL must look like data:image/jpeg;base64,....")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidImage("image: this is not valid base64. Encode the whole file, with its padding.") from error

    def caption_request(self, image: PreparedImage) -> CaptionRequest:
        return CaptionRequest(
            image=image,
            # A note of nothing but blanks and control characters is no note.
            note=self.note if self.note and clean_note(self.note) else None,
            platform=self.platform,
            tone=self.tone or None,
            language=self.language,
            candidates=self.candidates,
            max_chars=self.max_chars,
            trends=self.trends,
            filters=TrendFilters(region=self.region, language=self.trend_language, categories=tuple(self.categories)),
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
    text: str
    confidence: float | None = Field(
        description="exp(mean token log-probability): how sure the model was of its wording, not of its truth"
    )
    highlights: list[HighlightAnswer]
    trends: list[Trend] = Field(description="the trends that the text mentions, with where each was seen")


class CaptionsAnswer(BaseModel):
    status: Literal["success"] = "success"
    captions: list[CaptionAnswer]
    description: str = Field(description="what is in the image; empty where the note stood alone")
    retrieved: list[RetrievedTrend] = Field(description="the trends that the model was offered")
    reason: str | None = Field(description="why no trend was offered, where none was")
    judged: Judged | None = Field(
        description="`model`: it had the last look at the trends found and chose among them; `failed`: it should have, "
        "and they were offered as found; null where it is not asked to, or nothing was found"
    )
    snapshot: SnapshotInfo | None
    model: str
    draft: bool = Field(description="true where the small embedded engine wrote the text")
    usage: Usage
    timings: Timings


class ReadyAnswer(BaseModel):
    status: Literal["ready", "not_ready"]
    model: str
    draft: bool
    message: str | None = Field(description="what to do, where the model can't be used")
    trends: Literal["live", "sample", "none"] = Field(description="captions work without trends, so none is no failure")
    snapshot: SnapshotInfo | None
    schedule: Literal["off", "running", "restarting"] = Field(
        description="the process that collects trends beside the server, where it was asked for"
    )


class AliveAnswer(BaseModel):
    status: Literal["alive"] = "alive"
