"""``trendrag evals``: run measures over cases."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evals.report_commands import compare, gate, report, runs, selfcheck
from evals.task_commands import caption, list_tasks, serving, tagging, trends

if TYPE_CHECKING:
    from pydantic import JsonValue

    from evals.safety import Share
    from evals.tasks.photo_task import Finished


_OURS = Path(__file__).parent / "cases"

_label = click.option("--label", default="", help="What the report calls the run.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every case's result.")


def _cases(form: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--cases FILE``; ``form`` says what stands in the file, and which cases are ours."""
    kind = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--cases", "path", type=kind, help=form)


@click.group()
def evals() -> None:
    """Measure how good TrendRAG is, on cases of yours or ours."""


for _command in (list_tasks, runs, report, compare, gate, selfcheck):
    evals.add_command(_command)


@evals.group(chain=True)
def run() -> None:
    """Run tasks, one after the other, each over its cases; every run is recorded."""


for _task in (caption, trends, tagging, serving):
    run.add_command(_task)


@run.command()
@_cases("JSON lines: id, caption, trends [{id, phrase, aliases}], expected [{start, end, id}].  [default: ours]")
@_label
@_json
def highlight(path: Path | None, label: str, as_json: bool) -> None:
    """Highlighting: exact spans, on whole captions and in random chunks. No model is needed."""
    from evals.highlight import Case
    from evals.highlight import run as run_highlight
    from evals.labelled import read_cases
    from evals.tasks import quick

    began, file = _now(), path or _OURS / "highlight.jsonl"
    cases = read_cases(file, Case)
    report = run_highlight(cases)
    _keep("highlight", quick.highlight(cases, report), began, file, label, quiet=as_json)
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
@_label
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
def score(seed: int, worlds: int, plot_path: Path | None, label: str, as_json: bool) -> None:
    """The score: how soon bursts are found in a simulated world, and how many false alarms that costs.

    Compared with raw volume and with exponential decay alone. docs/scoring.md explains the world and the figures.
    """
    from evals.score import run as run_score
    from evals.score_plot import plot
    from evals.tasks import quick
    from evals.tasks.photo_task import Finished

    began = _now()

    def show(done: str) -> None:
        click.echo(done, err=True)

    report = run_score(range(seed, seed + worlds), on_progress=show)
    figures = quick.score_figures(report)
    told = {"worlds": worlds}
    _keep("score", Finished((), ()), began, None, label, told=told, figures=figures, seed=seed, quiet=as_json)
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


