"""Is run B another than run A, over the same cases?

Each measure's difference is bootstrapped over pairs of items (`evals.statistics`). "Better" and "worse" are said where
the 95% interval leaves out 0; of twenty measures without any real difference one is expected to do so by chance.
"""

from collections.abc import Sequence
from typing import Literal

from evals.bootstrap import Mean
from evals.record import Item, Measure, Recorded
from evals.statistics import MIN_ITEMS, difference, differs, figure, measures, paired, value
from trendrag.errors import RequestError
from trendrag.types import Frozen

Verdict = Literal["better", "worse", "more", "less", "no difference seen", "too few items"]


class Change(Frozen):
    """``change`` is B less A over ``change.n`` pairs: those of which both items bring anything to the measure."""

    measure: Measure
    before: Mean | None
    after: Mean | None
    change: Mean
    verdict: Verdict


class Moved(Frozen):
    """An item whose value moved; ``by`` is after less before."""

    id: str
    before: float
    after: float

    @property
    def by(self) -> float:
        return self.after - self.before


class Comparison(Frozen):
    """``settings``: what differs between the runs besides the results, as "field: A → B". ``moved`` are the items whose
    measure ``by`` moved most, most first."""

    a: str
    b: str
    task: str
    cases: int
    failures: tuple[int, int]
    settings: tuple[str, ...]
    changes: tuple[Change, ...]
    by: str | None
    moved: tuple[Moved, ...]


def compare(a: Recorded, b: Recorded, by: str | None = None, most: int = 10) -> Comparison:
    """
    Args:
        by: the measure by which moved items are listed; by default the first of A that has a better.
        most: how many of them at most.

    Raises:
        RequestError: the runs are of different tasks or cases, or have no measure (or not ``by``) in common.
    """
    if a.run.task != b.run.task:
        raise RequestError(f"A is a run of {a.run.task}, B one of {b.run.task}: compare runs of one task")
    pairs = paired(a.items, b.items)
    others = measures(b.items, b.run.measures)
    common = [measure for measure in measures(a.items, a.run.measures) if measure in others]
    changes = [change for measure in common if (change := _change(measure, a, b, pairs)) is not None]
    if not changes:
        raise RequestError("The runs have no measure in common that says anything of the same items")
    chosen = _chosen([each.measure for each in changes], by)
    return Comparison(
        a=a.run.id,
        b=b.run.id,
        task=a.run.task,
        cases=len(pairs),
        failures=(len(a.failures), len(b.failures)),
        settings=_settings(a, b),
        changes=tuple(changes),
        by=chosen.name if chosen else None,
        moved=_moved(chosen, pairs, most) if chosen else (),
    )


def _change(measure: Measure, a: Recorded, b: Recorded, pairs: Sequence[tuple[Item, Item]]) -> Change | None:
    change = difference(measure, pairs)
    if change is None:
        return None
    before, after = figure(measure, a.items), figure(measure, b.items)
    return Change(measure=measure, before=before, after=after, change=change, verdict=_verdict(measure, change))


def _verdict(measure: Measure, change: Mean) -> Verdict:
    if change.n < MIN_ITEMS:
        return "too few items"
    if not differs(change):
        return "no difference seen"
    if measure.better is None:
        return "more" if change.value > 0 else "less"
    return "better" if (change.value > 0) == (measure.better == "higher") else "worse"


def _chosen(common: Sequence[Measure], by: str | None) -> Measure | None:
    if by is None:
        return next((each for each in common if each.better), None)
    for each in common:
        if each.name == by:
            return each
    raise RequestError(f"No measure {by!r} is in both runs; there are: {', '.join(each.name for each in common)}")


def _moved(measure: Measure, pairs: Sequence[tuple[Item, Item]], most: int) -> tuple[Moved, ...]:
    found = [
        Moved(id=old.id, before=before, after=after)
        for old, new in pairs
        if (before := value(measure, old)) is not None
        and (after := value(measure, new)) is not None
        and before != after
    ]
    return tuple(sorted(found, key=lambda each: -abs(each.by))[:most])


def _settings(a: Recorded, b: Recorded) -> tuple[str, ...]:
    def told(recorded: Recorded) -> dict[str, object]:
        run = recorded.run
        fixed = ("label", "model", "provider", "prompt_sha256", "snapshot_id", "cases_sha256", "seed", "commit")
        nested = {"setting": run.settings, "version": run.versions, "hardware": run.hardware}
        flat = {f"{name} {key}": value for name, values in nested.items() for key, value in values.items()}
        return {name: getattr(run, name) for name in fixed} | flat

    one, other = told(a), told(b)
    keys = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
    return tuple(f"{key}: {_short(one.get(key))} → {_short(other.get(key))}" for key in keys)


def _short(value: object) -> str:
    text = "–" if value in (None, "") else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
