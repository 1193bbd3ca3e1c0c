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
