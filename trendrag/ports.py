"""What the caption chain needs from outside: a describer, a retriever, a writer, and perhaps a judge. And a cache for
them.

The kernel defines the ports, ``indexes`` and ``serving`` implement them. All of them raise only ``TrendragError``.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from trendrag.types import CaptionRequest, PreparedImage, Retrieval, RetrievedTrend, TrendFilters, Usage

MAX_CACHED_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Description:
    """A few words on what is in an image, at most ~48 tokens, one line.

    ``cached``: no model was asked for this one. ``degraded``: a draft engine wrote it in place of the describer; good
    for one caption and not worth keeping.
    """

    text: str
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a candidate. ``logprob`` is the sum over its ``tokens``, natural logarithm; both 0 where unknown.

    ``usage`` is what is known so far of the whole candidate; that of the last chunk is complete, and many writers know
    none before it. ``cut`` comes with the last chunk only: the model had not finished when it reached its token limit.
    ``degraded`` says that a draft engine wrote this in place of the writer, ``model`` is then the engine's name.
    """

    text: str
    logprob: float = 0.0
    tokens: int = 0
    usage: Usage | None = None
    cut: bool = False
    degraded: bool = False
    model: str | None = None


class Describer(Protocol):
    @property
    def always(self) -> bool:
        """True where the writer can't see the image itself, so that a note never makes the description needless."""

    async def describe(self, image: PreparedImage) -> Description: ...


class Retriever(Protocol):
    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        """At most ``filters.k`` trends that fit the query, best first (where it is None, as many as the retriever was
        made for). An empty answer is a right one and says its reason."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which of the trends that a judge was shown fit, by their places there, from 0. None at all is a right answer."""

    chosen: frozenset[int]
    usage: Usage = field(default_factory=Usage)


class Judge(Protocol):
    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        """A last look at the trends found (at least one), with the image. Where it raises, they are offered as found,
        so it must not take long."""


class Writer(Protocol):
    @property
    def name(self) -> str:
        """The model's name, as told to the user."""

    @property
    def draft(self) -> bool:
        """True where the text is a draft by the small embedded engine."""

    def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        """Streams one candidate. Closing the generator stops the model; it ends normally only if the model finished.

        The chain has filled in ``request.max_chars``. A writer asks for what the request wants of the text; the chain
        sees to it that the text is not longer, and free of emoji and hashtags where these are not wanted. Raises
        NotSupported where the writer can't do what is asked at all.
        """


class Cache(Protocol):
    """Small texts (at most ``MAX_CACHED_CHARS``) by key, kept for a while, perhaps by another process.

    It may forget anything at any time, and it never raises. What it gives back may be of anybody who can write to it:
    check it before use. A key names everything that the value depends on.
    """

    async def get(self, key: str) -> str | None: ...

    async def set(self, key: str, value: str, ttl_s: float) -> None:
        """Keeps ``value`` for ``ttl_s`` seconds at most. One that is too long is not kept."""
