"""Normalised discounted cumulative gain: are the best things first?"""

import math
from collections.abc import Sequence


def ndcg(gains: Sequence[float], ideal: Sequence[float], k: int) -> float:
    """Σ gainᵢ / log2(i + 1) over the first ``k`` ranks i = 1, 2, …, divided by the same of the best order there is.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with the discount
    of trec_eval; a gain is the grade itself.

    Args:
        gains: what each hit brings, in the order in which they were shown; 0 for one that brings nothing.
        ideal: the grades of everything that could have been found, in any order.

    Returns:
        In [0, 1] where each gain is of ``ideal``, once; 0 where nothing was shown.

    Raises:
        ValueError: ``ideal`` holds no grade above 0, for which the measure is undefined.
    """
    best = _dcg(sorted(ideal, reverse=True)[:k])
    if best <= 0:
        raise ValueError("nDCG is undefined where nothing is relevant")
    return _dcg(gains[:k]) / best


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
