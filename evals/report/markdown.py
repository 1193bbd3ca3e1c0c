"""The report as Markdown: its figures, without pictures and items."""

from collections.abc import Iterable

from evals.bootstrap import Mean
from evals.compare import Comparison
from evals.report.build import Column, Report, Table
from trendrag.text import clean_line


def page(report: Report) -> str:
    parts = [f"# Evaluation report, {report.created_at:%Y-%m-%d %H:%M} UTC"]
    for table in report.tables:
        parts += _table(table)
    return "\n\n".join(parts) + "\n"


def figure(mean: Mean | None, unit: str = "") -> str:
    """ "0.5812 [0.5511, 0.6102]", with as many digits as 4 significant ones need."""
    if mean is None:
        return "–"
    return f"{with_unit(mean.value, unit)} [{number(mean.low)}, {number(mean.high)}]"


def number(value: float) -> str:
    """Four significant digits, never an exponent for what reports hold."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".") if abs(value) >= 0.001 else f"{value:.5f}"


def with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()


def heading(column: Column) -> str:
    """ "nDCG@5", or of a batch "nDCG@5, may, 2026-05-02, n = 40"."""
    if column.batch is None or column.date is None:
        return column.measure.name
    return f"{column.measure.name}, {column.batch}, {column.date:%Y-%m-%d}, n = {column.n}"


def _table(table: Table) -> Iterable[str]:
    yield f"## {_cell(table.task)}"
    heads = ["run", "n", "failed", *(heading(column) for column in table.columns)]
    lines = ["| " + " | ".join(map(_cell, heads)) + " |", "|---" * len(heads) + "|"]
    for row in table.rows:
        figures = (
            figure(cell.mean, column.measure.unit) for cell, column in zip(row.cells, table.columns, strict=True)
        )
        lines.append("| " + " | ".join([_cell(row.name), str(row.items), str(row.failed), *figures]) + " |")
    yield "\n".join(lines)
    yield "In brackets 95% bootstrap intervals over items; best rows on top."
    for row in table.rows:
        known = [f"`{row.run.id}`", *(f"{key} {_cell(value)}" for key, value in facts(row.run.model_dump()))]
        yield "\n".join([f"- {_cell(row.name)}: {', '.join(known)}", *(f"  - {_cell(note)}" for note in row.run.notes)])
    for comparison in table.comparisons:
        yield _comparison(comparison)
    for each in table.not_compared:
        yield f"Not compared: {_cell(each)}"


def facts(run: dict[str, object]) -> list[tuple[str, str]]:
    """What a record says of how the run was made, as (name, value); what it doesn't know is left out."""
    plain = (
        *("task", "model", "provider", "prompt_sha256", "snapshot_id", "cases", "cases_sha256", "seed", "commit"),
        "log",
    )
    found = [(key.replace("_", " "), str(run[key])) for key in plain if run[key] not in (None, "")]
    for key in ("settings", "versions", "hardware", "figures"):
        values = run[key]
        if isinstance(values, dict) and values:
            found.append((key, ", ".join(f"{name} {value}" for name, value in values.items())))
    return found


def _comparison(comparison: Comparison) -> str:
    lines = [
        f"### {_cell(comparison.b)} against {_cell(comparison.a)}: {comparison.cases} cases\n",
        *(f"- {_cell(each)}" for each in comparison.settings),
        "\n| measure | before | after | difference | n | |\n|---|---|---|---|---|---|",
    ]
    for each in comparison.changes:
        unit = each.measure.unit
        cells = (figure(each.before, unit), figure(each.after, unit), figure(each.change, unit), str(each.change.n))
        lines.append(f"| {_cell(each.measure.name)} | {' | '.join(cells)} | {each.verdict} |")
    if comparison.moved:
        lines.append(f"\nMoved most, by {_cell(comparison.by or '')}:\n")
        lines += [
            f"- {_cell(each.id)}: {number(each.before)} → {number(each.after)} ({each.by:+.4f})"
            for each in comparison.moved
        ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text from outside on one line, in which no mark-up is any."""
    line = clean_line(text, 300)
    return "".join("\\" + char if char in "\\|*_[]#!" else char for char in line)
