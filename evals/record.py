"""The record of a run: what was measured, on what, with which model, prompt, trends, settings and versions.

A run is a folder, ``<data dir>/evals/runs/<run id>/``:

    run.json       one Run
    items.jsonl    one Item a line, in the order of the cases

It appears whole or not at all. Tasks write it; the report, ``compare`` and ``gate`` know nothing else of a task.

How a number is made of the items is part of the record (`Measure`): so it can be made again, with an interval, from the
record alone, and two runs are compared item by item.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, JsonValue, StringConstraints, ValidationError, model_validator

from trendrag.errors import RequestError
from trendrag.types import Frozen, Utc

FORMAT: Literal[1] = 1
RUN, ITEMS = "run.json", "items.jsonl"
ROOM = "See that there is room, or set TRENDRAG_DATA_DIR to a folder that can be written."

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
How = Literal["mean", "p50", "p95", "p99", "ratio", "f1", "bleu-1", "bleu-2", "bleu-3", "bleu-4"]


_Kind = TypeVar("_Kind", bound=Frozen)


class Measure(Frozen):
    """How a run's figure is made of its items, and what it means.

    ``how``:

    - "mean", "p50", "p95", "p99" of ``Item.scores[name]``, over the items where it is a number;
    - "ratio": Σa / Σb of ``Item.counts[counts]`` = (a, b), such as hits and attempts;
    - "f1": 2Σr / (Σt + Σw) of (right, taken, wanted);
    - "bleu-1" … "bleu-4": of (matches of 1 to 4 grams, their totals, words, words of the closest reference), ten
      numbers in all.

    ``better`` is None where neither more nor less is better, as with lengths. ``unit`` is shown behind figures: "s".
    ``counts`` may be shared by several measures; where it is empty it is the measure's own name.
    """

    name: Name
    better: Literal["higher", "lower"] | None = "higher"
    unit: str = ""
    how: How = "mean"
    counts: str = ""
    about: str = ""

    @property
    def key(self) -> str:
        """Under which the items hold what the measure is made of."""
        return self.counts or self.name


class Lit(Frozen):
    """Code points [start, end) of an output that mention a trend, and where the trend comes from."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)
    phrase: str
    source: str = ""
    url: str | None = None


class Tokens(Frozen):
    prompt: int = Field(default=0, ge=0)
    cached: int = Field(default=0, ge=0)
    completion: int = Field(default=0, ge=0)


class Item(Frozen):
    """One case of a run.

    ``id`` names the case, and is the same in every run over it. A score is None where the measure says nothing of this
    case (recall where nothing was wanted). ``error`` says why there is no output: such items are counted and shown as
    failures, and whether they also score (0, say) is up to the task. ``latency_s`` is the whole call, ``first_token_s``
    until its first piece. ``batch`` is the id of one of the run's batches. ``image`` is a path on this machine.
    """

    id: Name
    scores: Mapping[str, Number | None] = Field(default_factory=dict)
    counts: Mapping[str, tuple[Number, ...]] = Field(default_factory=dict)
    input: str = ""
    output: str | None = None
    error: str | None = None
    references: tuple[str, ...] = ()
    image: str | None = None
    lit: tuple[Lit, ...] = ()
    latency_s: Number | None = Field(default=None, ge=0)
    first_token_s: Number | None = Field(default=None, ge=0)
    tokens: Tokens | None = None
    batch: str | None = None

    @model_validator(mode="after")
    def _lit_within(self) -> Self:
        length = len(self.output or "")
        if any(lit.start >= lit.end or lit.end > length for lit in self.lit):
            raise ValueError("a lit span lies outside the output")
        return self


class Batch(Frozen):
    """A part of the cases that is shown as a column of its own; its n is counted, not told."""

    id: Name
    created_at: Utc


