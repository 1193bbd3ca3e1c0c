"""One refresh, put together: fetch, parse and store every source, decide what trends, publish a snapshot.

This is where ingest's parts meet; each is passed in as an argument. ``run_refresh`` is the entry for commands, which
makes the parts from the settings. Nothing here decides what a trend is: that is ``pipeline``.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from indexes.embedder import Embedder, open_embedder
from indexes.embedding_cache import CachedEmbedder
from indexes.snapshot import Manifest, current_id, publish
from ingest.fetcher import Fetched, Fetcher, HttpFetcher, HttpStatus
from ingest.pipeline import Decision, decide
from ingest.safety import Vocabulary
from ingest.sample import RECORDED_AT, SampleFetcher, sample_sources
from ingest.score import BASELINE_DAYS, WINDOW
from ingest.sources import load_sources
from ingest.sources.base import Source
from ingest.store import ObservationStore
from trendrag.errors import SourceError
from trendrag.settings import Settings
from trendrag.types import Origin, SnapshotInfo

MAX_CONCURRENT = 8
"""Sources read at the same time. How many of them at one host is the fetcher's to limit."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """How one source did. ``newest`` is the latest time that its items speak of; ``error`` None where all was well."""

    source: str
    items: int = 0
    new: int = 0
    newest: datetime | None = None
    error: str | None = None
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did. ``snapshot`` is None where nothing was published; ``note`` then says why and what to do."""

    sources: tuple[SourceReport, ...] = ()
    trends: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    snapshot: SnapshotInfo | None = None
    note: str | None = None


OnProgress = Callable[[SourceReport], None]
"""Called on the event loop as each source is done."""


async def run_refresh(
    settings: Settings, *, sample: bool = False, replace_live: bool = False, on_progress: OnProgress | None = None
) -> RefreshReport:
    """Refreshes from the configured sources, or from the bundled sample.

    Args:
        sample: read the bundled sample in place of the network. It is kept out of the database.
        replace_live: whether a sample may take the place of live trends. Without it they stay, and the report says so.

    Raises:
        ConfigurationError: the sources file or the database can't be used.
        WeightsError: the embedding model isn't there; the message names the command that fetches it.
    """
    if sample and not replace_live and current_origin(settings) == "live":
        return RefreshReport(note="There are live trends already, so the sample was not loaded over them.")
    sources = sample_sources() if sample else load_sources(settings.sources_file)
    model = await asyncio.to_thread(open_embedder, settings.models_dir)
    embedder = CachedEmbedder(model, settings.data_dir / "cache" / "embeddings.sqlite3")
    async with AsyncExitStack() as stack:
        now = datetime.now(UTC)
        if sample:
            store = ObservationStore.in_memory()
            fetcher: Fetcher = SampleFetcher()
        else:
            store = await asyncio.to_thread(ObservationStore.at, settings.database_path)
            fetcher = await stack.enter_async_context(HttpFetcher.open(settings.ingest))
        stack.callback(store.close)
        return await refresh(
            settings,
            sources=sources,
            fetcher=fetcher,
            store=store,
            embedder=embedder,
            now=RECORDED_AT if sample else now,
            created_at=now,
            origin="sample" if sample else "live",
            on_progress=on_progress,
        )


async def refresh(
    settings: Settings,
    *,
    sources: Sequence[Source],
    fetcher: Fetcher,
    store: ObservationStore,
    embedder: Embedder,
    now: datetime,
    created_at: datetime | None = None,
    origin: Origin = "live",
    on_progress: OnProgress | None = None,
) -> RefreshReport:
    """Reads all sources, then publishes the trends at ``now``.

    A source that fails costs the others nothing and leaves what it said before in force until that is too old. Where
    every source fails, or no trend is left, nothing is published and the snapshot before stays current. Cancelling
    stops it without publishing; what was stored by then stays.

    Args:
        now: what ages are measured against. ``created_at`` is when the snapshot is written, ``now`` by default.

    Raises:
        ConfigurationError: a source needs a key that the settings don't have, or the database can't be used.
    """
    for source in sources:
        source.headers(settings.ingest)  # a missing key is found before anything is fetched
    free = asyncio.Semaphore(MAX_CONCURRENT)
    storing = asyncio.Lock()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_read(source, settings, fetcher, store, now, free, storing, on_progress))
                for source in sources
            ]
    except ExceptionGroup as errors:  # sources' own errors are in their reports; this is the database, or a bug
        raise errors.exceptions[0] from errors
    reports = tuple(task.result() for task in tasks)
    if all(report.error for report in reports):
        return RefreshReport(
            reports,
            note="No source could be read, so nothing was published and the trends from before stay. Check the network,"
            " or load the bundled sample: trendrag refresh --sample",
        )
    decision = await asyncio.to_thread(_decide, settings, store, now)
    if not decision.trends:
        return RefreshReport(
            reports,
            withheld=decision.withheld,
            left_out=decision.left_out,
            note="The sources gave no trend that can be used; nothing was published, the trends from before stay.",
        )
    snapshot = await asyncio.to_thread(
        publish,
        settings.snapshots_dir,
        decision.trends,
        embedder,
        origin=origin,
        recorded_at=max(trend.last_seen for trend in decision.trends),
        now=created_at or now,
        keep=settings.ingest.keep_snapshots,
    )
    return RefreshReport(reports, len(decision.trends), decision.withheld, decision.left_out, snapshot)


def current_origin(settings: Settings) -> Origin | None:
    """Whether the current snapshot is live or a sample; None where there is none that can be read."""
    current = current_id(settings.snapshots_dir)
    if current is None:
        return None
    try:
        text = (settings.snapshots_dir / current / "manifest.json").read_bytes()
        return Manifest.model_validate_json(text).origin
    except (OSError, ValidationError):
        return None


def _decide(settings: Settings, store: ObservationStore, now: datetime) -> Decision:
    max_age = timedelta(hours=settings.ingest.max_age_hours)
    baseline_from = now - max_age - WINDOW * (BASELINE_DAYS + 1)
    return decide(
        store.latest(now - max_age),
        store.points(baseline_from),
        Vocabulary.built_in(),
        now=now,
        half_life=timedelta(hours=settings.ingest.half_life_hours),
        max_age=max_age,
    )


async def _read(
    source: Source,
    settings: Settings,
    fetcher: Fetcher,
    store: ObservationStore,
    now: datetime,
    free: asyncio.Semaphore,
    storing: asyncio.Lock,
    on_progress: OnProgress | None,
) -> SourceReport:
    async with free:
        try:
            fetched = await _fetch(source, fetcher, now, source.headers(settings.ingest))
            # In a thread: a large feed takes seconds to parse.
            parsed = await asyncio.to_thread(source.parse, fetched.body, fetched.fetched_at)
        except SourceError as error:
            async with storing:
                await asyncio.to_thread(store.failed, source.id, now, str(error))
            report = SourceReport(source.id, error=str(error))
        else:
            seen = parsed.observations
            async with storing:
                new = await asyncio.to_thread(store.add, seen)
                await asyncio.to_thread(store.succeeded, source.id, fetched.fetched_at, items=len(seen), new=new)
            newest = max((each.published_at or each.at for each in seen), default=None)
            report = SourceReport(source.id, len(seen), new, newest, None, parsed.dropped)
    if on_progress:
        on_progress(report)
    return report


async def _fetch(source: Source, fetcher: Fetcher, now: datetime, headers: Mapping[str, str]) -> Fetched:
    *earlier, last = source.urls(now)
    for url in earlier:
        try:
            return await fetcher.get(url, headers=headers)
        except HttpStatus as error:
            if error.status != 404:
                raise
    return await fetcher.get(last, headers=headers)
