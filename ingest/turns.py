"""Spreads requests to one host over time. Who waits, and how, is left to the caller."""

import time
from collections.abc import Callable


class Turns:
    """Each request to a host begins at least ``delay_s`` after the one before it."""

    def __init__(self, delay_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self._free_at: dict[str, float] = {}

    def take(self, host: str) -> float:
        """Takes the next turn at ``host``: how many seconds from now it is, 0 where it is now."""
        now = self._clock()
        turn = max(now, self._free_at.get(host, now))
        self._free_at[host] = turn + self._delay_s
        return turn - now
