"""The values that cross the seams of TrendRAG.

All are frozen. Datetimes are aware and in UTC. Text offsets are Python ``str`` indices (code points).
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    computed_field,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

MAX_NOTE_CHARS = 4_000
"""Longest note a request may carry. Longer ones are refused, not cut: a silently cut note would surprise its writer."""

MAX_CANDIDATES = 8
MAX_CAPTION_CHARS = 5_000
DEFAULT_MAX_CHARS = 280
"""Longest caption where neither the request nor a platform's rules say more."""

MAX_TURNS = 20
MAX_CHANGE_CHARS = 1_000
MAX_WORDS = 10
"""How many words or phrases a request may want in a caption, and how many it may want out."""

Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Region = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2}$", to_upper=True)]
"""ISO 3166-1 alpha-2, taken in either case."""
Stage = Literal["rising", "peaking", "fading"]
Origin = Literal["live", "sample"]
Judged = Literal["model", "failed"]
Platform = Literal[
    "generic", "instagram", "tiktok", "x", "facebook", "linkedin", "pinterest", "threads", "bluesky", "mastodon"
]
Length = Literal["short", "medium", "long"]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
"""A word or a short phrase; also, among those never to use, the id of a trend."""


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
    """Narrows retrieval. Trends of no region (everywhere) and of unknown language pass every filter.

    ``k`` is how many trends are answered at most; None leaves that to the retriever.
    """

    region: Region | None = None
    language: str | None = None
    categories: tuple[str, ...] = ()
    k: int | None = Field(default=None, ge=1, le=50)


class Retrieval(Frozen):
    """What a retriever answers: at most k trends, best first. None is a right answer; ``reason`` then says why."""

    trends: tuple[RetrievedTrend, ...] = ()
    snapshot: SnapshotInfo | None = None
    reason: str | None = None


class PreparedImage(Frozen):
    """An image that is safe to send on: decoded once, upright, RGB, bare of metadata, within the model's pixel budget.

    Only ``serving.images`` makes these. ``sha256`` is of ``data``, the encoded bytes.
    """

    data: bytes = Field(repr=False)
    mime_type: Literal["image/jpeg", "image/png"]
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str


class Turn(Frozen):
    """One earlier exchange about the same image, for refining: a caption ("assistant"), or what to change ("user")."""

    role: Literal["user", "assistant"]
    text: str = Field(min_length=1, max_length=MAX_CAPTION_CHARS)

    @model_validator(mode="after")
    def _short_change(self) -> Self:
        if self.role == "user" and len(self.text) > MAX_CHANGE_CHARS:
            raise ValueError(f"What to change can be said in at most {MAX_CHANGE_CHARS} characters.")
        return self


def _alternating(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    if [turn.role for turn in turns] != ["assistant", "user"] * (len(turns) // 2):
        raise ValueError("It must be a caption (assistant), then what to change (user), and so on, ending with user.")
    return turns


Turns = Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS), AfterValidator(_alternating)]


class Regenerate(Frozen):
    """Asks for one new candidate in the place of the number ``candidate``, unlike all the texts of ``avoid``."""

    candidate: int = Field(ge=0, lt=MAX_CANDIDATES)
    avoid: tuple[Annotated[str, StringConstraints(max_length=MAX_CAPTION_CHARS)], ...] = Field(
        default=(), max_length=MAX_CANDIDATES
    )


