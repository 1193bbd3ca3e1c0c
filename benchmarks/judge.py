"""What the model's last look at the trends (`retrieval.judge = model`) adds to the time until a caption's first text.

    python benchmarks/judge.py            into benchmarks/judge.md (`make bench-judge`)
    python benchmarks/judge.py --quick    a few photos, to the screen only

The vLLM server, the chain, the HTTP between them and the photos' way through both are real. The checkpoint is the
tests' own, of the real architecture but tiny and of random weights: times are of the protocol, the image's preparation,
the prefix cache and the grammar, on a CPU; a full model on a GPU has others. Each measured caption has a photo that the
server has not seen before, and with and without take turns within one run.
"""

import argparse
import asyncio
import io
import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, cast

from langchain_core.language_models import BaseChatModel
from PIL import Image

from evals.bootstrap import paired_difference
from serving.images import prepare_image
from serving.models.chat import ChatDescriber, ChatWriter
from serving.models.judge import ChatJudge
from serving.models.openai import close_chat_model, open_chat_model
from tests.fakes import FakeRetriever, make_trend
from tests.vllm import checkpoint, environment
from tests.vllm.server import MODEL, running
from trendrag.chain import build_caption_chain
from trendrag.ports import Judgement
from trendrag.settings import ImageSettings, ModelSettings
from trendrag.types import (
    CaptionEvent,
    CaptionRequest,
    Done,
    PreparedImage,
    Retrieval,
    RetrievedTrend,
    Timings,
    TrendsRetrieved,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

REPORT = Path(__file__).with_suffix(".md")
PHOTOS = 20
QUICK = 4
SIZE = (1120, 840)  # 1,200 tokens of Qwen2.5-VL, near the default budget of 1,280
NOTES = {"no note: described first": None, "a note that stands alone": "first snow this morning above quiet mountains"}
AT_ONCE = (1, 4)
BATCHED = (2048, 8192)
"""Tokens that the server takes in one step: vLLM's default on GPUs below 70 GB, and on those above. Of so many tokens
it also keeps what it saw in photos, beside the prefix cache. That has no part of a block, so that a photo's last tokens
are asked for again; where the photo is no longer kept, all of it is read again for them."""
TRENDS = """
Pumpkin spice season: the first cups are poured weeks earlier than last year
Slow travel: night trains across the Alps are booked out until spring
World cricket final: two last overs that nobody will forget
Cold plunge clubs: lakes fill up before work
Sourdough revival: bakeries share their oldest starters
Northern lights: seen as far south as the coast this week
Chess boxing: three rounds, one checkmate
Board game cafés: a new one opens every Friday
""".strip().splitlines()


@dataclass
class WatchedJudge:
    """The judge that is measured, and what its calls used."""

    judge_of: ChatJudge
    made: list[Judgement] = field(default_factory=list)

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        judgement = await self.judge_of.judge(request, trends)
        self.made.append(judgement)
        return judgement


Cell = tuple[str, int, bool]
"""Which note, how many captions at once, and whether there is a judge."""


def photo() -> PreparedImage:
    """One that no server has seen before."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (40, 30), os.urandom(40 * 30 * 3)).resize(SIZE).save(buffer, "JPEG")
    return prepare_image(buffer.getvalue(), ImageSettings())


def trends_found() -> Retrieval:
    hits = []
    for line in TRENDS:
        phrase, summary = line.split(": ")
        hits.append(RetrievedTrend(trend=make_trend(phrase, summary=summary), similarity=0.5, score=0.5))
    return Retrieval(trends=tuple(hits))


async def captioned(
    model: BaseChatModel, settings: ModelSettings, judge: WatchedJudge | None, request: CaptionRequest
) -> Timings:
    chain = build_caption_chain(
        ChatDescriber(model, MODEL, settings),
        FakeRetriever(trends_found()),
        ChatWriter(model, MODEL, settings, seed=1),
        judge,
    )
    async with aclosing(cast("AsyncGenerator[CaptionEvent, None]", chain.astream(request))) as events:
        async for event in events:
            if isinstance(event, TrendsRetrieved) and event.judged == "failed":
                raise RuntimeError("the judge failed; see the server's log")
    if not isinstance(event, Done):
        raise RuntimeError(f"no caption: {event}")
    return event.timings


@dataclass(frozen=True, slots=True)
class Run:
    """One server's: the timings of each cell, round by round, what looks used, and the seconds of its first one."""

    batched: int
    timings: dict[Cell, list[Timings]]
    looks: list[Judgement]
    first: float


async def measure(settings: ModelSettings, batched: int, photos: int) -> Run:
    model = open_chat_model(settings)
    judge = WatchedJudge(ChatJudge(model, settings, timeout_s=60))
    cells: list[Cell] = list(product(NOTES, AT_ONCE, (False, True)))

    async def together(cell: Cell) -> list[Timings]:
        note, at_once, judged = cell
        requests = [CaptionRequest(image=photo(), note=NOTES[note]) for _ in range(at_once)]
        asked = judge if judged else None
        return await asyncio.gather(*(captioned(model, settings, asked, request) for request in requests))

    (first,) = await together((next(iter(NOTES)), 1, True))
    for cell in cells:  # whatever is loaded or compiled once
        await together(cell)
    judge.made.clear()
    found: dict[Cell, list[Timings]] = defaultdict(list)
    for number in range(photos):
        for cell in cells if number % 2 else reversed(cells):
            found[cell] += await together(cell)
    await close_chat_model(model)
    return Run(batched, found, judge.made, first.judge or 0.0)


def report(runs: Sequence[Run], photos: int) -> str:
    usage = [look.usage for run in runs for look in run.looks]
    asked, answered = (median(getattr(each, name) for each in usage) for name in ("prompt_tokens", "completion_tokens"))
    cached = max(each.cached_tokens for each in usage)
    head = f"""# What the model's last look at the trends costs

`make bench-judge` wrote this. Time until a caption's first text (TTFT) with `retrieval.judge = model` and without, in
turns within one run for each server. {photos} rounds; photos of {SIZE[0]} × {SIZE[1]} that the server had not seen;
{len(TRENDS)} trends. Medians in ms; × is their ratio; "adds" is the mean of the rounds' differences with its 95%
bootstrap interval.

A real vLLM server on the CPU ({platform.machine()}, {os.cpu_count()} cores that others may have used too), one thread,
and the tests' tiny checkpoint: Qwen2.5-VL's architecture with random weights, whose answers mean nothing. The ratios
are of this server; on a GPU with a full model, reading the photo and each token of the answer weigh differently.

A look asks {asked:.0f} tokens, of which at most {cached} came from the prefix cache, and answers {answered:.0f}
(medians; this vocabulary is small, a real one needs about half). Without a description before it, the look reads the
photo, and the caption finds it in the cache.
"""
    return "\n".join([head, *(of_server(run) for run in runs)])


def of_server(run: Run) -> str:
    lines = [
        f"## `--max-num-batched-tokens {run.batched}`\n",
        "| | at once | TTFT without | TTFT with | × | adds | the look itself |",
        "|---|---|---|---|---|---|---|",
        *(row(run.timings, note, at_once) for note, at_once in product(NOTES, AT_ONCE)),
        f"\nThe first look after the server's start, which compiles the schema, took {run.first * 1000:.0f} ms.\n",
    ]
    return "\n".join(lines)


def row(found: dict[Cell, list[Timings]], note: str, at_once: int) -> str:
    without, judged = (found[note, at_once, asked] for asked in (False, True))
    before, after = (first_texts(timings) for timings in (without, judged))
    # Captions written at once are no cases of their own: a round is.
    adds = paired_difference(*(by_round(values, at_once) for values in (after, before)))
    if adds is None:
        raise ValueError("nothing was measured")
    look = median(timings.judge or 0.0 for timings in judged) * 1000
    cells = [
        note, at_once, f"{median(before):.0f}", f"{median(after):.0f}", f"{median(after) / median(before):.2f}",
        f"{adds.value:.0f} [{adds.low:.0f}, {adds.high:.0f}]", f"{look:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def first_texts(timings: Sequence[Timings]) -> list[float]:
    """In ms."""
    return [each.first_token * 1000 for each in timings if each.first_token is not None]


def by_round(values: Sequence[float], at_once: int) -> list[float]:
    return [sum(values[start : start + at_once]) / at_once for start in range(0, len(values), at_once)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few photos, to the screen only")
    quick = parser.parse_args().quick
    python = environment.interpreter()
    if python is None:
        parser.exit(1, "The vLLM environment is missing or out of date. Build it with: make vllm-env\n")
    photos = QUICK if quick else PHOTOS
    runs = []
    for batched in BATCHED:
        options = ("--max-num-batched-tokens", str(batched))
        with (
            tempfile.TemporaryDirectory() as folder,
            running(python, checkpoint.made_by(python), Path(folder) / "vllm.log", options) as server,
        ):
            settings = ModelSettings(provider="openai", base_url=server.base_url, name=MODEL, max_tokens=16)
            runs.append(asyncio.run(measure(settings, batched, photos)))
    text = report(runs, photos)
    if quick:
        print(text)  # noqa: T201
    else:
        REPORT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
