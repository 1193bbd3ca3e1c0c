"""``trendrag trends``: what would be retrieved for a text, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from indexes.concepts import Concepts
    from indexes.embedder import Embedder
    from trendrag.types import Retrieval


def prepare_scenes(embedder: "Embedder", models_dir: Path, *, quiet: bool = False) -> "Concepts":
    """What retrieval knows of scenes, made with progress on stderr where it is not there yet: once, about a minute."""
    from rich.console import Console
    from rich.progress import Progress

    from indexes.concepts import make_concepts

    console = Console(stderr=True, quiet=quiet)
    what = "Preparing what retrieval knows of scenes, once:"
    if not console.is_terminal:

        def line(done: int, total: int) -> None:
            if not done:
                console.print(f"{what} {total:,} texts, about a minute", soft_wrap=True)

        return make_concepts(embedder, models_dir, line)
    with Progress(console=console, transient=True) as bar:
        task = None

        def show(done: int, total: int) -> None:
            nonlocal task
            task = bar.add_task(what, total=total) if task is None else task
            bar.update(task, completed=done)

        return make_concepts(embedder, models_dir, show)


@click.command()
@click.argument("query", required=False)
@click.option("-k", type=click.IntRange(1, 50), help="How many at most.  [default: the setting retrieval.k]")
@click.option("--region", help="Only trends of this region (US, GB, …) and of everywhere.")
@click.option("--language", help="Only trends in this language (en, de, …) and of unknown language.")
@click.option("--withheld", is_flag=True, help="Show instead what the last refresh withheld as unsafe, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def trends(
    query: str | None, k: int | None, region: str | None, language: str | None, withheld: bool, as_json: bool
) -> None:
    """Show which trends would be offered for a photo described as QUERY, with scores, stage, age and evidence.

    Without QUERY: the strongest trends of the current snapshot. Nothing is a possible answer: a trend that does not fit
    is not offered, and the reason is told.

    --withheld lists what the safety gate kept back, newest first: reason, what decided (a list of yours, a term of the
    vocabulary, or the classifier with its score) and a headline. None of it is ever offered.

    \b
        trendrag trends "coffee on a rainy day"
        trendrag trends --withheld
    """
    if withheld:
        if query or region or language or k:
            raise click.UsageError("--withheld shows all that was withheld; it takes no QUERY and no filter.")
        _withheld(as_json)
        return
    from datetime import timedelta

    from pydantic import ValidationError

    from indexes.concepts import open_concepts
    from indexes.embedder import open_embedder
    from indexes.retriever import TrendRetriever
    from indexes.snapshot import open_newest
    from indexes.table import passes
    from trendrag.cli import option_error
    from trendrag.settings import load_settings
    from trendrag.types import Retrieval, RetrievedTrend, TrendFilters

    settings = load_settings()
    try:
        filters = TrendFilters(region=region, language=language)
    except ValidationError as error:
        raise option_error(error) from error
    embedder = open_embedder(settings)
    snapshot = open_newest(settings.snapshots_dir, embedder)
    count = k or settings.retrieval.k
    if query:
        retriever = TrendRetriever(
            settings.snapshots_dir,
            embedder,
            k=count,
            threshold=settings.retrieval.threshold,
            max_age=timedelta(hours=settings.ingest.max_age_hours),
            concepts=open_concepts(embedder, settings.models_dir),
        )
        answer = retriever.search(snapshot, query, filters)
    else:
        passing = [trend for trend in snapshot.trends if passes(trend, filters)]
        hottest = sorted(passing, key=lambda trend: (-trend.score, trend.id))[:count]
        answer = Retrieval(
            trends=tuple(RetrievedTrend(trend=trend, similarity=0, score=trend.score) for trend in hottest),
            snapshot=snapshot.info,
            reason=None if hottest else "No trend passes the filters.",
        )
    if as_json:
        click.echo(answer.model_dump_json(indent=2))
        return
    from rich.console import Console

    _print(answer, Console(), with_similarity=bool(query))


def _withheld(as_json: bool) -> None:
    import json

    from indexes.manifest import current_id
    from indexes.withheld import read_withheld
    from trendrag.errors import NoSnapshot
    from trendrag.settings import load_settings

    settings = load_settings()
    current = current_id(settings.snapshots_dir)
    if current is None:
        raise NoSnapshot("There are no trends yet. Collect some: trendrag refresh")
    found = read_withheld(settings.snapshots_dir / current)
    if as_json:
        listed = None if found is None else [each.model_dump(mode="json") for each in found]
        click.echo(json.dumps({"snapshot": current, "withheld": listed}, ensure_ascii=False, indent=2))
        return
    if found is None:
        click.echo(f"Snapshot {current} is from before withheld topics were written down. Run: trendrag refresh")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("phrase", "reason", "decided by", "last seen", "headline", box=None, pad_edge=False)
    for each in found:
        score = "" if each.score is None else f" ({each.score:+.1f})"
        decided = f"{each.by}: {each.term}{score}" if each.term else f"{each.by}{score}"
        cells = (each.reason.replace("_", " "), decided, f"{each.last_seen:%Y-%m-%d %H:%M} UTC", each.headline or "")
        # Text, not markup: it is what sources said.
        table.add_row(Text(each.phrase, style="bold"), *map(Text, cells))
    console = Console()
    console.print(table)
    console.print(Text(f"{len(found)} withheld · snapshot {current}", style="dim"))


def _print(answer: "Retrieval", console: "Console", *, with_similarity: bool) -> None:
    from datetime import UTC, datetime

    from rich.table import Table
    from rich.text import Text

    from trendrag.text import age

    snapshot = answer.snapshot
    assert snapshot is not None  # noqa: S101  (both callers searched one)
    if snapshot.warning:
        console.print(Text(snapshot.warning, style="yellow"))
    now = datetime.now(UTC)
    if answer.trends:
        table = Table("trend", "fit", "score", "stage", "last seen", "where it comes from", box=None, pad_edge=False)
        for found in answer.trends:
            trend = found.trend
            evidence = Text("\n").join(
                Text(f"{item.source}: {item.title}").append(f"\n  {item.url}" if item.url else "", style="dim")
                for item in trend.evidence[:2]
            )
            fit = f"{found.similarity:.2f}" if with_similarity else "-"
            # An age in a sample would say something about today.
            live = snapshot.origin == "live"
            seen = f"{age(now - trend.last_seen)} ago" if live else f"{trend.last_seen:%Y-%m-%d %H:%M} UTC"
            table.add_row(Text(trend.phrase, style="bold"), fit, f"{found.score:.2f}", trend.stage, seen, evidence)
        console.print(table)
    elif answer.reason:
        console.print(Text(answer.reason))
    console.print(Text(f"{snapshot.label} · {snapshot.count} trends · snapshot {snapshot.id}", style="dim"))
