"""``trendrag evals runs | report | compare | gate | selfcheck``: what became of runs, and whether to believe it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from evals.bootstrap import Mean
    from evals.compare import Comparison

_FILE = click.Path(dir_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _runs() -> Path:
    from evals.record import runs_folder
    from trendrag.settings import load_settings

    return runs_folder(load_settings().data_dir)


@click.command()
@click.option("--task", help="Only runs of this task.")
def runs(task: str | None) -> None:
    """The runs that were kept, the newest first."""
    from evals.record import load, saved
    from trendrag.errors import RequestError

    folder = _runs()
    found = 0
    for name in saved(folder):
        try:
            recorded = load(folder / name, folder)
        except RequestError as error:
            click.echo(f"{name}  can't be read: {error}", err=True)
            continue
        if task and recorded.run.task != task:
            continue
        found += 1
        failed = f", {len(recorded.failures)} failed" if recorded.failures else ""
        click.echo(f"{name}  {len(recorded.items)} items{failed}  {recorded.run.title}".rstrip())
    if not found:
        click.echo(f"No runs in {folder}; `trendrag evals run TASK` makes one.", err=True)


@click.command()
@click.argument("names", metavar="RUN…", nargs=-1, required=True)
@click.option("--html", "html_path", type=_FILE, help="Write one HTML file that needs nothing else.")
@click.option("--md", "md_path", type=_FILE, help="Write it as Markdown.")
@click.option("--json", "json_path", type=_FILE, help="Write its figures as JSON.")
@click.option("--gallery", type=click.IntRange(0, 200), default=12, show_default=True, help="Items a gallery.")
def report(
    names: tuple[str, ...], html_path: Path | None, md_path: Path | None, json_path: Path | None, gallery: int
) -> None:
    """One report of runs: figures with intervals, best rows on top, and the items behind them.

    RUN is a run's id, the beginning of one, or its folder. Runs of one task stand in one table; the first run of a task
    is the one that its others are compared with. Without a file to write to, the report is printed as Markdown.
    """
    from evals.record import load
    from evals.report import build, html, markdown

    folder = _runs()
    recorded = [load(name, folder) for name in dict.fromkeys(names)]
    built = build.build(recorded)
    if html_path:
        _write(html_path, html.page(built, recorded, gallery))
    if md_path:
        _write(md_path, markdown.page(built))
    if json_path:
        _write(json_path, built.model_dump_json(indent=1) + "\n")
    if not (html_path or md_path or json_path):
        click.echo(markdown.page(built))


def _write(path: Path, text: str) -> None:
    from trendrag.errors import RequestError

    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise RequestError(f"{path} can't be written: {error.strerror}") from error
    click.echo(f"{path}: {len(text.encode()) / 1000:.0f} kB")


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--by", help="The measure by which moved items are listed.  [default: the first]")
@click.option("--moved", type=click.IntRange(0), default=10, show_default=True, help="How many of them at most.")
@_json
def compare(a: str, b: str, by: str | None, moved: int, as_json: bool) -> None:
    """Whether run B differs from run A on the same items, and which items moved most.

    A and B are ids of runs, beginnings of ids, or folders. The difference of each measure has a 95% interval, from a
    bootstrap over pairs of items; where it leaves out 0, B is called better or worse.
    """
    from evals.compare import compare as compare_runs
    from evals.record import load

    folder = _runs()
    found = compare_runs(load(a, folder), load(b, folder), by, moved)
    click.echo(found.model_dump_json(indent=2) if as_json else _told(found))


def _told(found: "Comparison") -> str:
    lines = [f"A  {found.a}", f"B  {found.b}", *(f"   {each}" for each in found.settings)]
    lines.append(f"{found.cases} cases of {found.task}" + _failed(found.failures))
    width = max(len(each.measure.name) for each in found.changes)
    for each in found.changes:
        unit = f" {each.measure.unit}".rstrip()
        lines.append(
            f"  {each.measure.name:{width}}  {_figure(each.before)} → {_figure(each.after)}{unit}  "
            f"{each.change.value:+.4f} [{each.change.low:+.4f}, {each.change.high:+.4f}], n = {each.change.n}  "
            f"{each.verdict}"
        )
    if found.moved:
        lines.append(f"Moved most, by {found.by}:")
        lines += [f"  {each.by:+.4f}  {each.before:.4f} → {each.after:.4f}  {each.id}" for each in found.moved]
    return "\n".join(lines)


def _failed(failures: tuple[int, int]) -> str:
    return f", {failures[0]} failed in A, {failures[1]} in B" if any(failures) else ""


def _figure(mean: "Mean | None") -> str:
    return "-" if mean is None else f"{mean.value:.4f}"


@click.command()
@click.argument("thresholds", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def gate(ctx: click.Context, thresholds: Path | None) -> None:
    """Fail, with the reason, where runs miss the thresholds of a file. For CI.

    Without a file it is ours, of the tasks that need no model server: retrieval, highlight, safety, merge and phrases.

    \b
    [[threshold]]
    task = "retrieval held-out"  # its newest run; or run = "…", an id
    measure = "nDCG@5"
    at_least = 0.4               # or at_most
    sure = true                  # the whole 95% interval must hold it
    min_n = 50                   # fewer items are not believed

    Also max_failed, the share of items that may have failed, and not_worse_than, a run over the same cases.
    """
    from evals.gate import OURS, check, read_thresholds
    from evals.record import Recorded, load, saved
    from trendrag.errors import RequestError

    folder = _runs()

    def opened(name: str) -> Recorded:
        return load(name, folder)

    def newest(task: str, label: str | None) -> Recorded:
        for name in saved(folder):
            recorded = opened(name)
            if recorded.run.task == task and label in (None, recorded.run.label):
                return recorded
        named = f"{task!r}" + (f" with the label {label!r}" if label else "")
        raise RequestError(f"There is no run of {named} in {folder}: `trendrag evals run {task}` makes one")

    missed = 0
    for threshold in read_thresholds(thresholds or OURS):
        recorded = opened(threshold.run) if threshold.run else newest(threshold.task or "", threshold.label)
        result = check(threshold, recorded, opened)
        missed += bool(result.reasons)
        click.echo(f"{'MISSED' if result.reasons else 'passed'}  {result.what}")
        for reason in result.reasons:
            click.echo(f"        {reason}")
    if missed:
        click.echo(f"{missed} missed.", err=True)
        ctx.exit(1)


@click.command()
@click.option(
    "--data",
    "folder",
    envvar="TRENDRAG_EVALS_REFERENCE",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder with the reference data; docs/evals-report.md says what is in it.",
)
@_json
@click.pass_context
def selfcheck(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Make published figures again, to see that our caption measures are those of the literature.

    Needs the extra `evals`, Java, and data that is not ours to pass on: examples of clipscore and nlg-eval, and
    Flickr8k with its experts' judgements (half a minute). Exits with 1 where a figure differs from the published one.
    """
    from evals.selfcheck import run

    if folder is None:
        raise click.UsageError("Say where the reference data is: --data FOLDER, or TRENDRAG_EVALS_REFERENCE.")
    found = run(folder, on_progress=lambda name: click.echo(f"{name} …", err=True))
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        click.echo(f"{'data':28}  {'measure':18}  {'published':>9}  {'here':>9}  {'delta':>9}")
        for row in found.rows:
            said = "" if row.passed else "  DIFFERS"
            click.echo(
                f"{row.data:28}  {row.measure:18}  {row.published:>9}  {row.found:9.6f}  {row.delta:+9.6f}{said}"
            )
        for each in found.absent:
            click.echo(f"Not checked: {each}")
        click.echo(f"{sum(row.passed for row in found.rows)} of {len(found.rows)} figures are those published.")
    if not found.passed:
        ctx.exit(1)
