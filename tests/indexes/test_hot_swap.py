"""Snapshots change under readers: each answer is that of one whole snapshot. `make test-soak` does it for long."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from indexes.manifest import make_current
from indexes.publishing import publish
from indexes.retriever import TrendRetriever
from indexes.snapshot import open_snapshot
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.types import Retrieval, TrendFilters

EMBEDDER = HashEmbedder()
WORDS = ("latte", "kayak", "lantern", "chess", "goat", "yoga", "snow", "picnic")
QUERY, ALL = " ".join(WORDS), TrendFilters()
SWAPS, READERS = 12, 4
DAMAGED = {3, 7, 8}


def publish_number(folder: Path, number: int) -> str:
    """A snapshot whose trends all carry its number."""
    trends = [
        make_trend(f"{word} edition{number}", id=f"{number}-{word}", velocity=number, score=(number + at) % 10 / 10)
        for at, word in enumerate(WORDS)
    ]
    at = NOW + timedelta(minutes=number)
    return publish(folder, trends, EMBEDDER, origin="sample", recorded_at=NOW, now=at, keep=99).id


def damaged_copy(folder: Path, name: str, number: int) -> None:
    """Makes a copy of a snapshot current that is under a false name and lacks a byte."""
    copy = folder / f"{NOW + timedelta(minutes=number, seconds=1):%Y%m%dT%H%M%SZ}-0000dead"
    shutil.copytree(folder / name, copy)
    rows = copy / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-1])
    make_current(folder, copy.name)


async def test_every_answer_is_of_one_whole_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.retriever.POLL_SECONDS", 0.0)
    retriever = TrendRetriever(tmp_path, EMBEDDER, k=8, threshold=0.0, max_age=timedelta(hours=1))
    published = [publish_number(tmp_path, 0)]
    answers: list[Retrieval] = []

    async def read(until: asyncio.Event) -> None:
        while not until.is_set():
            answers.append(await retriever.retrieve(QUERY, ALL))

    async def answered_from(name: str) -> None:
        while not any(answer.snapshot and answer.snapshot.id == name for answer in answers[-READERS:]):
            answers.append(await retriever.retrieve(QUERY, ALL))

    done = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(READERS):
            tasks.create_task(read(done))
        for number in range(1, SWAPS):
            if number in DAMAGED:
                await asyncio.to_thread(damaged_copy, tmp_path, published[-1], number)
            published.append(await asyncio.to_thread(publish_number, tmp_path, number))
            await answered_from(published[-1])
        done.set()
    await retriever.aclose()

    whole = {name: retriever.search(open_snapshot(tmp_path / name, EMBEDDER), QUERY, ALL) for name in published}
    assert {len(answer.trends) for answer in whole.values()} == {len(WORDS)}
    for answer in answers:
        assert answer.snapshot is not None, answer.reason
        assert answer.trends == whole[answer.snapshot.id].trends
    assert {answer.snapshot.id for answer in answers if answer.snapshot} == set(published)


async def test_while_only_a_damaged_one_is_new_the_readers_stay_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.retriever.POLL_SECONDS", 0.0)
    retriever = TrendRetriever(tmp_path, EMBEDDER, k=8, threshold=0.0, max_age=timedelta(hours=1))
    name = publish_number(tmp_path, 0)
    await retriever.retrieve(QUERY, ALL)
    damaged_copy(tmp_path, name, 1)
    await retriever.follow()
    await retriever.aclose()
    answers = await asyncio.gather(*(retriever.retrieve(QUERY, ALL) for _ in range(READERS)))
    for answer in answers:
        assert answer.snapshot is not None
        assert answer.snapshot.id == name
        assert "0000dead" in (answer.snapshot.warning or "")
        assert len(answer.trends) == len(WORDS)
    await retriever.aclose()