class Sampling(Frozen):
    """How the model samples for one request; what is None is left to the settings. ``max_tokens`` can't raise theirs.
    With a ``seed`` candidates are as reproducible as the model server is."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: tuple[str, ...] = Field(default=(), max_length=4)


class CaptionRequest(Frozen):
    """One image, and how its captions should be.

    ``max_chars`` None leaves it to ``length`` and the platform's rules; the chain fills it in before it asks a writer.
    ``include`` are words and phrases that a caption should hold; ``exclude`` those that it should not, and trends (by
    phrase or id) that are never offered. With ``alt_text`` the answer describes the image for those who can't see it:
    without trends, hashtags or emoji. ``emoji`` and ``hashtags`` False keep these out of the text, whatever the model
    writes. ``turns`` are what was said before, oldest first: a caption, then what to change, and so on.
    """

    image: PreparedImage
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARS)
    platform: Platform = "generic"
    tone: str | None = Field(default=None, max_length=60)
    language: str = Field(default="en", max_length=35)
    length: Length | None = None
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    max_chars: int | None = Field(default=None, ge=40, le=MAX_CAPTION_CHARS)
    trends: bool = True
    filters: TrendFilters = TrendFilters()
    include: tuple[Words, ...] = Field(default=(), max_length=MAX_WORDS)
    exclude: tuple[Words, ...] = Field(default=(), max_length=MAX_WORDS)
    alt_text: bool = False
    emoji: bool = True
    hashtags: bool = True
    turns: Turns = ()
    regenerate: Regenerate | None = None
    sampling: Sampling = Sampling()

    @property
    def limit(self) -> int:
        """Longest caption, in characters (code points)."""
        return self.max_chars or DEFAULT_MAX_CHARS

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the candidates to write."""
        return (self.regenerate.candidate,) if self.regenerate else tuple(range(self.candidates))


class Usage(Frozen):
    """Tokens over all model calls of a request. ``cached_tokens`` of the prompt came from the server's prefix cache.

    Servers tell them at the end: of a text that was cut only the tokens that were read are counted, and no prompt."""

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

    ``cut`` says that the model wrote more than was asked for, and the text ends where it still fitted. ``missing`` are
    the words of the request's ``include`` that the text lacks, ``unwanted`` those of its ``exclude`` that it holds all
    the same. ``degraded`` says that a draft engine wrote it in place of the writer, ``model`` is then that engine.
    """

    type: Literal["candidate_done"] = "candidate_done"
    candidate: int
    text: str
    confidence: float | None = Field(default=None, gt=0, le=1)
    trend_ids: tuple[str, ...] = ()
    cut: bool = False
    missing: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    degraded: bool = False
    model: str | None = None


class CandidateFailed(Frozen):
    """One candidate could not be finished; what was sent of it counts for nothing, and the others go on.

    Where none is finished, `Failed` follows. ``code`` is one of ``trendrag.errors``, ``retry_after`` as in `Failed`.
    """

    type: Literal["candidate_failed"] = "candidate_failed"
    candidate: int
    code: str
    message: str
    retry_after: float | None = Field(default=None, ge=0, exclude_if=lambda seconds: seconds is None)


class Done(Frozen):
    """All candidates are finished or have failed, and at least one is finished.

    ``draft`` is True where the small embedded engine wrote any of them; ``degraded`` where it did so in place of the
    model ``model``, which could not. ``snapshot_age_s`` is the time since the newest trend of the snapshot was really
    seen, in seconds.
    """

    type: Literal["done"] = "done"
    usage: Usage
    timings: Timings
    snapshot_id: str | None
    snapshot_age_s: float | None = None
    model: str
    draft: bool
    degraded: bool = False


class Failed(Frozen):
    """The request ended without a caption. Always the last event; ``code`` is one of ``trendrag.errors``.

    ``retry_after``: seconds after which asking again is worth while, where that is known.
    """

    type: Literal["failed"] = "failed"
    code: str
    message: str
    retry_after: float | None = Field(default=None, ge=0, exclude_if=lambda seconds: seconds is None)


CaptionEvent = Annotated[
    Described | TrendsRetrieved | Delta | Highlight | CandidateDone | CandidateFailed | Done | Failed,
    Field(discriminator="type"),
]

CAPTION_EVENT: TypeAdapter[CaptionEvent] = TypeAdapter(CaptionEvent)


def surfaces(trends: Sequence[Trend]) -> list[tuple[str, tuple[str, ...]]]:
    """What the highlighter looks for: (trend id, its phrase and aliases), in the order of the trends."""
    return [(trend.id, (trend.phrase, *trend.aliases)) for trend in trends]
