"""The line in front of the model: fair, bounded, and without a place that is ever lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.models.queue import FIRST_GUESS_S, LONGEST_RETRY_S, ModelQueue, retry_after
from trendrag.errors import Busy

PLACES, LONGEST = 4, 5


def queue(places: int = PLACES, longest: int = LONGEST, longest_wait_s: float = 1000) -> ModelQueue:
    return ModelQueue(places, longest, longest_wait_s, now=lambda: 0.0)


class Request:
    """One request: its task, and what it waits for to end."""

    def __init__(self, line: ModelQueue, calls: int) -> None:
        self.calls = calls
        self.running = False
        self.done = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(line))

    async def _run(self, line: ModelQueue) -> None:
        with suppress(Busy):
            async with line.turn(self.calls):
                self.running = True
                try:
                    await self.done.wait()
                finally:
                    self.running = False


async def settle() -> None:
    """Lets all tasks come as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def requests(line: ModelQueue, *calls: int) -> AsyncIterator[list[Request]]:
    made = []
    for each in calls:
        made.append(Request(line, each))
        await settle()
    try:
        yield made
    finally:
        for request in made:
            request.task.cancel()
        await asyncio.gather(*(request.task for request in made), return_exceptions=True)
        assert (line.taken, line.waiting) == (0, 0)


async def test_so_many_calls_at_once_and_the_rest_in_the_order_of_their_coming() -> None:
    async with requests(line := queue(), 3, 2, 1, 1) as (first, second, third, fourth):
        # One place is free and the third would fit, but the second came before.
        assert [each.running for each in (first, second, third, fourth)] == [True, False, False, False]
        assert (line.taken, line.waiting) == (3, 3)
        first.done.set()
        await settle()
        assert [each.running for each in (second, third, fourth)] == [True, True, True]


async def test_a_full_line_refuses_at_once() -> None:
    async with requests(line := queue(longest=1), PLACES, 1):
        with pytest.raises(Busy) as refused:
            line.refuse_when_full()
        assert refused.value.retry_after is not None
        with pytest.raises(Busy):
            async with line.turn(1):
                pass
        assert line.refused == 2
    line.refuse_when_full()  # there is room again


async def test_a_line_that_may_have_nobody_in_it() -> None:
    async with requests(line := queue(longest=0), PLACES - 1):
        line.refuse_when_full()  # a place is free
        with pytest.raises(Busy):
            async with line.turn(2):
                pass
        async with line.turn(1):
            with pytest.raises(Busy):
                line.refuse_when_full()


async def test_nobody_waits_for_ever() -> None:
    async with requests(line := queue(longest_wait_s=0.01), PLACES):
        with pytest.raises(Busy):
            async with line.turn(1):
                pass
        assert line.waiting == 0


async def test_who_leaves_the_line_lets_those_behind_go_on() -> None:
    async with requests(queue(), 3, 4, 1) as (_, large, small):
        assert not small.running
        large.task.cancel()
        await settle()
        assert small.running


async def test_who_is_called_and_leaves_in_the_same_moment_gives_the_place_on() -> None:
    async with requests(line := queue(), PLACES, 1, 1) as (first, second, third):
        first.done.set()
        await asyncio.sleep(0)  # the first ends, and calls the second and the third
        assert not second.running
        second.task.cancel()
        await settle()
        assert third.running
        assert line.taken == 1


async def test_a_request_for_more_than_all_places_runs_alone() -> None:
    async with requests(line := queue(), 1, 99, 1) as (first, large, last):
        assert (large.running, last.running) == (False, False)
        first.done.set()
        await settle()
        assert (large.running, last.running) == (True, False)
        assert line.taken == PLACES


async def test_the_estimate_follows_how_long_requests_take() -> None:
    clock = [0.0]
    line = ModelQueue(1, 0, 1, now=lambda: clock[0])
    for _ in range(50):
        async with line.turn(1):
            clock[0] += 20
    async with line.turn(1):
        with pytest.raises(Busy) as refused:
            line.refuse_when_full()
    assert refused.value.retry_after == pytest.approx(20, abs=1)
    assert FIRST_GUESS_S < 19


async def test_waits_are_told() -> None:
    clock, waits = [0.0], list[float]()
    line = ModelQueue(1, 9, 1000, now=lambda: clock[0], waited=waits.append)
    async with requests(line, 1, 1) as (first, _):
        clock[0] = 7.0
        first.done.set()
        await settle()
    assert waits == [0.0, 7.0]


@given(held=st.floats(0, 1e6), ahead=st.integers(0, 10_000), places=st.integers(1, 1000), more=st.integers(0, 100))
def test_estimates_are_whole_seconds_within_bounds_and_longer_for_longer_lines(
    held: float, ahead: int, places: int, more: int
) -> None:
    told = retry_after(held, ahead, places)
    assert 1 <= told <= LONGEST_RETRY_S
    assert told <= retry_after(held, ahead + more, places)
    assert told >= retry_after(held, ahead, places + more)


class AnyTraffic(RuleBasedStateMachine):
    """Requests come, end, and leave, in the line and out of it, several in one turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.line = queue()
        self.requests: list[Request] = []

    def within(self, *, settled: bool) -> None:
        self.loop.run_until_complete(settle() if settled else asyncio.sleep(0))
        self.requests = [each for each in self.requests if not each.task.done()]

    @rule(calls=st.integers(1, PLACES + 1), settled=st.booleans())
    def comes(self, calls: int, settled: bool) -> None:
        async def make() -> Request:
            return Request(self.line, calls)

        self.requests.append(self.loop.run_until_complete(make()))
        self.within(settled=settled)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), settled=st.booleans())
    def leaves(self, data: st.DataObject, settled: bool) -> None:
        data.draw(st.sampled_from(self.requests)).task.cancel()
        self.within(settled=settled)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), settled=st.booleans())
    def ends(self, data: st.DataObject, settled: bool) -> None:
        data.draw(st.sampled_from(self.requests)).done.set()
        self.within(settled=settled)

    @invariant()
    def bounds_hold(self) -> None:
        assert sum(min(each.calls, PLACES) for each in self.requests if each.running) <= PLACES
        assert 0 <= self.line.taken <= PLACES
        assert self.line.waiting <= LONGEST

    @invariant()
    def nobody_is_overtaken_and_no_place_stays_empty(self) -> None:
        self.within(settled=True)
        waiting = [each for each in self.requests if not each.running]
        running = [each for each in self.requests if each.running]
        assert self.line.taken == sum(min(each.calls, PLACES) for each in running)
        assert self.line.waiting == len(waiting)
        if waiting:  # requests are listed in the order in which they came
            assert self.line.taken + min(waiting[0].calls, PLACES) > PLACES
            assert all(self.requests.index(each) < self.requests.index(waiting[0]) for each in running)

    def teardown(self) -> None:
        for each in self.requests:
            each.task.cancel()
        self.loop.run_until_complete(settle())
        assert (self.line.taken, self.line.waiting) == (0, 0)
        self.loop.close()


TestAnyTraffic = AnyTraffic.TestCase
