"""What decisions on labelled cases are worth: precision, recall and F1, with the interval that their number allows."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from trendrag.errors import RequestError

Split = Literal["dev", "test"]

_Z = 1.959964
"""The normal distribution's 97.5% quantile: intervals are of 95%."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Share(Record):
    """``right`` of ``of``: value in [0, 1], 1 where there was nothing; low and high as ``wilson`` gives them, 0 and 1
    where there was nothing."""

    right: int
    of: int
    value: float
    low: float
    high: float


class Quality(Record):
    """Over labelled decisions: of those taken, the share that was right; of those to take, the share that was taken."""

    precision: Share
    recall: Share
    f1: float


def wilson(right: int, of: int) -> tuple[float, float]:
    """The bounds of Wilson's 95% interval (1927) of ``right`` of ``of``, which is above 0; in [0, 1]."""
    value = right / of
    middle = value + _Z * _Z / (2 * of)
    spread = _Z * math.sqrt(value * (1 - value) / of + _Z * _Z / (4 * of * of))
    scale = 1 + _Z * _Z / of
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def share(right: int, of: int) -> Share:
    if not of:
        return Share(right=0, of=0, value=1.0, low=0.0, high=1.0)
    low, high = wilson(right, of)
    return Share(right=right, of=of, value=right / of, low=low, high=high)


def quality(decisions: Iterable[tuple[bool, bool]]) -> Quality:
    """Of (taken, to take) pairs."""
    pairs = list(decisions)
    both = sum(taken and wanted for taken, wanted in pairs)
    precision = share(both, sum(taken for taken, _ in pairs))
    recall = share(both, sum(wanted for _, wanted in pairs))
    total = precision.value + recall.value
    return Quality(precision=precision, recall=recall, f1=2 * precision.value * recall.value / total if total else 0.0)


Case = TypeVar("Case", bound=BaseModel)


def read_cases(path: Path, kind: type[Case]) -> list[Case]:
    """The cases of a file of JSON lines.

    Raises:
        RequestError: the file can't be read, holds no case, or a line is not one; the message names line and field.
    """
    cases = read_lines(path, kind)
    if not cases:
        raise RequestError(f"{path} holds no case")
    return cases


def read_lines(path: Path, kind: type[Case]) -> list[Case]:
    """As ``read_cases``, but there may be none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}") from error
    cases: list[Case] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cases.append(kind.model_validate(json.loads(line)))
        except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
            raise RequestError(f"{path}, line {number} is not a case: {_fault(error)}") from error
    return cases


def _fault(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "not JSON"
    fault = error.errors()[0]
    return ": ".join([*map(str, fault["loc"]), fault["msg"]])


def shown(found: Share) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
