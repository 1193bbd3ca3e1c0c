"""Recall: how much of what was wanted is among the first hits?"""

from collections.abc import Collection, Sequence


def recall(shown: Sequence[str], wanted: Collection[str], k: int) -> float:
    """The share of ``wanted`` among the first ``k`` of ``shown``, in [0, 1]; of k at most, so that 1 can be reached.

    Raises:
        ValueError: nothing is wanted.
    """
    if not wanted:
        raise ValueError("recall is undefined where nothing is wanted")
    return len(set(shown[:k]) & set(wanted)) / min(len(set(wanted)), k)
