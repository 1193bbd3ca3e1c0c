"""``trendrag evals run``: the tasks that ask a model or a server; those that need neither are in ``commands``."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import JsonValue

    from evals.record import Recorded
    from evals.tasks.photo_task import PhotoTask
    from evals.tasks.photos import Photos

_Command = Callable[..., None]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

TAGGER = "tagger/efficientnet-lite2"


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """The options that say which photos."""

    cases: Path | None
    images: Path | None
    split: str
    limit: int | None

    def read(self) -> "Photos":
        from evals.tasks.photos import read_photos

        return read_photos(self.cases, self.images, split=self.split, limit=self.limit)


@dataclass(frozen=True, slots=True)
class Asking:
    """The options of all tasks that ask models."""

    models: tuple[str, ...]
    seed: int
    concurrency: int | None
    cache: bool
    resume: bool
    label: str
    as_json: bool


def _as_one(
    name: str, kind: type[PhotoFiles] | type[Asking], *options: Callable[[_Command], _Command]
) -> Callable[[_Command], _Command]:
    """A decorator that gives a command the ``options``, whose values it gets together: as ``kind``, under ``name``."""

    def with_options(command: _Command) -> _Command:
        @wraps(command)
        def called(**given: object) -> None:
            values: dict[str, Any] = {field.name: given.pop(field.name) for field in fields(kind)}
            command(**given, **{name: kind(**values)})

        whole: _Command = called
        for option in reversed(options):
            whole = option(whole)
        return whole

    return with_options


_photos = _as_one(
    "photos",
    PhotoFiles,
    click.option(
        "--cases", type=_FILE, help="JSON lines, COCO's JSON, or Karpathy's splits; docs/evals.md.  [default: ours]"
    ),
    click.option("--images", type=_FOLDER, help="Where their images are.  [default: where the cases are]"),
    click.option("--split", default="test", show_default=True, help="Which split, in a file that has several."),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first so many photos."),
)


def _asking(*default: str, what: str) -> Callable[[_Command], _Command]:
    """``default`` are the models that are asked where none is named, ``what`` says which there are."""
    return _as_one(
        "asking",
        Asking,
        click.option("--model", "models", multiple=True, default=default, show_default=True, metavar="NAME", help=what),
        click.option(
            "--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True, help="Of the sampling."
        ),
        click.option("--concurrency", type=click.IntRange(1, 256), help="Photos at once.  [default: the model's]"),
        click.option(
            "--cache", is_flag=True, help="Take answers that an earlier run with --cache had to the same question."
        ),
        click.option("--resume", is_flag=True, help="Go on with the newest run of this command that was killed."),
        click.option("--label", default="", help="What the report calls the run."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run, with every item."),
    )


@click.command()
@_asking("trendrag", what="trendrag, trendrag/NAME, server/NAME, or one of Inspect AI's; repeatable.")
@_photos
@click.option(
    "--style",
    type=click.Choice(("plain", "caption")),
    default="plain",
    show_default=True,
    help="What the caption chain is asked for: alt text, or a caption without trends.",
)
def caption(photos: PhotoFiles, style: str, asking: Asking) -> None:
    """Captions against those that people wrote: BLEU, METEOR, ROUGE-L, CIDEr, and anchors.

    \b
        trendrag evals run caption --limit 4
        trendrag evals run caption --cases dataset_coco.json --images coco/ --limit 500 --model server/NAME
    """
    from evals.tasks.caption import CaptionTask

    _run(CaptionTask(photos.read(), style=style), asking)


@click.command()
@_asking("trendrag", what="trendrag, or trendrag/NAME for another model on its server; repeatable.")
@_photos
@click.option(
    "--as-of",
    metavar="WHEN",
    help="Trends of the snapshot of a day (2026-11-20), a moment, or now.  [default: with our cases, a made-up day]",
)
@click.option("--judge", metavar="NAME", help="A model that says whether captions claim only what the photo shows.")
def trends(photos: PhotoFiles, as_of: str | None, judge: str | None, asking: Asking) -> None:
    """The same photos with trends and without: use, fit, abstention, lengths and what it costs.

    With --as-of a result can be had again: the trends are those of that day's snapshot, whatever is current now.
    """
    from evals.tasks.snapshots import as_of as snapshot_of
    from evals.tasks.snapshots import of_cases
    from evals.tasks.trends import TrendsTask
    from indexes.embedder import open_embedder
    from trendrag.settings import load_settings

    if other := next((model for model in asking.models if model.partition("/")[0] != "trendrag"), None):
        raise click.UsageError(f"--model {other}: only the caption chain uses trends: trendrag or trendrag/NAME.")
    if judge and judge.partition("/")[0] in ("trendrag", "tagger"):
        raise click.UsageError(f"--judge {judge}: it answers no questions; server/NAME is the model of its server.")
    settings = load_settings()
    task = TrendsTask(photos.read(), with_judge=judge is not None)
    if as_of is None and photos.cases is None:
        made_up = Path(__file__).parent / "cases" / "retrieval" / "tune"
        keep_in = settings.data_dir / "evals" / "snapshots"
        snapshot = of_cases(made_up, keep_in, settings, open_embedder(settings))
    else:
        snapshot = snapshot_of(as_of or "now", settings.snapshots_dir)
    _run(task, asking, snapshot=snapshot, judge=judge)


@click.command()
@_asking(TAGGER, what="server/NAME, one of Inspect AI's, or the built-in tagger; repeatable.")
@_photos
@click.option("--tags", "n", type=click.IntRange(1, 50), default=10, show_default=True, help="How many a photo.")
def tagging(photos: PhotoFiles, n: int, asking: Asking) -> None:
    """Tags as JSON: the share of each photo's gold tags that is named, and how long it takes.

    \b
        trendrag evals run tagging --model server/Qwen/Qwen2.5-VL-3B-Instruct-AWQ --model openai/gpt-4o-mini
    """
    from evals.tasks.tagging import TaggingTask

    if any(model.partition("/")[0] == "trendrag" for model in asking.models):
        raise click.UsageError(
            "--model trendrag: the caption chain writes no tags; server/NAME asks its model for them."
        )
    _run(TaggingTask(photos.read(), n=n), asking)


def _run(task: "PhotoTask", asking: Asking, *, snapshot: Path | None = None, judge: str | None = None) -> None:
    from evals.tasks.running import Options, named, run_photos
    from trendrag.settings import load_settings

    settings = load_settings()
    told: dict[str, JsonValue] = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in click.get_current_context().params.items()
        if key not in ("models", "resume", "as_json", "label", "concurrency") and value is not None
    }
    options = Options(
        models=tuple(dict.fromkeys(named(model, settings) for model in asking.models)),
        told=told,
        snapshot=snapshot,
        judge=named(judge, settings) if judge else None,
        seed=asking.seed,
        concurrency=asking.concurrency,
        fresh=not asking.cache,
        resume=asking.resume,
        label=asking.label,
    )
    try:
        runs = run_photos(task, options, settings, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        click.echo("What was answered is kept: the same command with --resume goes on.", err=True)
        raise
    for each in runs:
        click.echo(each.model_dump_json(indent=2)) if asking.as_json else show(each)


@click.command()
@click.option(
    "--url", required=True, help="TrendRAG's address, or with --model that of an OpenAI-compatible server, with /v1."
)
@click.option("--model", help="The endpoint is an OpenAI-compatible one, and this its model.")
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
    photos: PhotoFiles,
    label: str,
    as_json: bool,
) -> None:
    """Time to the first token, whole time, tokens a second and failures of a running endpoint.

    \b
        trendrag evals run serving --url http://127.0.0.1:8000 --clients 4
        trendrag evals run serving --url http://127.0.0.1:8001/v1 --model Qwen/Qwen2.5-VL-3B-Instruct-AWQ --rate 2
    """
    import asyncio
    import os
    from datetime import UTC, datetime

    from evals.record import load as read_run
    from evals.record import runs_folder
    from evals.tasks.photo_task import Finished
    from evals.tasks.quick import keep
    from evals.tasks.serving import MEASURES, Load, measure
    from trendrag.errors import ModelError
    from trendrag.settings import load_settings

    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url {url}: it begins with http:// or https://")
    if key_env and not os.environ.get(key_env):
        raise click.UsageError(f"--key-env {key_env}: that variable is not set.")
    settings = load_settings()
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
    found = asyncio.run(measure(wanted, photos.read(), settings.image))
    if all(item.error for item in found.items):
        raise ModelError(
            f"{url} gave no whole answer to {len(found.items)} requests; the first: {found.items[0].error}. Is the "
            "server up, and are --url (with --model it ends in /v1), --model and --key-env right for it?"
        )
    loop = f"{rate:g} requests/s" if rate else f"{clients} clients"
    told: dict[str, JsonValue] = {"url": url, "loop": loop, "timeout_s": timeout}
    id_ = keep(
        "serving open" if rate else "serving closed",
        Finished(MEASURES, found.items),
        settings,
        began=began,
        cases=None,
        label=label or loop,
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
    click.echo(f"{run.task}, {run.title or 'no model'}: {run.id}")
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