@run.command()
@click.option(
    "--cases",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with trends.jsonl and queries.jsonl, as GUIDELINES.md beside ours describes them.  [default: ours]",
)
@click.option("--ablate", is_flag=True, help="Rank without each part in turn, with no threshold, instead.")
@click.option("--scenes", is_flag=True, help="Give trends the scenes of scenes.jsonl, as a large model wrote them.")
@_label
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a folder, with every query's result.")
def retrieval(folders: tuple[Path, ...], ablate: bool, scenes: bool, label: str, as_json: bool) -> None:
    """Retrieval: are the trends that an editor would pick first, and none where none fits?

    The cases' trends go through our own merge, safety gate, score and freshness into a snapshot, and each description
    is asked of it with the settings in force (retrieval.k, retrieval.threshold). Our set has two parts: "tune", and
    "held-out", which nothing is ever tuned on.
    """
    from evals.retrieval import ablate as ablate_retrieval
    from evals.retrieval import read_cases
    from evals.retrieval import run as run_retrieval
    from evals.tasks import quick
    from indexes.commands import prepare_scenes
    from indexes.embedder import open_embedder
    from trendrag.settings import load_settings

    settings = load_settings()
    embedder = open_embedder(settings)
    concepts = prepare_scenes(embedder, settings.models_dir)
    ours = _OURS / "retrieval"
    for folder in folders or (ours / "tune", ours / "held-out"):
        began, cases = _now(), read_cases(folder, with_scenes=scenes)
        if ablate:
            click.echo(f"{folder.name}: nDCG@5 of the ranking alone, without")
            for each in ablate_retrieval(cases, settings, embedder, concepts):
                brings = f"brings {each.brings.value:+.3f}  [{each.brings.low:+.3f}, {each.brings.high:+.3f}]"
                click.echo(f"  {each.without:32} {each.ndcg.value:.3f}  {brings}")
            continue
        report = run_retrieval(cases, settings, embedder, concepts)
        told = {"scenes": scenes, **settings.retrieval.model_dump(mode="json")}
        finished = quick.retrieval(cases, report)
        _keep(f"retrieval {folder.name}", finished, began, folder, label, told=told, quiet=as_json)
        if as_json:
            click.echo(report.model_dump_json(indent=2))
            continue
        click.echo(f"{folder.name}: {report.queries} queries, {report.offered} topics of {report.trends} trends")
        for name, found in (("nDCG@5", report.ndcg), ("recall@5", report.recall)):
            if found:
                click.echo(f"  {name:20} {found.value:.3f}  [{found.low:.3f}, {found.high:.3f}], n = {found.n}")
        precision, share = report.abstention_precision, report.abstention_recall
        click.echo(
            f"  {'no trend fits':20} precision {'-' if precision is None else f'{precision:.2f}'} "
            f"(of {report.empty} empty answers), recall {'-' if share is None else f'{share:.2f}'} "
            f"(of {report.nothing_fits} queries)"
        )
        click.echo(
            f"  {'of ' + str(report.hits) + ' hits':20} forbidden {report.forbidden:.1%}, repeated "
            f"{report.duplicates:.1%}, stale {report.stale:.1%}, unsafe {report.unsafe:.1%}"
        )
        if report.safe_missing:
            click.echo(f"  not offered although safe and fresh: {', '.join(report.safe_missing)}")


@run.command()
@_cases("JSON lines: id, a and b {names, headlines, language, kind}, same, split (dev or test).  [default: ours]")
@_label
@_json
def merge(path: Path | None, label: str, as_json: bool) -> None:
    """Merging: whether two names are one topic, against three simple methods.

    One of those compares embeddings; without the weights of `trendrag models fetch` it is left out.
    """
    from evals.labelled import read_cases, shown
    from evals.merge import MergeCase
    from evals.merge import run as run_merge
    from evals.tasks import quick
    from indexes.embedder import open_minilm
    from trendrag.errors import WeightsError
    from trendrag.settings import load_settings

    began, file = _now(), path or _OURS / "merge.jsonl"
    cases = read_cases(file, MergeCase)
    try:
        embedder = open_minilm(load_settings().models_dir)
    except WeightsError as error:
        click.echo(f"Without embeddings: {error}", err=True)
        embedder = None
    report = run_merge(cases, embedder)
    _keep("merge", quick.merge(cases, report), began, file, label, quiet=as_json)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    names = {case.id: (" / ".join(case.a.names), " / ".join(case.b.names)) for case in cases}
    for result in report.results:
        if not result.passed:
            one, other = names[result.id]
            said = f"the same by {result.reason}" if result.reason else "not the same"
            click.echo(f"WRONG {result.id} ({result.split}): {one} | {other}: {said}")
    for method in report.methods:
        threshold = "" if method.threshold is None else f", from {method.threshold:.2f}"
        click.echo(f"{method.method}{threshold}")
        for split, found in (("dev", method.dev), ("test", method.test)):
            if found:
                click.echo(
                    f"  {split:4} precision {shown(found.precision)} · recall {shown(found.recall)} · F1 {found.f1:.2f}"
                )
    click.echo(f"{report.cases} pairs; in brackets Wilson's 95% interval")


