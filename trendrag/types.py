"""The values that cross the seams of TrendRAG.

All are frozen. Datetimes are aware and in UTC. Text offsets are Python ``str`` indices (code points).
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    computed_field,
)
from pydantic.json_schema import SkipJsonSchema

MAX_NOTE_CHARS = 4_000
"""Longest note a request may carry. Longer ones are refused, not cut: a silently cut note would surprise its writer."""

MAX_CANDIDATES = 8

Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Region = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2}$", to_upper=True)]
"""ISO 3166-1 alpha-2, taken in either case."""
Stage = Literal["rising", "peaking", "fading"]
Origin = Literal["live", "sample"]
Judged = Literal["model", "failed"]
Platform = Literal["generic", "instagram", "tiktok", "x", "facebook", "linkedin", "pinterest", "threads"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(Frozen):
    """One place where a trend was seen. ``volume`` is in the source's own unit (searches, uses, points, views)."""

    source: str
    title: str
    url: str | None = None
    published_at: Utc | None = None
    volume: int | None = Field(default=None, ge=0)


class Trend(Frozen):
    """A topic people talk about now.

    ``phrase`` is how a caption would say it, ``aliases`` are other spellings (a hashtag among them), ``score`` is the
    decayed burst strength scaled to [0, 1], ``velocity`` the burst's change per hour (positive: still growing).
    ``language`` is BCP 47 ("und" where unknown), ``region`` ISO 3166-1 alpha-2 or None for everywhere. ``scenes`` say
    what photos that fit it show; they are there to be found by, in snapshots alone, and are in no answer.
    """

    id: str
    phrase: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    language: str = "und"
    region: str | None = None
    categories: tuple[str, ...] = ()
    score: float = Field(ge=0, le=1)
    velocity: float = 0.0
    stage: Stage = "rising"
    first_seen: Utc
    last_seen: Utc
    evidence: tuple[Evidence, ...] = ()
    # Left out where there are none: snapshots and contents from before there were any stay what they are.
    scenes: SkipJsonSchema[tuple[str, ...]] = Field(default=(), exclude_if=lambda scenes: not scenes)


class RetrievedTrend(Frozen):
    """A trend that fits a query. ``similarity`` is the cosine in [-1, 1]; ``score`` is what trends are ranked by."""

    trend: Trend
    similarity: float = Field(ge=-1.0001, le=1.0001)
    score: float


class SnapshotInfo(Frozen):
    """Which trends an answer was made with, so that nobody takes old or sample data for live.

    ``recorded_at`` is when the newest trend in it was really seen, ``created_at`` when the snapshot was written.
    """

    id: str
    created_at: Utc
    recorded_at: Utc | None
    origin: Origin
    count: int
    warning: str | None = None

    # Written out wherever the snapshot is, and computed again, not believed, where it is read back.
    model_config = ConfigDict(extra="ignore")

    @computed_field  # type: ignore[prop-decorator]  # mypy refuses what pydantic documents
    @property
    def label(self) -> str:
        """How every interface names this snapshot to a person."""
        day = f"{self.recorded_at:%Y-%m-%d}" if self.recorded_at else "at an unknown time"
        if self.origin == "sample":
            return f"sample trends, recorded {day}"
        return f"trends last seen {self.recorded_at:%Y-%m-%d %H:%M} UTC" if self.recorded_at else "no trends"


class TrendFilters(Frozen):
    """Narrows retrieval. Trends of no region (everywhere) and of unknown language pass every filter."""

    region: Region | None = None
    language: str | None = None
    categories: tuple[str, ...] = ()


class Retrieval(Frozen):
    """What a retriever answers: at most k trends, best first. None is a right answer; ``reason`` then says why."""

    trends: tuple[RetrievedTrend, ...] = ()
    snapshot: SnapshotInfo | None = None
    reason: str | None = None


class PreparedImage(Frozen):
    """An image that is safe to send on: decoded once, upright, RGB, within the model's pixel budget.

    Only ``serving.images`` makes these. ``sha256`` is of ``data``, the encoded bytes.
    """

    data: bytes = Field(repr=False)
    mime_type: Literal["image/jpeg", "image/png"]
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str


class Turn(Frozen):
    """One earlier exchange about the same image, for refining."""

    role: Literal["user", "assistant"]
    text: str


class CaptionRequest(Frozen):
    image: PreparedImage
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARS)
    platform: Platform = "generic"
    tone: str | None = Field(default=None, max_length=60)
    language: str = Field(default="en", max_length=35)
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    max_chars: int = Field(default=280, ge=40, le=5_000)
    trends: bool = True
    filters: TrendFilters = TrendFilters()
    turns: tuple[Turn, ...] = ()


class Usage(Frozen):
    """Tokens over all model calls of a request. ``cached_tokens`` of the prompt came from the server's prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Timings(Frozen):
    """Seconds since the request began, except ``describe``, ``retrieve`` and ``judge``, which are durations."""

    describe: float | None = None
    retrieve: float | None = None
    judge: float | None = None
    first_token: float | None = None
    total: float


# Events, in the order in which they can occur. One union serves SSE, the command line, batch and evals.


class Described(Frozen):
    """What is in the image, and where that was learnt. With "note" the note stood alone and ``text`` is empty."""

    type: Literal["described"] = "described"
    text: str
    source: Literal["model", "cache", "note"]


class TrendsRetrieved(Frozen):
    """The trends that the writer is offered, best first.

    ``judged`` says who had the last look at those found: "model" chose among them; with "failed" the model should have
    and did not, so that they are offered as found; None where nobody was to look, or nothing was found.
    """

    type: Literal["trends"] = "trends"
    trends: tuple[RetrievedTrend, ...]
    snapshot: SnapshotInfo | None
    reason: str | None = None
    judged: Judged | None = None


class Delta(Frozen):
    type: Literal["delta"] = "delta"
    candidate: int
    text: str


class Highlight(Frozen):
    """Code points [start, end) of the candidate's text so far mention the trend. Never taken back."""

    type: Literal["highlight"] = "highlight"
    candidate: int
    start: int
    end: int
    trend_id: str


class CandidateDone(Frozen):
    """A finished candidate. ``text`` is the concatenation of its deltas.

    ``confidence`` = exp(mean token log-probability), in (0, 1]: the geometric mean probability that the model gave its
    own tokens. It says how sure the model was of its wording, not whether the caption is true. None where the server
    reports no log-probabilities.
    """

    type: Literal["candidate_done"] = "candidate_done"
    candidate: int
    text: str
    confidence: float | None = Field(default=None, gt=0, le=1)
    trend_ids: tuple[str, ...] = ()


class Done(Frozen):
    """All candidates are finished. ``draft`` is True where the small embedded engine wrote them."""

    type: Literal["done"] = "done"
    usage: Usage
    timings: Timings
    snapshot_id: str | None
    model: str
    draft: bool


class Failed(Frozen):
    """The request ended without all its candidates. Always the last event; ``code`` is one of ``trendrag.errors``."""

    type: Literal["failed"] = "failed"
    code: str
    message: str


CaptionEvent = Annotated[
    Described | TrendsRetrieved | Delta | Highlight | CandidateDone | Done | Failed,
    Field(discriminator="type"),
]

CAPTION_EVENT: TypeAdapter[CaptionEvent] = TypeAdapter(CaptionEvent)


def surfaces(trends: Sequence[Trend]) -> list[tuple[str, tuple[str, ...]]]:
    """What the highlighter looks for: (trend id, its phrase and aliases), in the order of the trends."""
    return [(trend.id, (trend.phrase, *trend.aliases)) for trend in trends]
