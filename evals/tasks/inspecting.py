"""Runs a photo task on Inspect AI: one model, all photos, the answers kept as they come. Needs the extra ``evals``.

Every answer is in Inspect's cache, in a folder of the run's, before the next is asked for: a run that was killed gets
them from there and asks for the rest. A photo that fails is a failed item and no end of the run.
"""

import asyncio
import base64
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_async
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.event import ModelEvent
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    CachePolicy,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    ResponseSchema,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import JSONSchema, display_type
from pydantic import JsonValue

import evals.tasks.chain_model  # noqa: F401  it registers our models
from evals.prompts import prompt
from evals.record import Item, Lit, Tokens
from evals.tasks.answers import json_object
from evals.tasks.chain_model import ChainSaid
from evals.tasks.photo_task import PhotoTask, Question
from serving.images import prepare_image
from trendrag.endpoint import checked_base_url, checked_key
from trendrag.errors import ConfigurationError, TrendragError
from trendrag.settings import ImageSettings, Settings
from trendrag.text import clean_line

JUDGED = "judged"
VERDICT = GenerateConfig(
    temperature=0,
    response_schema=ResponseSchema(
        name=JUDGED,
        json_schema=JSONSchema(
            type="object",
            properties={"grounded": JSONSchema(type="boolean")},
            required=["grounded"],
            additionalProperties=False,
        ),
        strict=True,
    ),
)
"""Binds a judge's answer to what is asked for, where its provider can; others go by the prompt."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a task is put to a model: ``model`` by the name of the command line, ``scope`` what its answers depend on
    beside the question, ``answers`` the folder where they are kept."""

    model: str
    scope: Mapping[str, str]
    answers: Path
    logs: Path
    snapshot: Path | None = None
    judge: str | None = None
    seed: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Items in the order of the questions; ``kept`` of them had been answered before."""

    items: tuple[Item, ...]
    said: tuple[Mapping[str, JsonValue], ...]
    kept: int
    log: str


def model_named(name: str, settings: Settings, seed: int | None, snapshot: Path | None = None) -> Model:
    """
    Raises:
        ConfigurationError: there is no such model, or what it needs is not installed or not set.
    """
    config = GenerateConfig(seed=seed, max_retries=2)
    try:
        if name.startswith("trendrag/"):
            return get_model(name, config=config, memoize=False, snapshot=str(snapshot) if snapshot else None)
        if name.startswith("server/"):
            base_url = checked_base_url(settings.model.base_url)
            key = checked_key(settings.model.api_key).get_secret_value()
            own = GenerateConfig(temperature=settings.model.temperature, max_tokens=settings.model.max_tokens)
            config = config.merge(own)
            return get_model(f"openai-api/{name}", config=config, memoize=False, base_url=base_url, api_key=key)
        return get_model(name, config=config, memoize=False)
    except TrendragError:
        raise
    except Exception as error:  # providers raise whatever they like where a key or a package is missing
        raise ConfigurationError(
            f"The model {clean_line(name, 100)} can't be opened: {_plain(error)}. Known are trendrag, "
            "trendrag/NAME, server/NAME, tagger/efficientnet-lite2, and Inspect's own (openai/…, bedrock/…, together/…)"
        ) from error


def _plain(error: Exception) -> str:
    """What Inspect says, without its mark-up for terminals and its last full stop."""
    return clean_line(re.sub(r"\[/?[a-z]+\]", "", str(error)), 300).rstrip(".")


async def answers(task: PhotoTask, asked: Asked, settings: Settings, progress: Callable[[int, int], None]) -> Answers:
    """Asks the model all questions of the task.

    Raises:
        TrendragError: nothing can be asked at all.
    """
    # Inspect knows no other way to say these.
    os.environ |= {"INSPECT_CACHE_DIR": str(asked.answers), "INSPECT_DISPLAY": "none"}
    display_type()  # reads the second; left unread, it would be "plain", on standard output
    policy = CachePolicy(expiry=None, per_epoch=False, scopes=dict(asked.scope))
    questions = task.questions
    failures: dict[str, str] = {}
    done = 0

    def answered() -> None:
        nonlocal done
        done += 1
        progress(done, len(questions))

    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(model_named(asked.model, settings, asked.seed, asked.snapshot))
        judge = None
        if asked.judge and task.judged:
            judge = await stack.enter_async_context(model_named(asked.judge, settings, 0))
        logs = await eval_async(
            Task(
                dataset=MemoryDataset([_sample(each) for each in questions], name=task.photos.name),
                solver=[_show(settings.image, policy, failures), *([_judge(judge, policy)] if judge else [])],
                scorer=_worth(task, answered),
                name=task.name,
            ),
            model=model,
            log_dir=str(asked.logs),
            log_level="error",
            log_realtime=False,
            ctl_server=False,
            fail_on_error=False,
            score_on_error=True,
            max_connections=asked.concurrency or model.api.max_connections(),
            adaptive_connections=False,
        )
    log = next(iter(logs), None)
    if log is None or log.status == "cancelled":
        raise asyncio.CancelledError
    if log.status != "success" or log.samples is None:
        why = clean_line(log.error.message, 300) if log.error else log.status
        raise TrendragError(
            f"Inspect AI could not run {task.name}: {why}. Once that is cured, the same command with --resume goes on"
        )
    by_id = {str(sample.id): sample for sample in log.samples}
    found = [(question, by_id[question.id]) for question in questions]
    return Answers(
        items=tuple(_item(question, sample, failures.get(question.id)) for question, sample in found),
        said=tuple(_said(sample) for _, sample in found),
        kept=sum(_kept(sample) for _, sample in found),
        log=log.location,
    )


def _sample(question: Question) -> Sample:
    metadata = {"image": str(question.image), "ask": dict(question.ask)}
    return Sample(id=question.id, input=question.prompt or "(the caption chain's own prompts)", metadata=metadata)


@solver
def _show(images: ImageSettings, policy: CachePolicy, failures: dict[str, str]) -> Solver:
    """Asks about the photo. Why one failed goes into ``failures``, by its id: Inspect's own words hold the request."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        data = await asyncio.to_thread(Path(state.metadata["image"]).read_bytes)
        photo = await asyncio.to_thread(prepare_image, data, images)
        address = f"data:{photo.mime_type};base64,{base64.b64encode(photo.data).decode('ascii')}"
        content = [ContentImage(image=address), ContentText(text=state.input_text)]
        state.messages = [ChatMessageUser(content=list(content), metadata=state.metadata["ask"])]
        try:
            return await generate(state, cache=policy)
        except Exception as error:
            failures[str(state.sample_id)] = _cause(error)
            raise

    return solve


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


