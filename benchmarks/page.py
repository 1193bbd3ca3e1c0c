"""Whether the page keeps its frames while captions stream: in a real Chromium, idle and with more and more cards.

    python -m benchmarks.page                    (make bench-web; needs Chromium and the built page, writes no file)

Every card gets a token each 20 ms, over HTTP, from the real application around a service that only keeps time. Frames
are the gaps between animation frames; at 60 a second 16.7 ms. "Busy" is the share of the time in which the page's main
thread worked, by Chromium's own account: it depends less on what else the machine does.
"""

import asyncio
import multiprocessing
import socket
import statistics
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext
from pathlib import Path

import uvicorn
from playwright.sync_api import CDPSession, Page, expect

from indexes.listing import Listing
from serving.app import create_app
from tests.web.browsing import chromium, visit
from tests.web.desk import compose, finished, open_desk
from trendrag.errors import NoSnapshot
from trendrag.settings import Settings
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Timings,
    TrendsRetrieved,
    Usage,
)

TOKEN_S = 0.02
TOKENS = 300
CARDS = (1, 3, 8)
FRAMES = """
async (until) => {
  const gaps = [];
  let last = await new Promise(requestAnimationFrame);
  const end = last + until;
  while (last < end && (until < 1e9 || document.querySelector("article[aria-busy=true]"))) {
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
  }
  return gaps;
}
"""


class Metronome:
    """Says a token of every candidate each ``TOKEN_S``."""

    model_name = "metronome"
    draft = False
    fallback = None
    upstream = None
    gateway = None

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        yield Described(text="", source="note")
        yield TrendsRetrieved(trends=(), snapshot=None)
        clock = asyncio.get_running_loop()
        due = clock.time()
        for _ in range(TOKENS):
            due += TOKEN_S
            await asyncio.sleep(max(0.0, due - clock.time()))
            for number in request.numbers:
                yield Delta(candidate=number, text="word ")
        for number in request.numbers:
            yield CandidateDone(candidate=number, text="word " * TOKENS)
        yield Done(usage=Usage(), timings=Timings(total=1), snapshot_id=None, model="metronome", draft=False)

    def snapshot(self) -> None:
        return None

    async def listing(self) -> Listing:
        raise NoSnapshot("none here")

    async def check_model(self) -> None:
        return None


def serve(listener: socket.socket, folder: str) -> None:
    app = create_app(Settings(data_dir=Path(folder)), lambda _: nullcontext(Metronome()))
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="error")).serve([listener]))


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    print("| | frames | p50 ms | p95 | p99 | most | over 25 ms | busy |\n|---|---|---|---|---|---|---|---|")  # noqa: T201
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        server = spawn.Process(target=serve, args=(listener, folder), daemon=True)
        server.start()
        try:
            with chromium() as browser, visit(browser) as context:
                page = context.new_page()
                developer = context.new_cdp_session(page)
                developer.send("Performance.enable")
                open_desk(page, f"http://127.0.0.1:{listener.getsockname()[1]}")
                print(measured("idle", page, developer, 5000))  # noqa: T201
                for cards in CARDS:
                    page.reload()
                    compose(page, "as a metronome", count=cards)
                    expect(page.get_by_role("article").first.get_by_text("word word")).to_be_visible()
                    print(measured(f"{cards} streaming", page, developer, 1e9))  # noqa: T201
                    finished(page, cards)
        finally:
            server.terminate()
            server.join()


def measured(name: str, page: Page, developer: CDPSession, until_ms: float) -> str:
    """For so long; from 1e9 on until nothing streams any more."""
    busy, at = worked(developer)
    gaps = page.evaluate(FRAMES, until_ms)
    busy_after, at_after = worked(developer)
    cuts = statistics.quantiles(gaps, n=100)
    late = sum(gap > 25 for gap in gaps) / len(gaps)
    figures = [f"{value:.1f}" for value in (cuts[49], cuts[94], cuts[98], max(gaps))]
    return (
        f"| {name} | {len(gaps)} | {' | '.join(figures)} | {late:.1%} | {(busy_after - busy) / (at_after - at):.0%} |"
    )


def worked(developer: CDPSession) -> tuple[float, float]:
    """(seconds in which the main thread worked, the clock) so far."""
    metrics: Sequence[dict[str, float]] = developer.send("Performance.getMetrics")["metrics"]
    named = {str(each["name"]): each["value"] for each in metrics}
    return named["TaskDuration"], named["Timestamp"]


if __name__ == "__main__":
    main()
