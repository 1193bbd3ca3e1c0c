"""The process beside the server: real ones, small, that end in every way."""

import asyncio
import sys

import pytest

import serving.child
from serving.child import Child

UNTIL_STDIN_ENDS = "import sys; print('up', flush=True); sys.stdin.read(); print('ended well', flush=True)"
DEAF = "import signal, time; print('up', flush=True); time.sleep(1000)"


class Waits:
    """Stands for ``asyncio.sleep``: returns at once so often, then never."""

    def __init__(self, count: int) -> None:
        self.asked: list[float] = []
        self.done = asyncio.Event()
        self._count = count

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if len(self.asked) == self._count:
            self.done.set()
            await asyncio.Event().wait()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def until_up(child: Child) -> None:
    async with asyncio.timeout(60):
        while not child.up:  # noqa: ASYNC110  (it has no event, as only a test waits for it)
            await asyncio.sleep(0)


async def test_it_is_started_again_each_time_later_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    waits = Waits(4)
    child = Child("The schedule", python("raise SystemExit(7)"), sleep=waits)
    async with child.running(), asyncio.timeout(60):
        await waits.done.wait()
        assert not child.up
    assert waits.asked == [1, 2, 4, 8]
    assert child.restarts == 3
    assert "The schedule has ended (exit code 7)" in caplog.text


async def test_after_a_long_life_the_wait_begins_anew_and_it_never_grows_beyond_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving.child, "LONGEST_WAIT_S", 2.0)
    waits = Waits(4)
    async with Child("x", python(""), sleep=waits).running(), asyncio.timeout(60):
        await waits.done.wait()
    assert waits.asked == [1, 2, 2, 2]
    monkeypatch.setattr(serving.child, "LONG_LIFE_S", 0.0)
    waits = Waits(3)
    async with Child("x", python(""), sleep=waits).running(), asyncio.timeout(60):
        await waits.done.wait()
    assert waits.asked == [1, 1, 1]


async def test_what_can_not_be_started_is_no_reason_to_stop_serving() -> None:
    waits = Waits(2)
    async with Child("x", ["/nowhere/to/be/found"], sleep=waits).running(), asyncio.timeout(60):
        await waits.done.wait()
    assert waits.asked == [1, 2]


async def test_it_stops_with_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child("x", python(UNTIL_STDIN_ENDS))
    async with child.running():
        await until_up(child)
    assert not child.up
    assert child.restarts == 0
    assert "ended well" in capfd.readouterr().out


async def test_one_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.child, "STOP_WITHIN_S", 0.01)
    child = Child("x", python(DEAF))
    async with asyncio.timeout(60):
        async with child.running():
            await until_up(child)
    assert not child.up
