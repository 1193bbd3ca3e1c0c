"""How likely each trend fits a query, and which trends say the same. Pure functions; no file, no model, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexes.embedder import Vectors
from trendrag.text import normal_form
from trendrag.types import Trend

Scores = npt.NDArray[np.float32]

SAME = 0.5
"""From this cosine on two trends are one to a reader."""
LEXICAL_HALF = 6.0
"""The BM25 score that counts half as much as any could."""


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What speaks for each trend, float32 (trends,) each.

    ``cosine``: of the trend's and the query's nearest vectors. ``lexical``: BM25, squeezed into [0, 1). ``bridge``:
    through the concept that links the two best, beyond what the trend has to photos at large, in [-1, 1]; None where
    there are no concepts.
    """

    cosine: Scores
    lexical: Scores
    bridge: Scores | None


@dataclass(frozen=True, slots=True)
class Weights:
    """Coefficients of a logistic model of "an editor would pick this trend", fitted by evals/retrieval_fit.py."""

    bias: float
    cosine: float
    lexical: float
    bridge: float


WITH_CONCEPTS = Weights(bias=-5.82, cosine=6.25, lexical=0.85, bridge=17.66)
WITHOUT_CONCEPTS = Weights(bias=-6.01, cosine=10.93, lexical=2.12, bridge=0.0)


def relevance(signals: Signals) -> Scores:
    """float32 (trends,): the probability that each fits, by the logistic model."""
    weights = WITHOUT_CONCEPTS if signals.bridge is None else WITH_CONCEPTS
    logit = weights.bias + weights.cosine * signals.cosine + weights.lexical * signals.lexical
    if signals.bridge is not None:
        logit = logit + weights.bridge * signals.bridge
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)


def squeezed(bm25: Scores) -> Scores:
    """A score without an upper bound, in [0, 1)."""
    return np.asarray(bm25 / (bm25 + LEXICAL_HALF), dtype=np.float32)


def wanted(scores: Scores, left: Scores) -> Scores:
    """float32 (trends,), in [0.85, 1]: what the rank of a fitting trend is multiplied with.

    ``scores`` are the trends' own, ``left`` the share of the longest age that each still has before it, both in [0, 1].
    Small, for what fits comes first: of about equal fits the hotter and the fresher one.
    """
    return np.asarray((0.9 + 0.1 * scores) * (0.95 + 0.05 * np.clip(left, 0, 1)), dtype=np.float32)


def distinct(order: Iterable[int], trends: Sequence[Trend], vectors: Mapping[int, Vectors], most: int) -> list[int]:
    """The first ``most`` rows of ``order`` that don't repeat one before them.

    Two trends are the same where a name of theirs is, or their nearest vectors have a cosine of ``SAME`` at least.
    ``vectors[row]`` is float32 (n, dim), L2-normalised.
    """
    kept: list[int] = []
    taken: set[str] = set()
    for row in order:
        names = _names(trends[row])
        if taken & names or any(_alike(vectors[row], vectors[other]) for other in kept):
            continue
        kept.append(row)
        taken |= names
        if len(kept) == most:
            break
    return kept


def _alike(one: Vectors, other: Vectors) -> bool:
    return bool((one @ other.T).max(initial=-1) >= SAME)


def _names(trend: Trend) -> set[str]:
    return {normal_form(name).replace(" ", "") for name in (trend.phrase, *trend.aliases)} - {""}
