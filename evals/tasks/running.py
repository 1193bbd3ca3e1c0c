"""Runs photo tasks, model after model, and keeps a record of each; goes on with a run that was killed.

What a figure depends on is settled before the first question and goes into the record: model, prompts, trends, seed,
settings, code.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from evals import provenance
from evals.prompts import chain_sha256, prompt, prompt_sha256
from evals.record import Batch, Recorded, Run, new_id, runs_folder, save
from evals.statistics import row
from evals.tasks import plan
from evals.tasks.caption import CaptionTask
from evals.tasks.code import code_sha256
from evals.tasks.photo_task import Finished, PhotoTask
from indexes.manifest import read_manifest
from trendrag.errors import ConfigurationError, ModelError, RequestError
from trendrag.settings import Settings

MISSING = (
    "This task runs on Inspect AI, which is not installed. Install the extra: pip install 'trendrag[evals]' (the tasks "
    "retrieval, highlight, safety, merge, phrases, score and serving need none)"
)


@dataclass(frozen=True, slots=True)
class Options:
    """``models`` as `named` gives them. ``fresh`` False takes answers of earlier runs with ``fresh`` False, where all
    that they depend on is the same. ``told`` are the command's options, by which a killed run is found again."""

    models: tuple[str, ...]
    told: dict[str, JsonValue]
    snapshot: Path | None = None
    judge: str | None = None
    seed: int = 1
    concurrency: int | None = None
    fresh: bool = True
    resume: bool = False
    label: str = ""


def named(model: str, settings: Settings) -> str:
    """A model or judge of the command line by its whole name: "trendrag" is the chain with the model of the settings.

    Raises:
        RequestError: that name is none.
    """
    if model == "trendrag":
        own = settings.model
        if own.provider != "embedded" and not own.name:
            raise ConfigurationError("Set TRENDRAG_MODEL__NAME: a run records which model it measured")
        return "trendrag/embedded" if own.provider == "embedded" else f"trendrag/{own.name}"
    if "/" not in model:
        raise RequestError(
            f"The model {model}: give PROVIDER/NAME, such as server/NAME or openai/gpt-4o-mini, or trendrag"
        )
    return model