@run.command()
@_cases("JSON lines: id, headline, language, phrases that would do (or none), split (dev or test).  [default: ours]")
@_label
@_json
def phrases(path: Path | None, label: str, as_json: bool) -> None:
    """Phrases: what a headline is about, where that is sure. No model is needed."""
    from evals.labelled import read_cases, shown
    from evals.phrases import PhraseCase
    from evals.phrases import run as run_phrases
    from evals.tasks import quick

    began, file = _now(), path or _OURS / "phrases.jsonl"
    cases = read_cases(file, PhraseCase)
    report = run_phrases(cases)
    _keep("phrases", quick.phrases(cases, report), began, file, label, quiet=as_json)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    said = {case.id: case for case in cases}
    for result in report.results:
        if not result.passed:
            case = said[result.id]
            wanted = " / ".join(case.phrases) or "none"
            click.echo(f"WRONG {result.id} ({result.split}): {case.headline}: {result.phrase or 'none'}, not {wanted}")
    for split, found in (("dev", report.dev), ("test", report.test)):
        if found:
            click.echo(
                f"{split:4} precision {shown(found.precision)} · coverage {shown(found.coverage)}"
                f" · none where there is none {shown(found.silence)}"
            )
    click.echo(f"{report.cases} headlines; in brackets Wilson's 95% interval")


@run.command()
@_cases("JSON lines: id, phrase, headlines, language, unsafe, reason.  [default: the test half of ours]")
@_label
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures and every fault.")
def safety(path: Path | None, label: str, as_json: bool) -> None:
    """The safety gate: recall of unsafe topics, and the share of safe ones wrongly withheld.

    A case goes through the same gate as a live topic, without the lists of the user. docs/safety.md explains the
    figures.
    """
    from evals.labelled import read_cases
    from evals.safety import CASES, Case, is_development
    from evals.safety import run as run_safety
    from evals.tasks import quick
    from indexes.embedder import open_minilm
    from ingest.safety import Gate
    from trendrag.errors import TrendragError
    from trendrag.settings import load_settings

    began = _now()
    try:
        cases = read_cases(path or CASES, Case)
        if path is None:
            cases = [case for case in cases if not is_development(case)]
        embedder = open_minilm(load_settings().models_dir)
        report = run_safety(cases, Gate.built_in(embedder), embedder)
    except TrendragError as error:
        raise click.ClickException(str(error)) from error
    _keep("safety", quick.safety(cases, report), began, path or CASES, label, quiet=as_json)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    if report.note:
        click.echo(report.note)
    for title, parts in (
        (f"{report.cases} cases", (report.gate, *report.baselines)),
        ("by language", report.languages),
        ("by the case's reason", report.reasons),
    ):
        click.echo(f"{title}:")
        for part in parts:
            shown = f"  {part.name:18} recall of unsafe {_share(part.recall)}"
            click.echo(shown + (f" · safe withheld {_share(part.withheld)}" if part.withheld.of else ""))
    texts = {case.id: " / ".join([case.phrase, *case.headlines]) for case in cases}
    for title, faults in (("Missed", report.missed), ("Wrongly withheld", report.wrongly_withheld)):
        for fault in faults:
            why = " ".join(str(each) for each in (fault.reason, fault.term) if each)
            click.echo(f"{title}: {fault.id} {texts[fault.id]}" + (f"  ({why})" if why else ""))


def _share(share: "Share") -> str:
    if share.value is None:
        return "-"
    return f"{share.value:.3f} ({share.low:.2f}–{share.high:.2f}, {share.hits}/{share.of})"


def _now() -> datetime:
    return datetime.now(UTC)


def _keep(
    task: str,
    finished: "Finished",
    began: datetime,
    cases: Path | None,
    label: str,
    *,
    quiet: bool,
    told: "Mapping[str, JsonValue] | None" = None,
    figures: Mapping[str, float] | None = None,
    seed: int | None = None,
) -> None:
    """Records the run, and says as what."""
    from evals.tasks.quick import keep
    from trendrag.settings import load_settings

    run = keep(
        task, finished, load_settings(), began=began, cases=cases, label=label, told=told, figures=figures, seed=seed
    )
    if not quiet:
        click.echo(f"Recorded as {run}", err=True)
