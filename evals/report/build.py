"""What a report says, without how it looks: a table of runs and measures for each task, and comparisons.

Rows are sorted by their mean rank over the coloured columns, the best on top. A column is coloured where one direction
is better and it isn't a time: a cell's decile is that of its rank among the column's rows, from 0 (worst) to 9 (best).
A colour says where a row stands among these rows, not whether it differs from another: intervals and comparisons do.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from evals.bootstrap import Mean
from evals.compare import Comparison, compare
from evals.record import Item, Measure, Recorded, Run
from evals.statistics import LATENCY, figure, measures
from trendrag.errors import RequestError
from trendrag.types import Frozen, Utc


class Column(Frozen):
    """``batch`` is None for all items; ``date`` and ``n`` are then None too, as rows have their own n."""

    measure: Measure
    batch: str | None = None
    date: Utc | None = None
    n: int | None = None

    @property
    def coloured(self) -> bool:
        return self.measure.better is not None and self.measure.unit not in ("s", "ms")


class Cell(Frozen):
    mean: Mean | None
    decile: int | None = None


class Row(Frozen):
    run: Run
    name: str
    items: int
    failed: int
    cells: tuple[Cell, ...]


class Table(Frozen):
    """All runs of one task; ``main`` is its first measure of which more or less is better, by which galleries go."""

    task: str
    main: Measure | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    not_compared: tuple[str, ...] = ()


class Report(Frozen):
    created_at: Utc
    tables: tuple[Table, ...]


def build(recorded: Sequence[Recorded], now: datetime | None = None) -> Report:
    tasks: dict[str, list[Recorded]] = {}
    for each in recorded:
        tasks.setdefault(each.run.task, []).append(each)
    tables = tuple(_table(task, runs) for task, runs in tasks.items())
    return Report(created_at=now or datetime.now(UTC), tables=tables)


def name(run: Run) -> str:
    """How a report calls a run: by its title, or by when it was made."""
    return run.title or f"{run.created_at:%Y-%m-%d %H:%M:%S}"


def _table(task: str, runs: Sequence[Recorded]) -> Table:
    shown = list(dict.fromkeys(measure for each in runs for measure in measures(each.items, each.run.measures)))
    main = next((each for each in shown if each.better), None)
    columns = [*(Column(measure=measure) for measure in shown), *_batch_columns(runs, main, LATENCY in shown)]
    found = [[_figure(column, each) for column in columns] for each in runs]
    deciles = [_deciles(column, [row[number] for row in found]) for number, column in enumerate(columns)]
    rows = [
        Row(
            run=each.run,
            name=name(each.run),
            items=len(each.items),
            failed=len(each.failures),
            cells=tuple(Cell(mean=mean, decile=deciles[column][number]) for column, mean in enumerate(found[number])),
        )
        for number, each in enumerate(runs)
    ]
    places = _places(columns, found)
    order = sorted(range(len(rows)), key=lambda number: places[number])
    comparisons, refused = [], []
    for other in runs[1:]:
        try:
            comparisons.append(compare(runs[0], other))
        except RequestError as error:
            refused.append(f"{name(other.run)} with {name(runs[0].run)}: {error}")
    return Table(
        task=task,
        main=main,
        columns=tuple(columns),
        rows=tuple(rows[number] for number in order),
        comparisons=tuple(comparisons),
        not_compared=tuple(refused),
    )


def _batch_columns(runs: Sequence[Recorded], main: Measure | None, timed: bool) -> list[Column]:
    batches = {batch.id: batch for each in runs for batch in each.run.batches}
    columns = []
    for batch in sorted(batches.values(), key=lambda batch: (batch.created_at, batch.id)):
        n = max(sum(item.batch == batch.id for item in each.items) for each in runs)
        shown = [measure for measure in (main, LATENCY if timed else None) if measure is not None]
        columns += [Column(measure=measure, batch=batch.id, date=batch.created_at, n=n) for measure in shown]
    return columns


def _figure(column: Column, recorded: Recorded) -> Mean | None:
    return figure(column.measure, _of(column, recorded.items))


def _of(column: Column, items: Iterable[Item]) -> list[Item]:
    return [item for item in items if column.batch in (None, item.batch)]


def _goodness(column: Column, means: Sequence[Mean | None]) -> list[float | None]:
    sign = 1.0 if column.measure.better == "higher" else -1.0
    return [None if mean is None else sign * mean.value for mean in means]


def _share_beaten(values: Sequence[float | None]) -> list[float | None]:
    """For each value the share of the others that it beats, ties half; None for None, and where there is no other."""
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return [None] * len(values)
    return [
        None
        if value is None
        else (sum(other < value for other in there) + (sum(other == value for other in there) - 1) / 2)
        / (len(there) - 1)
        for value in values
    ]


def _deciles(column: Column, means: Sequence[Mean | None]) -> list[int | None]:
    if not column.coloured:
        return [None] * len(means)
    return [None if share is None else min(9, int(share * 10)) for share in _share_beaten(_goodness(column, means))]


def _places(columns: Sequence[Column], found: Sequence[Sequence[Mean | None]]) -> list[float]:
    """For each row the mean share of rows that beat it, over coloured columns of all items: lower is better."""
    shares: list[list[float]] = [[] for _ in found]
    for number, column in enumerate(columns):
        if column.coloured and column.batch is None:
            for row, share in enumerate(_share_beaten(_goodness(column, [each[number] for each in found]))):
                shares[row].append(0.0 if share is None else share)
    return [1 - sum(each) / len(each) if each else 1.0 for each in shares]
