"""What a person sees of a run: a bar where there is a terminal, else a line now and then; and a summary."""

import asyncio
import time
from collections import deque
from contextlib import suppress

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from serving.batch.plan import duration
from serving.batch.run import Summary, Watched
from trendrag.settings import BatchSettings
from trendrag.types import Usage

REDRAWN_S, LINE_S = 0.5, 10.0
_RATE_OVER_S = 60.0


class Display:
    """Shows ``watched`` from ``begin`` until ``end``."""

    def __init__(self, console: Console, prices: BatchSettings) -> None:
        self._console = console
        self._prices = prices
        self._task: asyncio.Task[None] | None = None
        self._marks: deque[tuple[float, int]] = deque()  # (when, settled by this run), over the last minute

    def begin(self, watched: Watched) -> None:
        self._task = asyncio.get_running_loop().create_task(self._show(watched))

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _show(self, watched: Watched) -> None:
        if not self._console.is_terminal:
            while True:
                await asyncio.sleep(LINE_S)
                self._console.print(self.line(watched, time.monotonic()), soft_wrap=True)
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            while True:
                total = expected(watched)
                grid = Table.grid(padding=(0, 1))
                settled = watched.progress.done + watched.progress.failed
                bar = ProgressBar(total=total or None, completed=settled, width=30, pulse=not total)
                grid.add_row(bar, Text(self.line(watched, time.monotonic())))
                live.update(grid)
                await asyncio.sleep(REDRAWN_S)

    def line(self, watched: Watched, now: float) -> str:
        """Such as: 1,200 of ~14,000 captions, 4 failed, 4.6/s, 46 min to go, cost 0.31."""
        progress = watched.progress
        settled = progress.done + progress.failed
        fresh = settled - progress.before
        self._marks.append((now, fresh))
        while now - self._marks[0][0] > _RATE_OVER_S:
            self._marks.popleft()
        (then, earlier), total = self._marks[0], expected(watched)
        rate = (fresh - earlier) / (now - then) if now > then else 0.0
        parts = [f"{progress.done:,}" + (f" of {total:,} captions" if total else " captions")]
        parts.append(f"{progress.failed:,} failed")
        if rate:
            parts.append(f"{rate:.1f}/s")
            if total:
                parts.append(f"{duration(max(0, total - settled) / rate / 3600)} to go")
        if (spent := cost(watched.usage(), self._prices)) is not None:
            parts.append(f"cost {spent:.2f}")
        return ", ".join(parts)


def expected(watched: Watched) -> int | None:
    """How many rows it will be: by how much of the input has been read so far, at most the limit."""
    read = watched.source.read
    if not read:
        return watched.limit
    # Rows up to the mark were not read by this run as rows, but were counted as selected.
    guess = round(watched.progress.selected / read)
    return guess if watched.limit is None else min(guess, watched.limit)


def cost(usage: Usage, prices: BatchSettings) -> float | None:
    """In the prices' currency; None where there are none."""
    if prices.prompt_price is None and prices.completion_price is None:
        return None
    prompt, completion = prices.prompt_price or 0.0, prices.completion_price or 0.0
    return (usage.prompt_tokens * prompt + usage.completion_tokens * completion) / 1e6


def summarise(summary: Summary, prices: BatchSettings) -> None:
    """To stderr: the output may be a pipe."""
    progress, counts, places = summary.progress, summary.counts, summary.places
    fresh = progress.done + progress.failed - progress.before
    rate = f", {fresh / summary.seconds:.3g} rows/s" if summary.seconds and fresh else ""
    lines = [f"{counts['done']:,} captions in {places.output} ({fresh:,} rows in {summary.seconds:.0f} s{rate})"]
    if counts["failed"]:
        lines.append(
            f"{counts['failed']:,} rows have none; {places.told_errors} says why. Try them again: --retry-failed"
        )
        told = sorted(progress.codes.items(), key=lambda pair: -pair[1])
        lines += [f"  {number:,} {code}" for code, number in told]
    usage = summary.usage
    if usage.prompt_tokens or usage.completion_tokens:
        spent = cost(usage, prices)
        priced = "" if spent is None else f", cost {spent:.2f}"
        lines.append(f"{usage.prompt_tokens:,} tokens read, {usage.completion_tokens:,} written{priced}")
    for line in lines:
        click.echo(line, err=True)
