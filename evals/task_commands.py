"""``trendrag evals run``: the tasks that ask a model or a server; those that need neither are in ``commands``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import JsonValue

    from evals.record import Recorded
    from evals.tasks.photo_task import PhotoTask

_F = TypeVar("_F", bound=Callable[..., None])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

TAGGER = "tagger/efficientnet-lite2"


def _together(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def with_all(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return with_all


_photos = _together(
    click.option(
        "--cases", type=_FILE, help="JSON lines, COCO's JSON, or Karpathy's splits; docs/evals.md.  [default: ours]"
    ),
    click.option("--images", type=_FOLDER, help="Where their images are.  [default: where the cases are]"),
    click.option("--split", default="test", show_default=True, help="Which split, in a file that has several."),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first so many photos."),
)
_asked = _together(
    click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True, help="Of the sampling."),
    click.option("--concurrency", type=click.IntRange(1, 256), help="Photos at once.  [default: the model's]"),
    click.option(
        "--cache", is_flag=True, help="Take answers that an earlier run with --cache had to the same question."
    ),
    click.option("--resume", is_flag=True, help="Go on with the newest run of this command that was killed."),
    click.option("--label", default="", help="What the report calls the run."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run, with every item."),
)


def _models(*default: str, what: str) -> Callable[[_F], _F]:
    return click.option(
        "--model", "models", multiple=True, default=default, show_default=True, metavar="NAME", help=what
    )


@click.command()
@_models("trendrag", what="trendrag, trendrag/NAME, server/NAME, or one of Inspect AI's; repeatable.")
@_photos
@click.option(
    "--style",
    type=click.Choice(("plain", "caption")),
    default="plain",
    show_default=True,
    help="What the caption chain is asked for: alt text, or a caption without trends.",
)
@_asked
@click.pass_context
def caption(
    ctx: click.Context,
    models: tuple[str, ...],
    cases: Path | None,
    images: Path | None,
    split: str,
    limit: int | None,
    style: str,
    seed: int,
    concurrency: int | None,
    cache: bool,
    resume: bool,
    label: str,
    as_json: bool,
) -> None:
    """Captions against those that people wrote: BLEU, METEOR, ROUGE-L, CIDEr, and anchors.

    \b
        trendrag evals run caption --limit 4
        trendrag evals run caption --cases dataset_coco.json --images coco/ --limit 500 --model server/NAME
    """
    from evals.tasks.caption import CaptionTask
    from evals.tasks.photos import read_photos

    task = CaptionTask(read_photos(cases, images, split=split, limit=limit), style=style)
    _run(ctx, task, models, seed=seed, concurrency=concurrency, cache=cache, resume=resume, label=label, json=as_json)


@click.command()
@_models("trendrag", what="trendrag, or trendrag/NAME for another model on its server; repeatable.")
@_photos
@click.option(
    "--as-of",
    metavar="WHEN",
    help="Trends of the snapshot of a day (2026-11-20), a moment, or now.  [default: with our cases, a made-up day]",
)
@click.option("--judge", metavar="NAME", help="A model that says whether captions claim only what the photo shows.")
@_asked
@click.pass_context
def trends(
    ctx: click.Context,
    models: tuple[str, ...],
    cases: Path | None,
    images: Path | None,
    split: str,
    limit: int | None,
    as_of: str | None,
    judge: str | None,
    seed: int,
    concurrency: int | None,
    cache: bool,
    resume: bool,
    label: str,
    as_json: bool,
) -> None:
    """The same photos with trends and without: use, fit, abstention, lengths and what it costs.

    With --as-of a result can be had again: the trends are those of that day's snapshot, whatever is current now.
    """
    from evals.tasks.photos import read_photos
    from evals.tasks.snapshots import as_of as snapshot_of
    from evals.tasks.snapshots import of_cases
    from evals.tasks.trends import TrendsTask
    from indexes.embedder import open_embedder
    from trendrag.settings import load_settings

    if other := next((model for model in models if model.partition("/")[0] != "trendrag"), None):
        raise click.UsageError(f"--model {other}: only the caption chain uses trends: trendrag or trendrag/NAME.")
    settings = load_settings()
    task = TrendsTask(read_photos(cases, images, split=split, limit=limit), with_judge=judge is not None)
    if as_of is None and cases is None:
        made_up = Path(__file__).parent / "cases" / "retrieval" / "tune"
        keep_in = settings.data_dir / "evals" / "snapshots"
        snapshot = of_cases(made_up, keep_in, settings, open_embedder(settings))
    else:
        snapshot = snapshot_of(as_of or "now", settings.snapshots_dir)
    _run(
        ctx,
        task,
        models,
        snapshot=snapshot,
        judge=judge,
        seed=seed,
        concurrency=concurrency,
        cache=cache,
        resume=resume,
        label=label,
        json=as_json,
    )


@click.command()
@_models(TAGGER, what="server/NAME, one of Inspect AI's, or the built-in tagger; repeatable.")
@_photos
@click.option("--tags", "n", type=click.IntRange(1, 50), default=10, show_default=True, help="How many a photo.")
@_asked
@click.pass_context
def tagging(
    ctx: click.Context,
    models: tuple[str, ...],
    cases: Path | None,
    images: Path | None,
    split: str,
    limit: int | None,
    n: int,
    seed: int,
    concurrency: int | None,
    cache: bool,
    resume: bool,
    label: str,
    as_json: bool,
) -> None:
    """Tags as JSON: the share of each photo's gold tags that is named, and how long it takes.

    \b
        trendrag evals run tagging --model server/Qwen/Qwen2.5-VL-3B-Instruct-AWQ --model openai/gpt-4o-mini
    """
    from evals.tasks.photos import read_photos
    from evals.tasks.tagging import TaggingTask

    if any(model.partition("/")[0] == "trendrag" for model in models):
        raise click.UsageError(
            "--model trendrag: the caption chain writes no tags; server/NAME asks its model for them."
        )
    task = TaggingTask(read_photos(cases, images, split=split, limit=limit), n=n)
    _run(ctx, task, models, seed=seed, concurrency=concurrency, cache=cache, resume=resume, label=label, json=as_json)


def _run(
    ctx: click.Context,
    task: "PhotoTask",
    models: tuple[str, ...],
    *,
    seed: int,
    concurrency: int | None,
    cache: bool,
    resume: bool,
    label: str,
    json: bool,
    snapshot: Path | None = None,
    judge: str | None = None,
) -> None:
    from evals.tasks.running import Options, named, run_photos
    from trendrag.settings import load_settings

    settings = load_settings()
    told: dict[str, JsonValue] = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in ctx.params.items()
        if key not in ("models", "resume", "as_json", "label", "concurrency") and value is not None
    }
    options = Options(
        models=tuple(dict.fromkeys(named(model, settings) for model in models)),
        told=told,
        snapshot=snapshot,
        judge=judge,
        seed=seed,
        concurrency=concurrency,
        fresh=not cache,
        resume=resume,
        label=label,
    )
    try:
        runs = run_photos(task, options, settings, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        click.echo("What was answered is kept: the same command with --resume goes on.", err=True)
        raise
    for each in runs:
        click.echo(each.model_dump_json(indent=2)) if json else show(each)


@click.command()
@click.argument("url")
@click.option("--model", help="The endpoint is an OpenAI-compatible one (URL ends in /v1), and this its model.")
@click.option("--key-env", metavar="VARIABLE", help="The environment variable that holds the API key.")
@click.option("--requests", type=click.IntRange(1, 5_000), default=100, show_default=True, help="How many in all.")
@click.option("--clients", type=click.IntRange(1, 1_000), default=8, show_default=True, help="Closed loop: how many.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Open loop instead: so many requests a second."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=180.0,
    show_default=True,
    help="Seconds a request.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the open loop's arrivals.")
@_photos
@click.option("--label", default="", help="What the report calls the run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every request.")
def serving(
    url: str,
    model: str | None,
    key_env: str | None,
    requests: int,
    clients: int,
    rate: float | None,
    timeout: float,
    seed: int,
    cases: Path | None,
    images: Path | None,
    split: str,
    limit: int | None,
    label: str,
    as_json: bool,
) -> None:
    """Time to the first token, whole time, tokens a second and failures of the running endpoint URL.

    \b
        trendrag evals run serving http://127.0.0.1:8000 --clients 4
        trendrag evals run serving http://127.0.0.1:8001/v1 --model Qwen/Qwen2.5-VL-3B-Instruct-AWQ --rate 2
    """
    import asyncio
    import os
    from datetime import UTC, datetime

    from evals.record import load as read_run
    from evals.record import runs_folder
    from evals.tasks.photo_task import Finished
    from evals.tasks.photos import read_photos
    from evals.tasks.quick import keep
    from evals.tasks.serving import MEASURES, Load, measure
    from trendrag.settings import load_settings

    if not url.startswith(("http://", "https://")):
        raise click.UsageError("URL begins with http:// or https://")
    if key_env and not os.environ.get(key_env):
        raise click.UsageError(f"--key-env {key_env}: that variable is not set.")
    settings = load_settings()
    photos = read_photos(cases, images, split=split, limit=limit)
    wanted = Load(
        url=url.rstrip("/"),
        api="openai" if model else "trendrag",
        model=model,
        key=os.environ[key_env] if key_env else None,
        requests=requests,
        clients=clients,
        rate=rate,
        timeout_s=timeout,
        seed=seed,
    )
    began = datetime.now(UTC)
    found = asyncio.run(measure(wanted, photos, settings.image))
    told: dict[str, JsonValue] = {
        "url": url,
        "loop": f"open, {rate:g} requests/s" if rate else f"closed, {clients} clients",
        "timeout_s": timeout,
    }
    id_ = keep(
        "serving",
        Finished(MEASURES, found.items),
        settings,
        began=began,
        cases=None,
        label=label,
        told=told,
        figures=found.figures,
        seed=seed,
        model=model,
    )
    kept = read_run(id_, runs_folder(settings.data_dir))
    click.echo(kept.model_dump_json(indent=2)) if as_json else show(kept)


def show(recorded: "Recorded") -> None:
    """A run's figures, a line each, with interval and n."""
    from evals.statistics import figure, measures

    run = recorded.run
    click.echo(f"{run.task}, {' '.join(part for part in (run.model, run.label) if part) or 'no model'}: {run.id}")
    for measure in measures(recorded.items, run.measures):
        found = figure(measure, recorded.items)
        if found:
            unit = f" {measure.unit}" if measure.unit else ""
            click.echo(
                f"  {measure.name:26} {found.value:.3f}  [{found.low:.3f}, {found.high:.3f}]{unit}, n = {found.n}"
            )
    for name, value in run.figures.items():
        click.echo(f"  {name:26} {value:.3f}")
    failures = recorded.failures
    if failures:
        click.echo(f"  {len(failures)} of {len(recorded.items)} failed: {failures[0].id}: {failures[0].error}")
    for note in run.notes:
        click.echo(f"  {note}")


TASKS = (
    ("retrieval", "the trends that an editor would pick, first, and none where none fits", "weights"),
    ("highlight", "exact spans of trends in captions, whatever the chunks", "nothing"),
    ("safety", "unsafe topics withheld, safe ones not", "weights"),
    ("merge", "two names, one topic or two", "nothing"),
    ("phrases", "what a headline is about, where that is sure", "nothing"),
    ("score", "bursts found in a simulated world", "half a minute a world"),
    ("caption", "captions against those that people wrote, with anchors", "extra evals, a model"),
    ("trends", "the same photos with trends and without", "extra evals, weights or a model server"),
    ("tagging", "tags as JSON, recall of the gold tags", "extra evals, a model"),
    ("serving", "times and failures of a running endpoint, open and closed loop", "a running endpoint"),
)
"""Name, what it measures, what it needs."""


@click.command("list")
def list_tasks() -> None:
    """List the tasks: what each measures and needs."""
    for name, what, needs in TASKS:
        click.echo(f"{name:10} {what} (needs {needs})")
    click.echo("\n`trendrag evals run TASK --help` has each one's options; several run one after the other: run A B.")
