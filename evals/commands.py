"""``trendrag evals``: run measures over cases."""

from pathlib import Path

import click


@click.group()
def evals() -> None:
    """Measure how good TrendRAG is, on cases of yours or ours."""


@evals.group()
def run() -> None:
    """Run one task over a set of cases."""


@run.command()
@click.option(
    "--cases",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines: id, caption, trends [{id, phrase, aliases}], expected [{start, end, id}].  [default: ours]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every case's result.")
def highlight(path: Path | None, as_json: bool) -> None:
    """Highlighting: exact spans, on whole captions and in random chunks. No model is needed."""
    from evals.highlight import read_cases
    from evals.highlight import run as run_highlight

    report = run_highlight(read_cases(path or Path(__file__).parent / "cases" / "highlight.jsonl"))
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    for result in report.results:
        if not result.passed:
            faults = {
                "missing": [(span.start, span.end, span.id) for span in result.missing],
                "unexpected": [(span.start, span.end, span.id) for span in result.unexpected],
                "depends on the chunks": not result.stable,
            }
            click.echo(f"FAILED {result.id}: " + "; ".join(f"{name} {what}" for name, what in faults.items() if what))
    click.echo(
        f"{report.passed} of {report.cases} cases pass · precision {report.precision:.3f} · recall "
        f"{report.recall:.3f} · F1 {report.f1:.3f} · {report.unstable} depend on the chunks"
    )


@run.command()
@click.option("--seed", type=int, default=1, show_default=True, help="The first world's seed; the next count on.")
@click.option(
    "--worlds", type=click.IntRange(1, 100), default=1, show_default=True, help="How many; half a minute each."
)
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the curves as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
def score(seed: int, worlds: int, plot_path: Path | None, as_json: bool) -> None:
    """The score: how soon bursts are found in a simulated world, and how many false alarms that costs.

    Compared with raw volume and with exponential decay alone. docs/scoring.md explains the world and the figures.
    """
    from evals.score import run as run_score
    from evals.score_plot import plot

    def show(done: str) -> None:
        click.echo(done, err=True)

    report = run_score(range(seed, seed + worlds), on_progress=show)
    if plot_path:
        plot_path.write_text(plot(report), "utf-8")
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    click.echo(f"{report.bursts} bursts, at {report.false_alarms_per_day:g} false alarms a day:")
    for each in report.methods:
        delay, late = ("never" if hours is None else f"{hours:.0f} h" for hours in (each.median_delay, each.p90_delay))
        click.echo(
            f"  {each.method:12} found within 6 h {each.soon:.2f} · 24 h {each.day:.2f} · delay {delay} (median), "
            f"{late} (p90) · half are found at {each.false_at_half:.1f} false alarms a day"
        )
        if each.rising is not None and each.fading is not None:
            click.echo(
                f"  {'':12} stages: {each.rising:.2f} rising before the peak, {each.fading:.2f} fading after half"
            )
