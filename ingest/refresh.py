"""One refresh, put together: read every source that is due, decide what trends, publish a snapshot.

This is where ingest's parts meet; each is passed in as an argument. ``run_refresh`` is the entry for commands, which
makes the parts from the settings. Nothing here decides what a trend is (that is ``pipeline``), nor whom to ask when
(``policy``).

Trends are rated and published anew even where no source was due, since scores decay. The snapshot before stays only
where the new one would say the same: equal trends, no score changed by more than ``SAME_SCORE``.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np

from indexes.concepts import open_concepts
from indexes.embedder import Embedder, open_embedder
from indexes.embedding_cache import CachedEmbedder
from indexes.manifest import current_manifest
from indexes.publishing import publish_rows, published
from indexes.segments import Load, Rows
from indexes.shelf import Shelf
from ingest.book.keeping import Standing, Times, advance, kept_back, standing, trends
from ingest.book.topics import GateJudge, Judge
from ingest.fetcher import Fetcher, HttpFetcher
from ingest.leader import named_lock
from ingest.policy import FetchState, is_outage
from ingest.read import Outcome, Reader, SourceReport
from ingest.reddit_api import with_reddit_app
from ingest.retention import kept_for, prune
from ingest.safety import built_in_gate
from ingest.sample import RECORDED_AT, SampleFetcher, sample_sources
from ingest.scenes import Scenes, open_scenes, staged
from ingest.sources import load_sources
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from ingest.user_lists import load_user_lists
from trendrag.clock import moment
from trendrag.errors import SnapshotError
from trendrag.settings import Settings
from trendrag.types import Origin, SnapshotInfo

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 8
"""Sources read at the same time. How many of them at one host is the fetcher's to limit."""

SAME_SCORE = 0.01
"""A trend whose score has changed by no more than this is the same. At the default half-life that is ten minutes of
decay for the highest score there is."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """How it went to put the current snapshot on the shelf ``label``: what was copied, nothing where it was there
    already, or why it failed."""

    label: str
    files: int = 0
    size: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did. ``snapshot`` holds its trends: a new one, or, where ``published`` is False, the one before,
    since that says the same. It is None where there is none to show for it; ``note`` then says why and what to do."""

    sources: tuple[SourceReport, ...] = ()
    trends: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    snapshot: SnapshotInfo | None = None
    note: str | None = None
    published: bool = False
    busy: bool = False
    """Another process was refreshing, so that this one did nothing."""
    shelved: Shelved | None = None
    """None where there is no shelf, or nothing to put on it."""

    @property
    def idle(self) -> bool:
        """No source was due, and none is in trouble: where nothing was asked, nothing has failed."""
        return bool(self.sources) and all(each.status == "not_due" for each in self.sources)


_BUSY = "Another refresh is under way at this database, so this one did nothing."

OnProgress = Callable[[SourceReport], None]
"""Called on the event loop as each source is done."""


