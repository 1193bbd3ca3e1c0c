"""`trendrag refresh`. What a refresh does is in ``ingest.refresh``; this shows it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ingest.read import SourceReport
    from ingest.refresh import RefreshReport
    from trendrag.settings import Settings


@click.command()
@click.option("--all", "everything", is_flag=True, help="Ask also sources that are not due, or wait after errors.")
@click.option("--sample", is_flag=True, help="Load the bundled sample trends; needs no network.")
@click.option("--or-sample", is_flag=True, help="Load the sample if no source can be read and there are no trends yet.")
@click.option("--rebuild", is_flag=True, help="Make all trends anew from what was seen, not only what is new.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.option("--quiet", is_flag=True, help="Show no progress; errors are still shown.")
def refresh(everything: bool, sample: bool, or_sample: bool, rebuild: bool, as_json: bool, quiet: bool) -> None:
    """Read the trend sources that are due and publish the trends of now.

    Each source is asked as often as it is worth and as its server wishes, and less often after errors, so that this
    may be called every few minutes. --all asks all, except those that asked to be left alone (429 or 503 with a time,
    410).

    A source that fails is reported and costs the others nothing. If all fail, nothing changes and the exit code is 1.
    Where no source is due, scores still decay. Where another refresh is under way, this one says so and does nothing.

    Where TRENDRAG_SNAPSHOTS__URL is set, the snapshot is put there too, for servers on other machines. When that fails,
    the exit code is 1, the trends are in use here, and the next refresh tries again.

    The sample is a set of source answers of our own, recorded once; it is called a sample wherever it appears.

    The first refresh also prepares what retrieval knows of scenes: once, about a minute. Ctrl-C leaves it to the next.
    """
    import asyncio

    from ingest.refresh import run_refresh
    from trendrag.errors import TrendragError
    from trendrag.settings import load_settings

    try:
        settings = load_settings()
        with _progress(quiet) as on_progress:
            # Asked for by name, the sample may take the place of live trends.
            report = asyncio.run(
                run_refresh(
                    settings,
                    everything=everything,
                    sample=sample,
                    replace_live=True,
                    rebuild=rebuild,
                    on_progress=on_progress,
                )
            )
        if or_sample and report.snapshot is None and not report.busy:
            report = _sample_instead(settings, report)
    except TrendragError as error:
        if as_json:
            click.echo(json.dumps({"error": {"code": error.code, "message": str(error)}}))
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:  # asyncio has cancelled what was under way
        click.echo("Stopped. Nothing was published; the trends from before stay.", err=True)
        sys.exit(130)
    if report.snapshot is not None:
        from indexes.commands import prepare_scenes
        from indexes.embedder import open_embedder

        prepare_scenes(open_embedder(settings), settings.models_dir, quiet=quiet)
    _tell(report, as_json=as_json, quiet=quiet)


def _tell(report: "RefreshReport", *, as_json: bool, quiet: bool) -> None:
    """Shows the report; ends with exit code 1 where something was tried and nothing could be published, here or on the
    shelf."""
    if as_json:
        click.echo(json.dumps(as_dict(report), ensure_ascii=False))
    elif not quiet:
        _show(report)
    if report.busy:
        if not as_json and not quiet:
            click.echo(report.note)
    elif report.snapshot is None and report.idle:
        if not as_json and not quiet:
            click.echo(f"No source is due. {report.note or ''}".rstrip())
    elif report.snapshot is None:
        if not as_json:
            raise click.ClickException(report.note or "Nothing was published.")
        sys.exit(1)
    if report.shelved and report.shelved.error:
        if not as_json:
            raise click.ClickException(f"Replicas elsewhere don't have these trends yet. {report.shelved.error}")
        sys.exit(1)


def _sample_instead(settings: "Settings", live: "RefreshReport") -> "RefreshReport":
    """The sample's report where nothing was there, else the live one: live trends are never covered by a sample."""
    import asyncio

    from ingest.refresh import current_origin, run_refresh

    if current_origin(settings) == "live":
        return live
    click.echo("No source can be read from here: loading the bundled sample.", err=True)
    return asyncio.run(run_refresh(settings, sample=True))


def as_dict(report: "RefreshReport") -> dict[str, Any]:
    """The report as `--json` prints it."""
    snapshot = report.snapshot
    return {
        "sources": [
            {
                "source": each.source,
                "status": each.status,
                "ok": each.error is None,
                "error": each.error,
                "items": each.items,
                "new": each.new,
                "newest": each.newest.isoformat() if each.newest else None,
                "next_due": each.next_due.isoformat() if each.next_due else None,
                "dropped": dict(each.dropped),
            }
            for each in report.sources
        ],
        "trends": report.trends,
        "withheld": dict(report.withheld),
        "left_out": dict(report.left_out),
        "snapshot": snapshot.model_dump(mode="json") if snapshot else None,
        "published": report.published,
        "busy": report.busy,
        "shelf": asdict(report.shelved) if report.shelved else None,
        "note": report.note,
    }


@contextmanager
def _progress(quiet: bool) -> "Iterator[Callable[[SourceReport], None]]":
    """A running line on a terminal, a line for each source elsewhere (logs, CI); always on stderr."""
    from rich.console import Console

    def line(done: "SourceReport") -> None:
        said = f"{done.items} items, {done.new} new" if done.status == "ok" else done.says
        click.echo(f"{done.source}: {said}", err=True)

    console = Console(stderr=True)
    if quiet:
        yield lambda _done: None
    elif not console.is_terminal:
        yield line
    else:
        with console.status("Reading the trend sources …") as status:

            def show(done: "SourceReport") -> None:
                line(done)
                status.update(f"Reading the trend sources … {done.source} is done")

            yield show


def _show(report: "RefreshReport") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ingest.sample import RECORDED_AT
    from trendrag.text import age

    console = Console(soft_wrap=False)
    if report.sources:
        snapshot = report.snapshot
        sample = snapshot is not None and snapshot.origin == "sample"
        now = RECORDED_AT if sample else datetime.now(UTC)
        table = Table("source", "status", "items", "new", "newest", box=None, pad_edge=False)
        if sample:
            console.print(f"From the bundled sample, recorded {RECORDED_AT:%Y-%m-%d}; ages are as of then.")
        for each in sorted(report.sources, key=lambda done: done.source):
            # Text, not markup: an error may quote what a server said.
            status = Text(each.says, style="red" if each.error else "green" if each.status == "ok" else "")
            newest = age(now - each.newest) if each.newest else "-"
            table.add_row(each.source, status, str(each.items), str(each.new), newest)
        console.print(table)
    if report.snapshot:
        withheld = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.withheld.most_common())
        held = report.withheld.total()
        kept_back = f"; {held} withheld as unsafe or unclear ({withheld})" if held else ""
        click.echo(f"\n{report.trends} trends{kept_back}")
        stays = "" if report.published else " (nothing has changed, so it stays)"
        click.echo(f"Snapshot {report.snapshot.id}: {report.snapshot.label}{stays}")
    if report.shelved and not report.shelved.error:
        copied = f"{report.shelved.files} files copied" if report.shelved.files else "there already"
        click.echo(f"On {report.shelved.label}: {copied}")