class Run(Frozen):
    """``label`` names the run to people, beside its id: "k=4", "3B, prompt 2".

    ``log`` is the name of Inspect AI's log. ``prompt_sha256``: of the prompt's template. ``cases_sha256``: of the case
    file. ``settings`` are those that the result depends on, never secrets. ``figures`` are numbers that no item holds,
    such as tokens a second.
    """

    format: Literal[1] = FORMAT
    id: RunId
    task: Name
    label: str = ""
    created_at: Utc
    finished_at: Utc | None = None
    model: str | None = None
    provider: str | None = None
    prompt_sha256: str | None = None
    snapshot_id: str | None = None
    cases: str = ""
    cases_sha256: str | None = None
    log: str | None = None
    seed: int | None = None
    settings: Mapping[str, JsonValue] = Field(default_factory=dict)
    versions: Mapping[str, str] = Field(default_factory=dict)
    commit: str | None = None
    hardware: Mapping[str, str] = Field(default_factory=dict)
    measures: tuple[Measure, ...]
    figures: Mapping[str, Number] = Field(default_factory=dict)
    batches: tuple[Batch, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How people know it: its label and what was asked, as "k=4 · server/NAME"; empty where there is neither."""
        return " · ".join(filter(None, (self.label, "/".join(filter(None, (self.provider, self.model))))))

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for what, names in (
            ("measure", [each.name for each in self.measures]),
            ("batch", [b.id for b in self.batches]),
        ):
            if repeated := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"the {what} {min(repeated)!r} is there twice")
        return self


class Recorded(Frozen):
    """A run with its items: what the report and ``compare`` are made of."""

    run: Run
    items: tuple[Item, ...]

    @property
    def failures(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.error is not None)


def new_id(task: str, at: datetime) -> str:
    """Unique; a task's sort by time, to the microsecond: "20261122T024100Z-caption-00000e3f9c0"."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", task).strip("-")[:60] or "run"
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{name}-{at.microsecond:05x}{secrets.token_hex(3)}"


def runs_folder(data_dir: Path) -> Path:
    return data_dir / "evals" / "runs"


def save(run: Run, items: Iterable[Item], runs: Path) -> Path:
    """Writes a finished run into the folder ``runs``, whole or not at all.

    Returns:
        The run's folder.

    Raises:
        RequestError: there is a run of that id, the items don't fit the run, or the folder can't be written.
    """
    items = tuple(items)
    _fit(run, items, run.id)
    final = runs / run.id
    if final.exists():
        raise RequestError(f"There is a run {run.id} already, in {runs}; a run is never written over")
    partial = runs / f".{run.id}.{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
        _write(partial / ITEMS, "".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items))
        _write(partial / RUN, run.model_dump_json(indent=1) + "\n")
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RequestError(f"The run can't be kept in {runs}: {error.strerror}. {ROOM}") from error
    return final


def load(run: str | Path, runs: Path) -> Recorded:
    """A run by its id, by the beginning of its id that only it has, or by its folder.

    Raises:
        RequestError: there is none, several begin so, or what is there is not a run; the message says where and why.
    """
    folder = _find(str(run), runs)
    try:
        head = (folder / RUN).read_bytes()
        lines = (folder / ITEMS).read_bytes().splitlines()
    except OSError as error:
        raise RequestError(f"{folder} is not a run: {error.filename} can't be read ({error.strerror})") from error
    found = _parse(Run, head, folder / RUN)
    items = tuple(
        _parse(Item, line, folder / ITEMS, number) for number, line in enumerate(lines, start=1) if line.strip()
    )
    _fit(found, items, str(folder))
    return Recorded(run=found, items=items)


def saved(runs: Path) -> list[str]:
    """The ids of all runs, the newest first."""
    if not runs.is_dir():
        return []
    return sorted((path.parent.name for path in runs.glob(f"*/{RUN}") if path.parent.name[0] != "."), reverse=True)


def _find(named: str, runs: Path) -> Path:
    path = Path(named)
    if (path / RUN).is_file():
        return path
    if path.name == RUN and path.is_file():
        return path.parent
    fitting = [each for each in saved(runs) if named and each.startswith(named)]
    if named in fitting:
        fitting = [named]
    if not fitting:
        raise RequestError(f"There is no run {named!r} in {runs}; `trendrag evals runs` lists those that there are")
    if len(fitting) > 1:
        raise RequestError(f"{len(fitting)} runs begin with {named!r}: {', '.join(fitting[:5])}; say more of the id")
    return runs / fitting[0]


def _parse(kind: type[_Kind], text: bytes, path: Path, line: int | None = None) -> _Kind:
    where = f"{path}, line {line}" if line else str(path)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise RequestError(f"{where} is not the record of {'an item' if line else 'a run'}: {said}") from error


def _fit(run: Run, items: Sequence[Item], where: str) -> None:
    batches = {batch.id for batch in run.batches}
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise RequestError(f"{where}: the item {item.id!r} is there twice")
        if item.batch is not None and item.batch not in batches:
            raise RequestError(f"{where}: the item {item.id!r} is of a batch {item.batch!r} that the run doesn't name")
        for measure in run.measures:
            width = _WIDTHS.get(measure.how)
            if width and measure.key in item.counts and len(item.counts[measure.key]) != width:
                raise RequestError(f"{where}: {measure.name} of {item.id!r} is not of {width} counts")
        seen.add(item.id)


_WIDTHS: dict[str, int] = {"ratio": 2, "f1": 3, "bleu-1": 10, "bleu-2": 10, "bleu-3": 10, "bleu-4": 10}


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