async def run_refresh(
    settings: Settings,
    *,
    everything: bool = False,
    sample: bool = False,
    replace_live: bool = False,
    rebuild: bool = False,
    on_progress: OnProgress | None = None,
    embedder: Embedder | None = None,
) -> RefreshReport:
    """Refreshes from the configured sources, or from the bundled sample, then removes what is too old.

    One refresh at a time reads for one database: where another is under way, this one does nothing and says so.

    Where there is a shelf, it begins with what is current there and ends with its own snapshot there, also one that an
    earlier refresh could not put there. A shelf that fails is told of in the report, and the rest is as without it.
    A sample stays here.

    Args:
        everything: ask also the sources that are not due, except those that asked to be left alone.
        sample: read the bundled sample in place of the network. It is kept out of the database.
        embedder: opened before, for one who refreshes again and again; without it the weights are loaded.
        rebuild: make everything anew from what was seen, and write a whole snapshot, as if for the first time.
        replace_live: whether a sample may take the place of live trends. Without it they stay, and the report says so.

    Raises:
        ConfigurationError: the sources file, the database, the shelf's URL or ``keep_days`` can't be used.
        WeightsError: the embedding model isn't there; the message names the command that fetches it.
    """
    if sample and not replace_live and current_origin(settings) == "live":
        return RefreshReport(note="There are live trends already, so the sample was not loaded over them.")
    kept = kept_for(settings.ingest)
    sources = sample_sources() if sample else load_sources(settings.sources_file)
    if embedder is None:
        embedder = await asyncio.to_thread(open_embedder, settings)
    shelf = None if sample else Shelf.of(settings)
    cached = CachedEmbedder(embedder, settings.data_dir / "cache" / "embeddings.sqlite3")
    async with AsyncExitStack() as stack:
        now = datetime.now(UTC)
        if sample:
            store, states, scenes = ObservationStore.in_memory(), None, None
            stack.callback(store.close)
            fetcher: Fetcher = SampleFetcher()
        else:
            store = await asyncio.to_thread(ObservationStore.of, settings)
            stack.callback(store.close)
            lock = named_lock(store.engine, "refresh")
            stack.callback(lock.release)
            if not await asyncio.to_thread(lock.acquire):
                return RefreshReport(note=_BUSY, busy=True)
            states = FetchStates(store.engine)
            scenes = await stack.enter_async_context(open_scenes(settings))
            http = await stack.enter_async_context(HttpFetcher.open(settings.ingest))
            fetcher = with_reddit_app(http, settings.ingest)
        behind = await asyncio.to_thread(_take, shelf, settings, embedder) if shelf else None
        report = await refresh(
            settings,
            sources=sources,
            fetcher=fetcher,
            store=store,
            states=states,
            everything=everything,
            rebuild=rebuild,
            embedder=cached,
            scenes=scenes,
            now=RECORDED_AT if sample else now,
            created_at=now,
            origin="sample" if sample else "live",
            on_progress=on_progress,
        )
        if not sample:
            listed = [source.id for source in sources]
            await asyncio.to_thread(prune, store.engine, listed, now=now, kept=kept)
        if shelf:
            report = replace(report, shelved=await asyncio.to_thread(_shelve, shelf, settings, behind))
        return report


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
    states: FetchStates | None = None,
    everything: bool = False,
    judge: Judge | None = None,
    scenes: Scenes | None = None,
    rebuild: bool = False,
    jitter: Callable[[], float] = random.random,
    on_progress: OnProgress | None = None,
) -> RefreshReport:
    """Reads the sources that are due, then publishes the trends at ``now``.

    A source that fails costs the others nothing and leaves what it said before in force until that is too old. Where
    no source is well (each fails, waits after errors, or is muted), or no trend is left, nothing is published and the
    snapshot before stays current. Cancelling stops it without publishing; what was stored by then stays.

    Args:
        states: what is known of each source, and where that is kept. Without it every source is asked, for everything.
        everything, rebuild: as in ``run_refresh``.
        judge: which topics may be offered; the built-in gate by default.
        scenes: has scenes written for trends that have none; without it trends are published without any.
        jitter: random numbers in [0, 1).
        now: what ages are measured against. ``created_at`` is when the snapshot is written, ``now`` by default.

    Raises:
        ConfigurationError: the database can't be used.
    """
    known = await asyncio.to_thread(states.load, sources) if states else {}
    reader = Reader(settings.ingest, fetcher, store, states, now, everything, jitter, asyncio.Semaphore(MAX_CONCURRENT))
    outcomes = await _read_all(sources, reader, known, on_progress)
    reports = tuple(outcome.report for outcome in outcomes)
    if not any(report.well for report in reports):
        return RefreshReport(reports, note=_no_source(reports))
    started = time.monotonic()
    if judge is None:
        judge = await asyncio.to_thread(built_in_judge, settings, embedder)
    found = await asyncio.to_thread(_trending, settings, store, judge, now, rebuild)
    decided_in = time.monotonic() - started
    count = len(found.rows)
    if not count:
        return RefreshReport(
            reports,
            withheld=found.withheld,
            left_out=found.left_out,
            note="The sources gave no trend that can be used; nothing was published, the trends from before stay.",
        )
    rows = found.rows
    load: Load = partial(trends, store.engine)
    if scenes:
        rows, load = await staged(scenes, rows, load)
    before = await asyncio.to_thread(published, settings.snapshots_dir, embedder) if origin == "live" else None
    if before and before.manifest.origin != "live":
        before = None
    if before and not rebuild and _same(before.rows, rows):
        return RefreshReport(reports, count, found.withheld, found.left_out, before.info)
    snapshot = await asyncio.to_thread(
        publish_rows,
        settings.snapshots_dir,
        rows,
        load,
        embedder,
        before=None if rebuild else before,
        origin=origin,
        recorded_at=moment(int(found.rows["last_seen"].max())),
        now=created_at or now,
        keep=settings.ingest.keep_snapshots,
        decided_in=decided_in,
        withheld=await asyncio.to_thread(kept_back, store.engine),
        concepts=await asyncio.to_thread(open_concepts, embedder, settings.models_dir),
    )
    return RefreshReport(reports, count, found.withheld, found.left_out, snapshot, published=True)


