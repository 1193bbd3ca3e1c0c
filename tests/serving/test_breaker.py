"""The circuit breaker as a state machine, with a clock that the tests turn."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.models.breaker import Breaker, BreakerRules, Circuit, Ticket

RULES = BreakerRules(window_s=30, least=4, rate=0.5, open_s=5, longest_open_s=20)


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Circuit]:
    return []


@pytest.fixture
def breaker(clock: Clock, told: list[Circuit]) -> Breaker:
    return Breaker(clock, RULES, told.append)


def call(breaker: Breaker, *, failed: bool) -> None:
    ticket = breaker.enter()
    assert ticket is not None
    breaker.ended(ticket, failed=failed)


def state(breaker: Breaker) -> str:
    return breaker.state


def opened(breaker: Breaker) -> None:
    for _ in range(RULES.least):
        call(breaker, failed=True)
    assert state(breaker) == "open"


class TestClosed:
    def test_opens_at_the_rate_and_not_before(self, breaker: Breaker) -> None:
        for failed in (False, False, False, True, True):
            call(breaker, failed=failed)
        assert state(breaker) == "closed"  # 2 of 5
        call(breaker, failed=True)
        assert state(breaker) == "open"  # 3 of 6
        assert breaker.enter() is None

    def test_few_calls_say_nothing(self, breaker: Breaker) -> None:
        for _ in range(RULES.least - 1):
            call(breaker, failed=True)
        assert state(breaker) == "closed"

    def test_what_is_long_past_says_nothing(self, breaker: Breaker, clock: Clock) -> None:
        for _ in range(RULES.least - 1):
            call(breaker, failed=True)
        clock.at += RULES.window_s
        call(breaker, failed=True)
        assert state(breaker) == "closed"

    def test_calls_given_up_by_their_clients_say_nothing(self, breaker: Breaker) -> None:
        for _ in range(50):
            ticket = breaker.enter()
            assert ticket is not None
            breaker.left(ticket)
        for _ in range(RULES.least - 1):
            call(breaker, failed=True)
        assert state(breaker) == "closed"

    def test_a_ticket_counts_once(self, breaker: Breaker) -> None:
        ticket = breaker.enter()
        assert ticket is not None
        for _ in range(50):
            breaker.ended(ticket, failed=True)
        assert state(breaker) == "closed"


class TestOpen:
    def test_one_probe_after_the_wait_closes_it(self, breaker: Breaker, clock: Clock, told: list[Circuit]) -> None:
        opened(breaker)
        clock.at += 4.9
        assert breaker.enter() is None
        assert breaker.retry_after == pytest.approx(0.1)
        clock.at += 0.1
        assert state(breaker) == "half_open"
        probe = breaker.enter()
        assert probe is not None
        assert breaker.enter() is None, "one at a time"
        assert breaker.retry_after > 0
        breaker.answered(probe)
        assert state(breaker) == "closed"
        assert breaker.enter() is not None
        assert told == ["open", "half_open", "closed"]

    def test_each_probe_that_fails_doubles_the_wait(self, breaker: Breaker, clock: Clock) -> None:
        opened(breaker)
        for wait in (5, 10, 20, 20):
            assert breaker.retry_after == wait
            clock.at += wait
            call(breaker, failed=True)
        clock.at += 20
        call(breaker, failed=False)
        assert state(breaker) == "closed"
        opened(breaker)
        assert breaker.retry_after == 5, "and a success resets it"

    def test_a_probe_whose_client_left_is_made_again(self, breaker: Breaker, clock: Clock) -> None:
        opened(breaker)
        clock.at += 5
        probe = breaker.enter()
        assert probe is not None
        breaker.left(probe)
        assert state(breaker) == "half_open"
        call(breaker, failed=False)
        assert state(breaker) == "closed"

    def test_calls_from_before_it_opened_change_nothing(self, breaker: Breaker, clock: Clock) -> None:
        early = [breaker.enter() for _ in range(20)]
        opened(breaker)
        clock.at += 5
        call(breaker, failed=False)
        for ticket in early:
            assert ticket is not None
            breaker.ended(ticket, failed=True)
        assert state(breaker) == "closed"

    def test_a_probe_that_breaks_off_after_its_first_token_counts_as_a_failure(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        opened(breaker)
        clock.at += 5
        probe = breaker.enter()
        assert probe is not None
        breaker.answered(probe)
        breaker.ended(probe, failed=True)
        assert state(breaker) == "closed"
        for _ in range(RULES.least - 1):
            call(breaker, failed=True)
        assert state(breaker) == "open"


class AnyHistory(RuleBasedStateMachine):
    """Calls that end in any order, at any time: the promises hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock, RULES)
        self.running: list[Ticket] = []
        self.failures = 0
        self.opened_at: float | None = None

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.at += seconds

    @rule()
    def asked(self) -> None:
        before = self.breaker.state
        ticket = self.breaker.enter()
        if before == "closed":
            assert ticket is not None
        elif before == "open":
            assert ticket is None
        if ticket is not None:
            self.running.append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["ok", "failed", "left", "answered"]))
    def heard_of(self, data: st.DataObject, how: str) -> None:
        ticket = data.draw(st.sampled_from(self.running))
        before = self.breaker.state
        match how:
            case "answered":
                self.breaker.answered(ticket)
            case "left":
                self.breaker.left(ticket)
            case _:
                self.failures += how == "failed"
                self.breaker.ended(ticket, failed=how == "failed")
        if how != "answered":
            self.running.remove(ticket)
        after = self.breaker.state
        if after == "open" and before != "open":
            assert how == "failed", "nothing but a failure opens it"
            assert self.failures >= 1
        if how == "left":
            assert after == before, "who leaves says nothing"

    @invariant()
    def waits_are_told(self) -> None:
        wait = self.breaker.retry_after
        assert 0 <= wait <= RULES.longest_open_s
        if self.breaker.state == "open":
            assert wait > 0

    def teardown(self) -> None:
        """Whatever happened: once all calls have ended, time alone brings a probe, and its success all others."""
        for ticket in self.running:
            self.breaker.left(ticket)
        self.clock.at += RULES.longest_open_s
        call(self.breaker, failed=False)
        assert state(self.breaker) == "closed"
        assert [self.breaker.enter() for _ in range(9)].count(None) == 0


TestAnyHistory = AnyHistory.TestCase
