"""When a failing model server is left alone, and when it is tried again. Decisions only: no I/O, no clock of its own.

    closed ──failures──▶ open ──time──▶ half_open ──the probe is answered──▶ closed
                          ▲                 │
                          └──it fails, and the wait doubles

The pattern is M. Nygard's circuit breaker (Release It!).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Circuit = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """It opens where, of at least ``least`` calls ended in the last ``window_s`` seconds, the share ``rate`` or
    more failed. It stays so for ``open_s`` seconds, twice as long after each probe that fails, ``longest_open_s`` at
    most.
    """

    window_s: float = 30.0
    least: int = 5
    rate: float = 0.5
    open_s: float = 5.0
    longest_open_s: float = 60.0


class Ticket:
    """The leave for one call. Given back by exactly one of `Breaker.ended` and `Breaker.left`; more change nothing."""

    __slots__ = ("epoch", "over")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.over = False


class Breaker:
    """One for each server. ``now`` gives seconds on a clock that never goes back.

    What a call tells of times before the circuit last changed is not counted: those that were under way when it opened
    would otherwise keep it open. ``changed`` is told each new state; "half_open" with the probe that makes it so.
    """

    def __init__(
        self,
        now: Callable[[], float],
        rules: BreakerRules | None = None,
        changed: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self._now = now
        self._rules = rules or BreakerRules()
        self._changed = changed
        self._ended: deque[tuple[float, bool]] = deque()  # (when, failed), oldest first
        self._failures = 0
        self._epoch = 0
        self._open_until: float | None = None  # None: closed
        self._probe: Ticket | None = None
        self._openings = 0  # since it was last closed

    @property
    def state(self) -> Circuit:
        """What it is now: "half_open" from the moment on when a probe would be let through."""
        if self._open_until is None:
            return "closed"
        return "open" if self._now() < self._open_until else "half_open"

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let through. 0 where the next one would be; while a probe is under way, the wait
        that would follow its failure: it may be shorter, but nobody can promise that."""
        if self._open_until is None:
            return 0.0
        if self._probe is not None:
            return self._open_for()
        return max(0.0, self._open_until - self._now())

    def enter(self) -> Ticket | None:
        """Leave for one call, or None: the server is left alone, or its probe is under way."""
        if self._open_until is None:
            return Ticket(self._epoch)
        if self._now() < self._open_until or self._probe is not None:
            return None
        self._probe = Ticket(self._epoch)
        self._changed("half_open")
        return self._probe

    def answered(self, ticket: Ticket) -> None:
        """The server has begun to answer: enough of a probe. How the call ends is told, and counts, apart."""
        if ticket is self._probe:
            self._close()
            ticket.epoch = self._epoch

    def ended(self, ticket: Ticket, *, failed: bool) -> None:
        """The call is over. ``failed``: through the server's fault."""
        if ticket.over:
            return
        ticket.over = True
        if ticket is self._probe:
            if failed:
                self._open()
            else:
                self._close()
        elif ticket.epoch == self._epoch:
            self._count(failed=failed)

    def left(self, ticket: Ticket) -> None:
        """The call was given up by whoever made it, which says nothing of the server."""
        ticket.over = True
        if ticket is self._probe:
            self._probe = None

    def _count(self, *, failed: bool) -> None:
        now = self._now()
        self._ended.append((now, failed))
        self._failures += failed
        while self._ended[0][0] <= now - self._rules.window_s:
            self._failures -= self._ended.popleft()[1]
        if failed and len(self._ended) >= self._rules.least and self._failures >= self._rules.rate * len(self._ended):
            self._open()

    def _open(self) -> None:
        self._open_until = self._now() + self._open_for()
        self._openings += 1
        self._begin_anew("open")

    def _close(self) -> None:
        self._open_until = None
        self._openings = 0
        self._begin_anew("closed")

    def _begin_anew(self, state: Circuit) -> None:
        self._epoch += 1
        self._probe = None
        self._ended.clear()
        self._failures = 0
        self._changed(state)

    def _open_for(self) -> float:
        return min(self._rules.longest_open_s, self._rules.open_s * 2.0 ** min(self._openings, 30))