def _take(shelf: Shelf, settings: Settings, embedder: Embedder) -> str | None:
    """Begins with what another machine published last, or rolled back to. The answer is why that can't be had."""
    try:
        shelf.download(settings.snapshots_dir, embedder, settings.ingest.keep_snapshots)
    except SnapshotError as error:
        return str(error)
    return None


def _shelve(shelf: Shelf, settings: Settings, behind: str | None) -> Shelved | None:
    """Puts what is current here on the shelf. ``behind`` is what ``_take`` answered."""
    manifest = current_manifest(settings.snapshots_dir)
    if manifest is None or manifest.origin != "live":
        return Shelved(shelf.label, error=behind) if behind else None
    try:
        done = shelf.upload(settings.snapshots_dir, manifest.id, settings.ingest.keep_snapshots)
    except SnapshotError as error:
        return Shelved(shelf.label, error=str(error))
    if behind:  # such as the vectors of another embedder, which were here until now
        logger.warning("what was on the shelf could not be used, and was replaced: %s", behind)
    return Shelved(shelf.label, done.files, done.size) if done else Shelved(shelf.label)


async def _read_all(
    sources: Sequence[Source], reader: Reader, known: Mapping[str, FetchState], on_progress: OnProgress | None
) -> list[Outcome]:
    async def read(source: Source) -> Outcome:
        outcome = await reader.read(source, known.get(source.id, FetchState()))
        if on_progress:
            on_progress(outcome.report)
        return outcome

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(source)) for source in sources]
    except ExceptionGroup as errors:  # sources' own errors are in their reports; this is the database, or a bug
        raise errors.exceptions[0] from errors
    outcomes = [task.result() for task in tasks]
    asked = [(each.source.family, each.before, each.failure) for each in outcomes if each.asked]
    return [await reader.forgive(each) for each in outcomes] if is_outage(asked) else outcomes


def _no_source(reports: Sequence[SourceReport]) -> str:
    note = (
        "No source could be read, so nothing was published and the trends from before stay. Check the network,"
        " or load the bundled sample: trendrag refresh --sample"
    )
    if any(report.status == "waiting" for report in reports):
        note += ". Sources that wait after errors are asked at once by: trendrag refresh --all"
    return note


def _same(old: Rows, new: Rows) -> bool:
    """Whether publishing ``new`` after ``old`` would change nothing. The velocity decays with the score, and means
    nothing without it."""
    old, new = (rows[np.argsort(rows["key"])] for rows in (old[old["live"]], new))
    if len(old) != len(new):
        return False
    alike = all(np.array_equal(old[name], new[name]) for name in ("key", "content", "stage", "last_seen"))
    return alike and bool((np.abs(old["score"] - new["score"]) <= SAME_SCORE).all())


def current_origin(settings: Settings) -> Origin | None:
    """Whether the current snapshot is live or a sample; None where there is none that can be read."""
    manifest = current_manifest(settings.snapshots_dir)
    return manifest.origin if manifest else None


def built_in_judge(settings: Settings, embedder: Embedder) -> Judge:
    """The safety gate, with the user's lists."""
    return GateJudge(*built_in_gate(embedder, settings.models_dir, load_user_lists(settings)))


def _trending(settings: Settings, store: ObservationStore, judge: Judge, now: datetime, rebuild: bool) -> Standing:
    times = Times(
        half_life=timedelta(hours=settings.ingest.half_life_hours),
        max_age=timedelta(hours=settings.ingest.max_age_hours),
    )
    advance(store.engine, judge, times, now, rebuild=rebuild)
    return standing(store.engine, times, now)
