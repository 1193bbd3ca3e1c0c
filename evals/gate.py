"""A gate for releases: thresholds in a file, which the newest runs pass or not.

[[threshold]]
task = "retrieval held-out"    # its newest run; or run = "…", an id
measure = "nDCG@5"
at_least = 0.4                 # or at_most
sure = true                    # the whole 95% interval must hold it, not the figure alone
min_n = 50                     # of fewer items the figure is not believed

[[threshold]]
task = "caption"
max_failed = 0.01              # the share of items with an error

[[threshold]]
task = "caption"
measure = "CIDEr"
not_worse_than = "20261101"    # a run over the same cases; fails where it is worse beyond chance
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from evals.compare import compare
from evals.record import Recorded
from evals.statistics import figure, measures
from trendrag.errors import RequestError
from trendrag.types import Frozen

OURS = Path(__file__).parent / "thresholds.toml"


class Threshold(Frozen):
    """``label`` narrows ``task`` to runs of that label."""

    task: str | None = None
    label: str | None = None
    run: str | None = None
    measure: str | None = None
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)
    sure: bool = False
    min_n: int = Field(default=1, ge=1)
    max_failed: float | None = Field(default=None, ge=0, le=1)
    not_worse_than: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.task is None) == (self.run is None):
            raise ValueError("name a task (its newest run is taken) or a run")
        if self.label is not None and self.task is None:
            raise ValueError("label goes with a task")
        limits = (self.at_least, self.at_most, self.not_worse_than)
        if all(each is None for each in (*limits, self.max_failed)):
            raise ValueError("nothing is asked: give at_least, at_most, max_failed or not_worse_than")
        if self.measure is None and any(each is not None for each in limits):
            raise ValueError("at_least, at_most and not_worse_than need a measure")
        return self


class Result(Frozen):
    """``reasons`` is why it was not passed; empty where it was."""

    what: str
    reasons: tuple[str, ...]


class Thresholds(Frozen):
    threshold: tuple[Threshold, ...] = Field(min_length=1)


def read_thresholds(path: Path) -> tuple[Threshold, ...]:
    """
    Raises:
        RequestError: the file can't be read, or is not such a list; the message says what is wrong where.
    """
    try:
        return Thresholds.model_validate(tomllib.loads(path.read_text("utf-8"))).threshold
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise RequestError(f"{path}: {': '.join([*map(str, fault['loc']), fault['msg']])}") from error
    except ValueError as error:  # TOML and UTF-8
        raise RequestError(f"{path} is not TOML: {error}") from error


def check(threshold: Threshold, recorded: Recorded, open_run: Callable[[str], Recorded]) -> Result:
    """Whether the run passes; ``open_run`` opens the one that it must not be worse than.

    Raises:
        RequestError: the run has no such measure, or can't be compared.
    """
    run, items = recorded.run, recorded.items
    reasons = []
    if threshold.max_failed is not None:
        failed = len(recorded.failures) / len(items) if items else 1.0
        if failed > threshold.max_failed:
            reasons.append(
                f"{len(recorded.failures)} of {len(items)} items failed ({failed:.1%}), more than "
                f"{threshold.max_failed:.1%}"
            )
    if threshold.measure is not None:
        reasons += _figure(threshold, threshold.measure, recorded)
        if threshold.not_worse_than is not None:
            other = open_run(threshold.not_worse_than)
            change = next(
                (
                    each
                    for each in compare(other, recorded, threshold.measure).changes
                    if each.measure.name == threshold.measure
                ),
            )
            if change.verdict == "worse":
                interval = f"[{change.change.low:+.4g}, {change.change.high:+.4g}]"
                reasons.append(f"worse than {other.run.id} by {change.change.value:+.4g} {interval}")
            elif change.verdict == "too few items":
                reasons.append(f"too few items ({change.change.n}) to say that it is not worse than {other.run.id}")
    parts = (run.task, run.label, threshold.measure or "failures")
    return Result(what=" ".join(filter(None, parts)) + f" ({run.id})", reasons=tuple(reasons))


def _figure(threshold: Threshold, name: str, recorded: Recorded) -> list[str]:
    there = measures(recorded.items, recorded.run.measures)
    measure = next((each for each in there if each.name == name), None)
    if measure is None:
        told = recorded.run.figures.get(name)
        if told is None:
            names = [*(each.name for each in there), *recorded.run.figures]
            raise RequestError(f"Run {recorded.run.id} has no measure {name!r}; it has: {', '.join(names)}")
        low = high = told
        shown, n = f"{told:.4g}", len(recorded.items)
    else:
        found = figure(measure, recorded.items)
        if found is None:
            return ["no item says anything of it"]
        low, high = (found.low, found.high) if threshold.sure else (found.value, found.value)
        shown, n = f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}], n = {found.n}", found.n
    reasons = []
    if n < threshold.min_n:
        reasons.append(f"{n} items, fewer than {threshold.min_n}")
    if threshold.at_least is not None and low < threshold.at_least:
        reasons.append(f"{shown}: below {threshold.at_least:g}")
    if threshold.at_most is not None and high > threshold.at_most:
        reasons.append(f"{shown}: above {threshold.at_most:g}")
    return reasons
