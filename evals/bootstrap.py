"""How far a mean over cases can be trusted: percentile bootstrap intervals.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. The seed is fixed: equal cases give equal
intervals.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

RESAMPLES = 5_000
SEED = 11


class Mean(BaseModel):
    """A mean with the bounds of its 95% interval, over ``n`` cases."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    n: int


def mean(values: Sequence[float]) -> Mean | None:
    """None where there are no values. The interval of a single value is the value: it says nothing."""
    if not values:
        return None
    data = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(SEED).integers(0, len(data), size=(RESAMPLES, len(data)))
    low, high = np.quantile(data[picks].mean(axis=1), (0.025, 0.975))
    return Mean(value=float(data.mean()), low=float(low), high=float(high), n=len(data))


def paired_difference(after: Sequence[float], before: Sequence[float]) -> Mean | None:
    """The mean of ``after - before`` over the same cases, in one order. Where its interval covers 0 it may be chance.

    Raises:
        ValueError: they are not of the same length.
    """
    return mean([new - old for new, old in zip(after, before, strict=True)])