@solver
def _judge(judge: Model, policy: CachePolicy) -> Solver:
    """Asks whether what the caption claims is in the photo; a judge that says nothing usable leaves it open."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        del generate
        ask, said = state.metadata["ask"], state.output.metadata or {}
        text = prompt("grounded").format(
            note=clean_line(ask.get("note") or "", 400) or "nothing",
            topics=", ".join(clean_line(each, 80) for each in said.get("offered", {}).values()) or "none",
            caption=clean_line(state.output.completion, 2_000),
        )
        photo = [part for part in state.messages[0].content if isinstance(part, ContentImage)]
        message = ChatMessageUser(content=[*photo, ContentText(text=text)])
        try:
            output = await judge.generate([message], config=VERDICT, cache=policy)
        except Exception as error:  # noqa: BLE001  the caption is there; that nobody judged it is said in the record
            state.metadata[JUDGED] = {"error": clean_line(_cause(error), 200)}
            return state
        verdict = json_object(output.completion) or {}
        usable = isinstance(verdict.get("grounded"), bool)
        state.metadata[JUDGED] = verdict if usable else {"error": f"it said {clean_line(output.completion, 100)!r}"}
        return state

    return solve


def _worth(task: PhotoTask, answered: Callable[[], None]) -> Scorer:
    questions = {question.id: question for question in task.questions}

    @scorer(metrics=[mean(), stderr()], name="worth")
    def worth() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            del target
            answered()
            question = questions[str(state.sample_id)]
            item = task.scored(_answered(question, state.output, None), _told(state.output, state.metadata))
            scores = dict(item.scores)
            value = scores.get(task.headline)
            return Score(value=float("nan") if value is None else value, answer=item.output, metadata=scores)

        return score

    return worth()


def _item(question: Question, sample: EvalSample, failure: str | None) -> Item:
    return _answered(question, sample.output, (failure or sample.error.message) if sample.error else None)


def _answered(question: Question, output: ModelOutput, error: str | None) -> Item:
    if error is None and output.error:
        error = output.error
    shown = question.ask.get("note") if question.ask else None
    plain: dict[str, Any] = {"id": question.id, "image": str(question.image), "input": str(shown or "")}
    if error is not None or not output.choices:
        return Item(**plain, error=clean_line(error or "The model gave no answer", 500))
    usage = output.usage
    said = output.metadata or {}
    tokens = usage and Tokens(
        prompt=usage.input_tokens + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0),
        cached=usage.input_tokens_cache_read or 0,
        completion=usage.output_tokens,
    )
    chain = ChainSaid.model_validate(said) if "lit" in said else None
    return Item(
        **plain,
        output=output.completion,
        latency_s=said.get("latency_s", output.time),
        first_token_s=said.get("first_token_s"),
        tokens=tokens,
        lit=tuple(
            Lit(start=each.start, end=each.end, phrase=each.phrase, source=each.source, url=each.url)
            for each in (chain.lit if chain else ())
        ),
    )


def _said(sample: EvalSample) -> Mapping[str, JsonValue]:
    return _told(sample.output, sample.metadata)


def _told(output: ModelOutput, metadata: Mapping[str, Any]) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = dict(output.metadata or {})
    if JUDGED in metadata:
        told[JUDGED] = metadata[JUDGED]
    return told


def _kept(sample: EvalSample) -> bool:
    calls = [event for event in sample.events if isinstance(event, ModelEvent)]
    return bool(calls) and all(event.cache == "read" for event in calls)