def run_photos(task: PhotoTask, options: Options, settings: Settings, say: Callable[[str], None]) -> list[Recorded]:
    """The runs of all models, recorded as they finish; then those of the anchors, where the task has any.

    Raises:
        ConfigurationError: the extra is not installed, or a model can't be opened.
        RequestError: there is nothing to go on with.
        ModelError: a model answered nothing at all. No run is recorded of it, and ``resume`` asks again.
    """
    try:
        from evals.tasks.inspecting import Answers, Asked, answers  # noqa: PLC0415  an extra, and seconds to load
    except ImportError as error:
        raise ConfigurationError(MISSING) from error
    home = settings.data_dir / "evals"
    unfinished, models = home / "unfinished", options.models
    if options.resume:
        under_way = plan.resume(unfinished, task.name, options.told, models)
        say(f"Going on with {under_way.plan.id}")
    else:
        under_way = plan.begin(unfinished, task.name, options.told, models, options.snapshot)
    snapshot = Path(under_way.plan.snapshot) if under_way.plan.snapshot else None
    recorded: list[Recorded] = []
    for model in models:
        if model in under_way.plan.done:
            say(f"{model}: done before, {under_way.plan.done[model]}")
            continue
        began = datetime.now(UTC)
        run = _run(task, model, options, settings, snapshot, began)
        scope = {
            # A kept answer is of use only where all is the same that it came of, beside the question.
            "of": "any run" if not options.fresh else under_way.plan.id,
            "code": code_sha256(),
            "settings": hashlib.sha256(
                f"{settings.model.base_url} {sorted(run.settings.items())}".encode()
            ).hexdigest(),
            "snapshot": str(run.snapshot_id),
        }
        asked = Asked(
            model=model,
            scope=scope,
            answers=under_way.answers(model) if options.fresh else home / "answers",
            logs=home / "logs",
            snapshot=snapshot,
            judge=options.judge,
            seed=options.seed,
            concurrency=options.concurrency,
        )

        def progress(done: int, of: int, model: str = model) -> None:
            if done in (1, of) or done % max(1, of // 10) == 0:
                say(f"{model}: {done} of {of}")

        try:
            found: Answers = asyncio.run(answers(task, asked, settings, progress))
        except asyncio.CancelledError:  # Ctrl-C, of which Inspect tells as of any other end
            raise KeyboardInterrupt from None
        except ConfigurationError:
            if not under_way.plan.done:
                under_way.end()
            raise
        if all(item.error is not None for item in found.items):
            first = found.items[0]
            why = (first.error or "").rstrip(".")
            raise ModelError(f"{model} answered nothing; {first.id}: {why}. Once it does, go on with --resume")
        items = [task.scored(item, said) for item, said in zip(found.items, found.said, strict=True)]
        run = run.model_copy(update={"log": Path(found.log).name})
        notes = []
        if found.kept:
            notes.append(f"{found.kept} of {len(items)} answers were kept from before, and their times with them.")
        if unjudged := _unjudged(found.said):
            notes.append(
                f"The judge gave no usable answer on {len(unjudged)} of {len(items)} captions; the first: {unjudged[0]}"
            )
        recorded.append(_kept(run, task.finished(items, found.said), notes, settings))
        under_way.did(model, run.id)
    if isinstance(task, CaptionTask):
        recorded += _anchors(task, settings, options)
    under_way.end()
    return recorded


def _run(
    task: PhotoTask, model: str, options: Options, settings: Settings, snapshot: Path | None, began: datetime
) -> Run:
    provider, _, name = model.partition("/")
    manifest = read_manifest(snapshot) if snapshot else None
    chain = provider == "trendrag"
    kept: dict[str, JsonValue] = {"image.model_pixels": settings.image.model_pixels, **options.told}
    if provider in ("trendrag", "server"):
        kept |= {"model.temperature": settings.model.temperature, "model.max_tokens": settings.model.max_tokens}
    if options.judge:
        kept["judge.prompt_sha256"] = prompt_sha256(prompt("grounded"))
    if chain:
        kept |= {f"retrieval.{key}": value for key, value in settings.retrieval.model_dump(mode="json").items()}
    return Run(
        id=new_id(task.name, began),
        task=task.name,
        label=options.label,
        created_at=began,
        model=name,
        provider=provider,
        prompt_sha256=chain_sha256() if chain else task.prompt_sha256,
        snapshot_id=manifest.id if manifest else None,
        cases=task.photos.name,
        cases_sha256=task.photos.sha256,
        seed=options.seed,
        settings=kept,
        versions=provenance.versions(),
        commit=provenance.commit(),
        hardware=provenance.hardware(),
        measures=(),
    )


def _kept(run: Run, finished: Finished, notes: Sequence[str], settings: Settings) -> Recorded:
    """The run in the data directory."""
    items = finished.items
    batches = tuple(dict.fromkeys(item.batch for item in items if item.batch is not None))

    told = run.model_copy(
        update={
            # What no item has is no figure of this run.
            "measures": tuple(each for each in finished.measures if any(row(each, item) for item in items)),
            "finished_at": datetime.now(UTC),
            "batches": tuple(Batch(id=id_, created_at=run.created_at) for id_ in batches),
            "notes": (*notes, *finished.notes),
        }
    )
    save(told, items, runs_folder(settings.data_dir))
    return Recorded(run=told, items=items)


def _unjudged(said: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """Why, each time."""
    return [
        str(judged["error"]) for each in said if isinstance(judged := each.get("judged"), dict) and "error" in judged
    ]


def _anchors(task: CaptionTask, settings: Settings, options: Options) -> list[Recorded]:
    """Runs without a model, on the same photos."""
    made: list[Recorded] = []
    for label, items in task.anchors():
        run = _run(task, "none/none", options, settings, None, datetime.now(UTC))
        none = {"model": None, "provider": None, "prompt_sha256": None, "seed": None}
        bare = run.model_copy(update={"label": label, **none})
        made.append(_kept(bare, task.finished(items, [{} for _ in items]), (), settings))
    return made
