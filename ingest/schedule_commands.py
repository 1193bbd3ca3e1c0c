"""`trendrag schedule`. When it refreshes is decided in ``ingest.schedule``; this gives it its parts, and stops it."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from indexes.embedder import Embedder
    from ingest.leader import NamedLock
    from ingest.metrics import ScheduleMetrics
    from ingest.refresh import RefreshReport
    from ingest.stopping import Asked
    from trendrag.settings import Settings


@click.command()
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics here.  [default: don't]")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address to serve them on.")
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when stdin ends.")  # for `serve --with-schedule`
def schedule(metrics_port: int | None, metrics_host: str, with_parent: bool) -> None:
    """Refresh for as long as this runs: ask each source when it is due, publish when something has changed.

    How often a source is asked is its type's interval, or `every = "30m"` of its entry in the sources file. When it was
    asked last is kept in the database, so that a restart asks nobody early, and downtime is made up for by one refresh.

    Any number may run on one database (TRENDRAG_INGEST__DATABASE_URL): one leads, the others wait, and one of them
    takes over within seconds. A refresh that fails is logged with what to do, and tried again later.

    Ctrl-C and SIGTERM stop it within seconds; a refresh under way then publishes nothing. docs/operating.md has the
    metrics, what to alert on, and a unit for systemd.

    \b
        trendrag schedule --metrics-port 9464
    """
    import asyncio
    import signal
    from contextlib import nullcontext

    from prometheus_client import CollectorRegistry

    from ingest.database import engine_of
    from ingest.leader import named_lock
    from ingest.metrics import ScheduleMetrics, exposed
    from ingest.retention import kept_for
    from ingest.sources import load_sources
    from trendrag.logs import set_up_logging
    from trendrag.settings import load_settings

    # What is wrong from the beginning is told now, to who is there to read it; what fails later is tried again.
    settings = load_settings()
    listed = load_sources(settings.sources_file)
    kept_for(settings.ingest)
    engine = engine_of(settings)
    set_up_logging(settings.log, settings)
    unseen = nullcontext(ScheduleMetrics(CollectorRegistry()))
    with unseen if metrics_port is None else exposed(settings, metrics_host, metrics_port) as metrics:
        click.echo(
            f"{len(listed)} sources, from {settings.sources_file or 'the built-in list'}. Ctrl-C stops.", err=True
        )
        asked = asyncio.run(_serve(settings, named_lock(engine, "schedule"), metrics, with_parent=with_parent))
        asked.in_time()
    if asked.by == signal.SIGINT:
        raise KeyboardInterrupt


async def _serve(settings: "Settings", lead: "NamedLock", metrics: "ScheduleMetrics", *, with_parent: bool) -> "Asked":
    """Runs the schedule until it is asked to stop, and says how it was asked."""
    from ingest.schedule import Schedule
    from ingest.stopping import asked_to_stop

    with asked_to_stop(with_parent=with_parent) as asked:
        await Schedule(_refresher(settings), lead, metrics).serve(asked.stop)
    return asked


def _refresher(settings: "Settings") -> "Callable[[], Awaitable[RefreshReport]]":
    """Refreshes that share one embedder, opened by the first that gets so far; it also prepares the scenes."""
    import asyncio

    from indexes.embedder import Embedder, open_embedder
    from ingest.refresh import run_refresh

    embedder: Embedder | None = None
    prepared = False

    async def refresh() -> "RefreshReport":
        nonlocal embedder, prepared
        if embedder is None:
            embedder = await asyncio.to_thread(open_embedder, settings)
        report = await run_refresh(settings, embedder=embedder)
        if report.published and not prepared:
            await _prepare_scenes(embedder, settings)
            prepared = True
        return report

    return refresh


async def _prepare_scenes(embedder: "Embedder", settings: "Settings") -> None:
    """``make_concepts`` beside the event loop; being cancelled ends it within a second."""
    import asyncio

    from indexes.concepts import make_concepts

    cancelled = False

    def go_on(_done: int, _total: int) -> None:
        if cancelled:
            raise asyncio.CancelledError

    try:
        await asyncio.to_thread(make_concepts, embedder, settings.models_dir, go_on)
    except asyncio.CancelledError:
        cancelled = True
        raise
