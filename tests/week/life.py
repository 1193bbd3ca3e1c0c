"""An installation that lives through a ``World``: a refresh an hour over real HTTP, files and database, and what it
looks like after each.

The clock is the world's. Each refresh opens database and fetcher anew, as the schedule's do; the embedder is kept.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from indexes.embedder import Embedder
from indexes.embedding_cache import CachedEmbedder
from indexes.manifest import snapshot_ids
from indexes.snapshot import Snapshot, open_newest
from ingest.fetcher import Fetched, HttpFetcher
from ingest.refresh import RefreshReport, refresh
from ingest.schedule import Schedule
from ingest.schema import ObservationRow
from ingest.sources import parse_sources
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.ingest.server import Handler, Server, serving
from tests.week.world import HOUR, SOURCES, START, World
from trendrag.settings import Settings
from trendrag.types import Trend


@dataclass(frozen=True)
class After:
    """What there is after one refresh. Sizes are in bytes, ``lies`` are trends that claim to have been seen later than
    any source has spoken of them."""

    hour: int
    outcome: str
    report: RefreshReport
    observations: int
    trends: int
    oldest: timedelta
    label: str
    recorded_at: datetime | None
    lies: tuple[str, ...]
    stale: tuple[str, ...]
    rss: int
    database: int
    snapshots: int
    files: int


class _Replayed:
    """``ingest.fetcher.Fetcher`` that asks the world's server for whatever address, at the world's time."""

    def __init__(self, http: HttpFetcher, server: Server, world: World) -> None:
        self._http, self._server, self._world = http, server, world

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        fetched = await self._http.get(self._server.url(f"/{url}"), headers=headers)
        return replace(fetched, url=url, fetched_at=self._world.now)


class _Answers(dict[str, Handler]):
    """Every path is an address of the world; a server with validators, which closes the connection in an outage."""

    def __init__(self, world: World, requests: list[str]) -> None:
        self._world, self._requests = world, requests

    def __missing__(self, path: str) -> Handler:
        return partial(self._write, path.removeprefix("/"), self._requests[-1])

    async def _write(self, url: str, request: str, writer: asyncio.StreamWriter) -> None:
        answer = self._world.answer(url)
        if answer is None:
            return
        status, body = answer
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if etag in request:
            status, body = "304 Not Modified", b""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", f"ETag: {etag}", "Connection: close", "", ""]
        writer.write("\r\n".join(head).encode() + body)


class _Told:
    """``ingest.schedule.Watch`` that remembers the last outcome."""

    outcome = ""

    def leads(self, leading: bool) -> None: ...

    def ran(self, outcome: str, seconds: float, ended: datetime, wake: datetime) -> None:
        self.outcome = outcome


class _Alone:
    def acquire(self) -> bool:
        return True

    def held(self) -> bool:
        return True

    def release(self) -> None: ...


async def live(settings: Settings, hours: int, embedder: Embedder) -> AsyncIterator[After]:
    """One refresh an hour, a little after the hour."""
    world = World(hours)
    sources = parse_sources(SOURCES, "the world")
    last: list[RefreshReport] = []
    async with serving() as server:
        server.handlers = _Answers(world, server.requests)

        async def run() -> RefreshReport:
            last[:] = [await _refresh()]
            return last[0]

        async def _refresh() -> RefreshReport:
            store = await asyncio.to_thread(ObservationStore.of, settings)
            try:
                async with HttpFetcher.open(settings.ingest) as http:
                    return await refresh(
                        settings,
                        sources=sources,
                        fetcher=_Replayed(http, server, world),
                        store=store,
                        states=FetchStates(store.engine),
                        embedder=CachedEmbedder(embedder, settings.data_dir / "cache" / "embeddings.sqlite3"),
                        now=world.now,
                    )
            finally:
                store.close()

        told = _Told()
        schedule = Schedule(run, _Alone(), told, clock=lambda: world.now)
        for hour in range(hours):
            world.now = START + hour * HOUR + timedelta(minutes=7)
            server.requests.clear()
            await schedule.turn()
            yield _look(settings, world, hour, told.outcome, last[0], open_newest(settings.snapshots_dir, embedder))


def _look(
    settings: Settings, world: World, hour: int, outcome: str, report: RefreshReport, snapshot: Snapshot
) -> After:
    trends = snapshot.trends
    seen = min((trend.last_seen for trend in trends), default=world.now)
    files = [file for file in settings.snapshots_dir.rglob("*") if file.is_file()]
    max_age = timedelta(hours=settings.ingest.max_age_hours)
    return After(
        hour=hour,
        outcome=outcome,
        report=report,
        observations=_observations(settings),
        trends=len(trends),
        oldest=world.now - seen,
        label=snapshot.info.label,
        recorded_at=snapshot.info.recorded_at,
        lies=tuple(_told(each) for each in trends if each.last_seen > _truth(world, each)),
        stale=tuple(_told(each) for each in trends if each.last_seen < snapshot.info.created_at - max_age),
        rss=_resident_bytes(),
        database=settings.database_path.stat().st_size,
        snapshots=len(snapshot_ids(settings.snapshots_dir)),
        files=sum(file.stat().st_size for file in files),
    )


def _truth(world: World, trend: Trend) -> datetime:
    """The latest moment that any source spoke of what the trend is of, as its names say, else its evidence."""
    said = {_joined(name): at for name, at in world.last_said.items()}
    for texts in ((trend.phrase, *trend.aliases), (each.title for each in trend.evidence)):
        whole = _joined(" ".join(texts))
        if of := [at for name, at in said.items() if name in whole]:
            return max(of)
    return max(said.values())


def _joined(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _told(trend: Trend) -> str:
    return f"{trend.phrase} ({trend.last_seen:%d %H:%M})"


def _observations(settings: Settings) -> int:
    store = ObservationStore.of(settings)
    try:
        with store.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(ObservationRow)) or 0
    finally:
        store.close()


def _resident_bytes() -> int:
    """Of this process, now. Linux only, as CI is."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096
