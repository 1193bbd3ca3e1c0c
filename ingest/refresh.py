"""One refresh, put together: read every source that is due, decide what trends, publish a snapshot.

This is where ingest's parts meet; each is passed in as an argument. ``run_refresh`` is the entry for commands, which
makes the parts from the settings. Nothing here decides what a trend is (that is ``pipeline``), nor whom to ask when
(``policy``).

Trends are rated and published anew even where no source was due, since scores decay. The snapshot before stays only
where the new one would say the same: equal trends, no score changed by more than ``SAME_SCORE``.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from indexes.embedder import Embedder, open_embedder
from indexes.embedding_cache import CachedEmbedder
from indexes.snapshot import Manifest, current_id, open_snapshot, publish
from ingest.fetcher import Fetcher, HttpFetcher
from ingest.pipeline import Decision, decide
from ingest.policy import FetchState, is_outage
from ingest.read import Outcome, Reader, SourceReport
from ingest.safety import Vocabulary
from ingest.sample import RECORDED_AT, SampleFetcher, sample_sources
from ingest.score import HISTORY
from ingest.sources import load_sources
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from trendrag.errors import SnapshotError
from trendrag.settings import Settings
from trendrag.types import Origin, SnapshotInfo, Trend

MAX_CONCURRENT = 8
"""Sources read at the same time. How many of them at one host is the fetcher's to limit."""

SAME_SCORE = 0.01
"""A trend whose score has changed by no more than this is the same. At the default half-life that is ten minutes of
decay for the highest score there is."""


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

    @property
    def idle(self) -> bool:
        """No source was due, and none is in trouble: where nothing was asked, nothing has failed."""
        return bool(self.sources) and all(each.status == "not_due" for each in self.sources)


OnProgress = Callable[[SourceReport], None]
"""Called on the event loop as each source is done."""


async def run_refresh(
    settings: Settings,
    *,
    everything: bool = False,
    sample: bool = False,
    replace_live: bool = False,
    on_progress: OnProgress | None = None,
) -> RefreshReport:
    """Refreshes from the configured sources, or from the bundled sample.

    Args:
        everything: ask also the sources that are not due, except those that asked to be left alone.
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
            store, states = ObservationStore.in_memory(), None
            fetcher: Fetcher = SampleFetcher()
        else:
            store = await asyncio.to_thread(ObservationStore.at, settings.database_path)
            states = await asyncio.to_thread(FetchStates, store.engine)
            fetcher = await stack.enter_async_context(HttpFetcher.open(settings.ingest))
        stack.callback(store.close)
        return await refresh(
            settings,
            sources=sources,
            fetcher=fetcher,
            store=store,
            states=states,
            everything=everything,
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
    states: FetchStates | None = None,
    everything: bool = False,
    jitter: Callable[[], float] = random.random,
    on_progress: OnProgress | None = None,
) -> RefreshReport:
    """Reads the sources that are due, then publishes the trends at ``now``.

    A source that fails costs the others nothing and leaves what it said before in force until that is too old. Where
    no source is well (each fails, waits after errors, or is muted), or no trend is left, nothing is published and the
    snapshot before stays current. Cancelling stops it without publishing; what was stored by then stays.

    Args:
        states: what is known of each source, and where that is kept. Without it every source is asked, for everything.
        everything: as in ``run_refresh``.
        jitter: random numbers in [0, 1).
        now: what ages are measured against. ``created_at`` is when the snapshot is written, ``now`` by default.

    Raises:
        ConfigurationError: a source needs a key that the settings don't have, or the database can't be used.
    """
    for source in sources:
        source.headers(settings.ingest)  # a missing key is found before anything is fetched
    known = await asyncio.to_thread(states.load, sources) if states else {}
    reader = Reader(settings.ingest, fetcher, store, states, now, everything, jitter, asyncio.Semaphore(MAX_CONCURRENT))
    outcomes = await _read_all(sources, reader, known, on_progress)
    reports = tuple(outcome.report for outcome in outcomes)
    if not any(report.well for report in reports):
        return RefreshReport(reports, note=_no_source(reports))
    decision = await asyncio.to_thread(_decide, settings, store, now)
    if not decision.trends:
        return RefreshReport(
            reports,
            withheld=decision.withheld,
            left_out=decision.left_out,
            note="The sources gave no trend that can be used; nothing was published, the trends from before stay.",
        )
    if origin == "live" and (same := await asyncio.to_thread(_same, settings, decision.trends, embedder)):
        return RefreshReport(reports, len(decision.trends), decision.withheld, decision.left_out, same)
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
    return RefreshReport(reports, len(decision.trends), decision.withheld, decision.left_out, snapshot, published=True)


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


def _same(settings: Settings, trends: Sequence[Trend], embedder: Embedder) -> SnapshotInfo | None:
    """The current snapshot where publishing ``trends`` would change nothing."""
    current = current_id(settings.snapshots_dir)
    try:
        before = open_snapshot(settings.snapshots_dir / current, embedder) if current else None
    except SnapshotError:
        return None
    if before is None or before.info.origin != "live":
        return None
    new, old = ({trend.id: trend for trend in each} for each in (trends, before.trends))
    same = new.keys() == old.keys() and all(_alike(trend, old[id_]) for id_, trend in new.items())
    return before.info if same else None


def _alike(one: Trend, other: Trend) -> bool:
    # The velocity decays with the score, and means nothing without it.
    plain = {"score": 0.0, "velocity": 0.0}
    near = abs(one.score - other.score) <= SAME_SCORE
    return near and one.model_copy(update=plain) == other.model_copy(update=plain)


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
    baseline_from = now - max_age - HISTORY
    return decide(
        store.latest(now - max_age),
        store.points(baseline_from),
        Vocabulary.built_in(),
        now=now,
        half_life=timedelta(hours=settings.ingest.half_life_hours),
        max_age=max_age,
    )
