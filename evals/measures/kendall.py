"""Kendall's rank correlation, with ties: do two rows of numbers put things in the same order?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Tau(NamedTuple):
    """Both in [-1, 1]. ``b`` leaves tied pairs out of the count (Kendall 1945), ``c`` allows for unequal numbers of
    distinct values (Stuart 1953)."""

    b: float
    c: float


def tau(values: Sequence[float], grades: Sequence[float]) -> Tau:
    """Of ``values`` and ``grades``, of one length; O(n log n) for each pair of distinct grades, which are few.

    Raises:
        ValueError: they are of different lengths, or one of them is the same everywhere: there is no order then.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(grades, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{len(x)} values for {len(y)} grades")
    n = len(x)
    levels, of_level = np.unique(y, return_counts=True)
    distinct, of_value = np.unique(x, return_counts=True)
    smaller = min(len(levels), len(distinct))
    if smaller < 2:
        raise ValueError("the rank correlation is undefined where all are the same")
    parts = [np.sort(x[y == level]) for level in levels]
    surplus = 0  # concordant less discordant pairs
    for number, lower in enumerate(parts):
        for higher in parts[number + 1 :]:
            below = np.searchsorted(lower, higher, side="left").sum()
            above = (len(lower) - np.searchsorted(lower, higher, side="right")).sum()
            surplus += int(below) - int(above)
    pairs = n * (n - 1) // 2
    tied_x, tied_y = (int((counts * (counts - 1) // 2).sum()) for counts in (of_value, of_level))
    b = surplus / (float(pairs - tied_x) * float(pairs - tied_y)) ** 0.5
    c = 2 * surplus / (n * n * (smaller - 1) / smaller)
    return Tau(b=b, c=c)
