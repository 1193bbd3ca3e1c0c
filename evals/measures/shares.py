"""What must not be shown: forbidden, stale, unsafe and repeated hits, as shares of all hits."""

from collections.abc import Iterable, Sequence


def share(hits: Iterable[bool]) -> float:
    """The share that is True, in [0, 1]; 0 where nothing was shown."""
    found = list(hits)
    return sum(found) / len(found) if found else 0.0


def repeats(roots: Sequence[str]) -> list[bool]:
    """For each hit of one answer, whether one before it was the same thing."""
    return [root in roots[:rank] for rank, root in enumerate(roots)]
