"""SIGKILL in mid-refresh, at any moment: nothing is damaged, lost or counted twice, and the next refresh goes on.

A few kills in a plain run, 50 of each kind with TRENDRAG_TEST_CRASH=1 (`make test-crash`).
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from indexes.embedder import Embedder, open_minilm
from indexes.manifest import current_id
from indexes.snapshot import open_newest, open_snapshot
from ingest.schema import ObservationRow
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.databases import DATABASES, database_of, environment
from tests.fakes import HashEmbedder
from tests.ingest.doomed import SOURCES, Round, refresh_once
from tests.ingest.fakes import HOUR, NOW, decided
from tests.ingest.server import Server, serving
from trendrag.settings import Settings, default_data_dir

THOROUGH = os.environ.get("TRENDRAG_TEST_CRASH") == "1"
KILLS = 50 if THOROUGH else 4
KILLS_OF_COMMAND = 50 if THOROUGH else 2
"""They take seconds each: the weights are loaded."""

PHRASES = [f"{one}{other}" for one in ("Latte", "Kayak", "Chess", "Lantern") for other in ("Art", "Night", "Picnic")]


# --- killed at a step: every trace that a refresh leaves is a moment to die at


def round_of(number: int) -> Round:
    """Lists that change every hour, with a server that is away every third one."""
    listed = [PHRASES[(number + offset) % len(PHRASES)] for offset in range(5)]
    answers = {}
    for place, each in enumerate(SOURCES):
        (url,) = each.urls(NOW)
        if each.live and not (number % 3 == 2 and place == 1):
            tags = [{"name": name, "history": [{"accounts": str(50 + 30 * place + number)}]} for name in listed[place:]]
            answers[url] = json.dumps(tags)
        elif not each.live:
            answers[url] = feed(each.id, range(number + 1), NOW)
    return Round(now=NOW + number * HOUR, answers=answers)


def feed(name: str, numbers: range, start: datetime) -> str:
    items = "".join(
        f"<item><title>{PHRASES[number % len(PHRASES)]} {number} at the {name} park</title><guid>{name}/{number}</guid>"
        f"<pubDate>{format_datetime(start + timedelta(minutes=number - 60))}</pubDate></item>"
        for number in numbers
    )
    return f"<rss version='2.0'><channel><title>{name}</title>{items}</channel></rss>"


def known(store: ObservationStore) -> list[tuple[Any, ...]]:
    """All observations, whatever order they came in."""
    columns = [column for column in ObservationRow.__table__.columns if column.name != "id"]
    with store.engine.connect() as connection:
        return sorted(map(tuple, connection.execute(select(*columns))), key=repr)


def unhurt(settings: Settings, embedder: Embedder) -> None:
    """What must be true at any moment: the database opens and is whole, CURRENT names a snapshot that verifies."""
    if settings.ingest.database_url is None and settings.database_path.exists():
        with sqlite3.connect(settings.database_path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raw.close()
    ObservationStore.of(settings).close()
    current = current_id(settings.snapshots_dir)
    if current is not None:
        open_snapshot(settings.snapshots_dir / current, embedder)
    else:
        assert not (settings.snapshots_dir / "CURRENT").exists()


def doomed(settings: Settings, given: Round, step: int) -> subprocess.CompletedProcess[str]:
    file = settings.data_dir.parent / "round.json"
    file.write_text(given.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "tests.ingest.doomed", str(file), str(step)]
    return subprocess.run(  # noqa: S603
        command, env=os.environ | environment(settings), capture_output=True, text=True, check=False
    )


async def test_a_refresh_killed_at_any_step_is_as_if_it_had_not_been(
    database_settings: Settings, tmp_path: Path
) -> None:
    untouched = Settings(data_dir=tmp_path / "untouched")
    chance, kills, steps, number = random.Random(20261121), 0, 0, 0  # noqa: S311  (no secret)
    while kills < KILLS:
        given = round_of(number)
        number += 1
        # One in each stretch of the course, so that its first and its last moments have their turn.
        step = 1 + int((kills + chance.random()) / KILLS * steps) if steps else 0
        died = doomed(database_settings, given, step)
        if died.returncode == 0:  # there were fewer steps this time
            steps = int(died.stdout)
        else:
            assert died.returncode == -signal.SIGKILL, died.stderr
            kills += 1
            unhurt(database_settings, HashEmbedder())
            await refresh_once(database_settings, given)
        await refresh_once(untouched, given)
        agree(database_settings, untouched)
    assert number < 2 * KILLS + 5


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_first_refresh_killed_at_any_step_leaves_nothing_half_made(kind: str, tmp_path: Path) -> None:
    untouched = Settings(data_dir=tmp_path / "untouched")
    await refresh_once(untouched, round_of(0))
    chance, steps = random.Random(7), 0  # noqa: S311  (as above)
    for number in range(KILLS // 2 + 1):
        with database_of(kind, Settings(data_dir=tmp_path / str(number))) as settings:
            died = doomed(settings, round_of(0), int((number - chance.random()) / (KILLS // 2) * steps))
            if number == 0:
                steps = int(died.stdout)
                continue
            assert died.returncode == -signal.SIGKILL, died.stderr
            unhurt(settings, HashEmbedder())
            await refresh_once(settings, round_of(0))
            agree(settings, untouched)


def agree(one: Settings, other: Settings) -> None:
    """The two know the same: every observation, what every source has taught, every trend and its score."""
    stores = [ObservationStore.of(each) for each in (one, other)]
    observations = [known(store) for store in stores]
    assert observations[0] == observations[1] != []
    states = [FetchStates(store.engine).load(SOURCES) for store in stores]
    assert states[0] == states[1]
    assert trends(one) == trends(other) != {}
    for store in stores:
        store.close()


def trends(settings: Settings) -> dict[str, dict[str, Any]]:
    """What is published, by id. Sums of floats may differ in the last digits: rows come in another order."""
    found = open_newest(settings.snapshots_dir, HashEmbedder()).trends
    return {
        trend.id: trend.model_dump() | {"score": round(trend.score, 9), "velocity": round(trend.velocity, 9)}
        for trend in found
    }


# --- the real command, killed from outside by the clock


class Site:
    """`trendrag refresh` with its real fetcher and weights, and a server whose feeds have more to tell every round."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.settings = Settings(data_dir=folder)
        folder.mkdir(parents=True)
        (folder / "models").symlink_to(default_data_dir() / "models")
        (folder / "sources.toml").write_text(
            "\n".join(
                f'[[source]]\nid = "{name}"\ntype = "rss"\npublisher = "{name}"\nurl = "{server.url(f"/{name}")}"\n'
                for name in FEEDS
            )
        )

    async def start(self) -> asyncio.subprocess.Process:
        options = {"TRENDRAG_INGEST__ALLOW_PRIVATE": "true", "TRENDRAG_INGEST__HOST_DELAY_S": "0"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from trendrag.cli import main; main()", "refresh", "--all", "--json", "--quiet"),
            env=os.environ | environment(self.settings) | options,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def refresh(self) -> dict[str, Any]:
        """To the end, which must be a good one."""
        said, complaint = await (running := await self.start()).communicate()
        assert running.returncode == 0, (said, complaint)
        report = json.loads(said)
        assert all(each["ok"] for each in report["sources"]), report
        assert isinstance(report, dict)
        return report

    async def killed_after(self, seconds: float) -> bool:
        """False where it had come to its end by then."""
        running = await self.start()
        waiting = asyncio.create_task(running.communicate())
        await asyncio.wait([waiting], timeout=seconds)
        if running.returncode is None:
            running.kill()
        await waiting
        return running.returncode == -signal.SIGKILL

    def scores(self, now: datetime) -> dict[str, float]:
        store = ObservationStore.of(self.settings)
        try:
            return {trend.id: round(trend.score, 9) for trend in decided(store, now).trends}
        finally:
            store.close()


FEEDS = ("north", "south", "east", "west")


async def test_the_command_killed_at_any_time_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    chance, kills, number = random.Random(20261122), 0, 0  # noqa: S311  (as above)
    embedder = open_minilm(default_data_dir() / "models")
    async with serving() as server:
        site, untouched = Site(tmp_path / "killed", server), Site(tmp_path / "untouched", server)

        def tell(number: int) -> None:
            for name in FEEDS:
                server.answer(f"/{name}", feed(name, range(number + 3), began).encode())

        tell(0)
        started = time.monotonic()
        await untouched.refresh()
        course = time.monotonic() - started
        while kills < KILLS_OF_COMMAND:
            tell(number := number + 1)
            # One in each stretch of the course. That varies, and is longest the first time: what comes to its end
            # before it is killed says how long it takes by now.
            started = time.monotonic()
            if await site.killed_after((kills + chance.random()) / KILLS_OF_COMMAND * course):
                kills += 1
            else:
                course = time.monotonic() - started
            assert number < 3 * KILLS_OF_COMMAND + 10  # and no item is from the future
            unhurt(site.settings, embedder)
            if number % 10 == 0:
                await site.refresh()
        last = await site.refresh()
        await untouched.refresh()
    unhurt(site.settings, embedder)
    assert last["snapshot"]["count"] == last["trends"] > 0
    # The clock was the real one, so that all is equal but when it was seen, and trends as of one time.
    assert seen_in(site) == seen_in(untouched)
    now = datetime.now(UTC)
    assert site.scores(now) == untouched.scores(now) != {}


def seen_in(site: Site) -> list[tuple[Any, ...]]:
    row = ObservationRow
    store = ObservationStore.of(site.settings)
    with store.engine.connect() as connection:
        found = connection.execute(select(row.source, row.key, row.bucket, row.title, row.at, row.published_at))
        rows = sorted(map(tuple, found))
    store.close()
    return rows
