"""Retrieval under load: first with one snapshot, then while another process publishes one a second."""

import asyncio
import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import numpy as np

from indexes.embedder import Embedder
from indexes.retriever import TrendRetriever
from tests.soak.publisher import publish_number, some_concepts
from trendrag.types import Retrieval, TrendFilters

QUIET, SWAPPING, PAUSE = 20.0, 60.0, 1.0
"""Seconds without and with new snapshots, and between two of these."""
READERS = 4
QUERIES = (
    "a cup of coffee on a wooden table, first snow outside the window",
    "grandpa laughs while a goat jumps over the fence",
    "old records on the floor, an old song, tulips by the sea",
    "we won! everybody is hugging after the football final",
)
_ASKED = count()


@dataclass(frozen=True, slots=True)
class Read:
    """``began`` and ``took`` are seconds; ``numbers`` are what the hits say of which snapshot they are."""

    began: float
    took: float
    snapshot: str
    numbers: frozenset[float]


@dataclass(frozen=True, slots=True)
class Soaked:
    """``rss`` is in bytes: at the end of the quiet time, after a third of the swaps, and at the end of all."""

    quiet: list[Read]
    swapping: list[Read]
    failures: list[str]
    published: dict[str, int]
    """The number of each snapshot's id."""
    in_use: str
    """The id that the retriever ended with."""
    rss: tuple[int, int, int]


async def soak(folder: Path, embedder: Embedder) -> Soaked:
    concepts = await asyncio.to_thread(some_concepts, embedder)
    published = {publish_number(folder, 0, embedder, concepts): 0}
    retriever = TrendRetriever(
        folder,
        embedder,
        k=8,
        threshold=0.0,
        max_age=timedelta(hours=72),
        concepts=concepts,
    )
    failures: list[str] = []
    await load(retriever, 2.0, failures)  # warms up
    quiet = await load(retriever, QUIET, failures)
    before = resident_bytes()
    async with publisher(folder) as lines:
        swapping = await load(retriever, SWAPPING / 3, failures)
        early = resident_bytes()
        swapping += await load(retriever, SWAPPING * 2 / 3, failures)
    published |= {name: int(number) for number, name in map(str.split, lines)}
    last = next(reversed(published))
    while retriever.snapshot is None or retriever.snapshot.id != last:
        await load(retriever, PAUSE, failures)
    await retriever.aclose()
    return Soaked(quiet, swapping, failures, published, last, (before, early, resident_bytes()))


async def load(retriever: TrendRetriever, seconds: float, failures: list[str]) -> list[Read]:
    """What ``READERS`` read in that time, each asking anew once it is answered."""
    reads: list[Read] = []
    end = time.monotonic() + seconds

    async def reader() -> None:
        while (began := time.monotonic()) < end:
            asked = next(_ASKED)
            try:
                # No question is asked twice, so that none is answered from memory.
                query = f"{QUERIES[asked % len(QUERIES)]} {asked}"
                answer = await retriever.retrieve(query, TrendFilters())
            except Exception as error:  # noqa: BLE001  (told, and the others go on)
                failures.append(repr(error))
                continue
            if answer.snapshot is None:
                failures.append(answer.reason or "no reason")
                continue
            reads.append(_read(began, time.monotonic() - began, answer))

    await asyncio.gather(*(reader() for _ in range(READERS)))
    return reads


def _read(began: float, took: float, answer: Retrieval) -> Read:
    numbers = frozenset(hit.trend.velocity for hit in answer.trends)
    return Read(began, took, answer.snapshot.id if answer.snapshot else "", numbers)


@contextlib.asynccontextmanager
async def publisher(folder: Path) -> AsyncIterator[list[str]]:
    """The publisher's process; once it has ended the list holds its lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.publisher", str(folder), str(PAUSE),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    lines: list[str] = []
    try:
        yield lines
    finally:
        said, _ = await process.communicate(b"")  # ends its standard input, and so the process
    lines += said.decode().splitlines()


def resident_bytes() -> int:
    """Of this process, now, without what Python and the C library have freed but keep. Linux only, as CI is."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096


def percentile(reads: list[Read], share: float) -> float:
    """Milliseconds."""
    return float(np.percentile([each.took for each in reads], share)) * 1e3
