"""What the caption chain needs from outside: a describer, a retriever, a writer, and perhaps a judge.

The kernel defines the ports, ``indexes`` and ``serving`` implement them. All of them raise only ``TrendragError``.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from trendrag.types import CaptionRequest, PreparedImage, Retrieval, RetrievedTrend, TrendFilters, Usage


@dataclass(frozen=True, slots=True)
class Description:
    """A few words on what is in an image, at most ~48 tokens, one line."""

    text: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a candidate. ``logprob`` is the sum over its ``tokens``, natural logarithm; both 0 where unknown.

    ``usage`` comes with the last chunk only.
    """

    text: str
    logprob: float = 0.0
    tokens: int = 0
    usage: Usage | None = None


class Describer(Protocol):
    @property
    def always(self) -> bool:
        """True where the writer can't see the image itself, so that a note never makes the description needless."""

    async def describe(self, image: PreparedImage) -> Description: ...


class Retriever(Protocol):
    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        """At most k trends that fit the query, best first. An empty answer is a right one and says its reason."""


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
        """Streams one candidate. Closing the generator stops the model; it ends normally only if the model finished."""
