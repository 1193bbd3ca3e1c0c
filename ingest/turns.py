"""Spreads requests to one host over time. Who waits, and how, is left to the caller."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

PACES: Mapping[str, float] = MappingProxyType({"www.reddit.com": 60.0, "api.gdeltproject.org": 5.0})
"""Seconds between two requests without a key that these hosts are known to want; sooner they answer 429."""


class Turns:
    """Each request to a host begins at least ``delay_s`` after the one before it, at a host of ``paces`` its seconds
    where they are more."""

    def __init__(
        self,
        delay_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        paces: Mapping[str, float] = PACES,
    ) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self._paces = paces
        self._free_at: dict[str, float] = {}

    def take(self, host: str) -> float:
        """Takes the next turn at ``host``: how many seconds from now it is, 0 where it is now."""
        now = self._clock()
        turn = max(now, self._free_at.get(host, now))
        self._free_at[host] = turn + max(self._delay_s, self._paces.get(host, 0))
        return turn - now
