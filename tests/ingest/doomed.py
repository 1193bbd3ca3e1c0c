"""A refresh that kills itself at its n-th step: ``python -m tests.ingest.doomed ROUND.json STEP``.

A step is what leaves traces: a statement or commit of a database, a file opened, made, linked, renamed or removed in
the data directory. There it ends with SIGKILL, in whatever thread that is. Where it comes to its end it prints how many
there were. Settings are read as a command reads them.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import Engine, event

from indexes.embedding_cache import CachedEmbedder
from ingest.refresh import RefreshReport, refresh
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.fakes import HashEmbedder
from tests.ingest.fakes import CannedFetcher, source
from trendrag.errors import FetchError
from trendrag.settings import Settings, load_settings

SOURCES: Sequence[Source] = (
    *(source(f'id = "tags-{name}"\ntype = "mastodon"\nhost = "{name}.example"') for name in "ab"),
    *(source(f'id = "feed-{name}"\ntype = "rss"\nurl = "https://{name}.example/feed"') for name in "cd"),
)


class Round(BaseModel):
    """What the sources answer, by address, and when. What is not there can't be reached."""

    now: datetime
    answers: dict[str, str]


async def refresh_once(settings: Settings, given: Round) -> RefreshReport:
    store = ObservationStore.of(settings)
    answers: dict[str, bytes | FetchError] = {url: text.encode() for url, text in given.answers.items()}
    try:
        return await refresh(
            settings,
            sources=SOURCES,
            fetcher=CannedFetcher(answers, given.now),
            store=store,
            states=FetchStates(store.engine),
            embedder=CachedEmbedder(HashEmbedder(), settings.data_dir / "cache" / "embeddings.sqlite3"),
            now=given.now,
            jitter=lambda: 0.0,
        )
    finally:
        store.close()


def kill_at(last: int, data_dir: Path) -> "itertools.count[int]":
    """Counts steps from now on, and ends the process at the one numbered ``last``."""
    steps = itertools.count(1)
    files = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir"}

    def step(*_: object) -> None:
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(name: str, args: tuple[object, ...]) -> None:
        if name in files and isinstance(args[0], (str, Path)) and str(args[0]).startswith(str(data_dir)):
            step()

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(Engine, name, step)
    sys.addaudithook(audit)
    return steps


def main() -> None:
    given = Round.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    settings = load_settings()
    steps = kill_at(int(sys.argv[2]), settings.data_dir)
    asyncio.run(refresh_once(settings, given))
    print(next(steps) - 1)  # noqa: T201  (its answer)


if __name__ == "__main__":
    main()
