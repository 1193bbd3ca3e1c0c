"""Abstention: is nothing shown exactly where nothing fits?"""

from collections.abc import Iterable
from typing import NamedTuple


class Abstention(NamedTuple):
    """``right`` of ``empty`` empty answers were right; ``due`` queries have nothing that fits."""

    right: int
    empty: int
    due: int

    @property
    def precision(self) -> float | None:
        """right / empty; None where no answer was empty."""
        return self.right / self.empty if self.empty else None

    @property
    def recall(self) -> float | None:
        """right / due; None where every query has something that fits."""
        return self.right / self.due if self.due else None


def abstention(answers: Iterable[tuple[bool, bool]]) -> Abstention:
    """From (the answer was empty, nothing fits) of each query."""
    pairs = list(answers)
    return Abstention(
        right=sum(empty and none for empty, none in pairs),
        empty=sum(empty for empty, _ in pairs),
        due=sum(none for _, none in pairs),
    )
