"""`--as-of DATE`, from refreshes on several days to what the model is asked: a result can be had again."""

import asyncio
import json
import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexes.embedder import open_minilm
from ingest.refresh import refresh
from ingest.store import ObservationStore
from tests.evals.tasks.test_going_on import ended
from tests.ingest.fakes import CannedFetcher, source
from tests.serving.faulty_server import FaultyServer, serving
from trendrag.settings import Settings, default_data_dir

TAGS = source('id = "tags"\ntype = "mastodon"\nhost = "m.example"')
COFFEE = Path(__file__).parents[2] / "photos" / "coffee.jpg"


async def refreshed(settings: Settings, day: int, *names: str) -> None:
    """The trends of a day in November, as a refresh of that day makes them."""
    now = datetime(2025, 11, day, 12, tzinfo=UTC)
    told = [{"name": name, "history": [{"accounts": "50"}]} for name in names]
    fetcher = CannedFetcher({TAGS.urls(now)[0]: json.dumps(told).encode()}, at=now)
    with closing(ObservationStore.of(settings)) as store:
        await refresh(
            settings, sources=[TAGS], fetcher=fetcher, store=store, embedder=open_minilm(settings.models_dir), now=now
        )


async def measured(settings: Settings, server: FaultyServer, as_of: str) -> tuple[dict[str, Any], str]:
    """The run that the command records, and what it asked the model."""
    server.requests.clear()
    cases = settings.data_dir / "cases.jsonl"
    case = {"id": "cup", "image": COFFEE.name, "note": "latte art and pumpkin spice at our coffee bar"}
    cases.write_text(json.dumps(case), "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRENDRAG_", "INSPECT_"))}
    own = {
        "TRENDRAG_DATA_DIR": str(settings.data_dir),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": server.base_url,
        "TRENDRAG_MODEL__NAME": "tiny",
        "XDG_DATA_HOME": str(settings.data_dir / "data"),
        "XDG_CACHE_HOME": str(settings.data_dir / "cache"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trendrag", "evals", "run", "trends", "--as-of", as_of, "--json"),
        *("--cases", str(cases), "--images", str(COFFEE.parent), "--concurrency", "1"),
        env=clean | own,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, _ = await ended(process)
    return told, json.dumps(server.requests)


async def test_trends_of_a_day_are_those_of_that_day_for_as_long_as_its_snapshot_is_kept(settings: Settings) -> None:
    settings.data_dir.mkdir()
    settings.models_dir.symlink_to(default_data_dir() / "models")
    await refreshed(settings, 18, "LatteArt")
    async with serving(FaultyServer()) as server:
        then, asked = await measured(settings, server, "2025-11-19")
        await refreshed(settings, 21, "LatteArt", "PumpkinSpice")
        again, asked_again = await measured(settings, server, "2025-11-19")
        now, asked_now = await measured(settings, server, "now")
    assert [then["run"]["snapshot_id"][:11], now["run"]["snapshot_id"][:11]] == ["20251118T12", "20251121T12"]
    assert again["run"]["snapshot_id"] == then["run"]["snapshot_id"]
    assert asked_again == asked != asked_now  # with trends in the same order, and to the word
    offered = [run["items"][0]["scores"]["offered"] for run in (then, again, now)]
    assert offered == [1, 1, 2]  # without the one that came later, whatever is current
