"""The report as one HTML file: no network, no script but its own, and text of models, trends and files as text alone.

The page's policy forbids everything but its own style, its own script (both by hash) and pictures within it.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evals.bootstrap import Mean
from evals.compare import Comparison
from evals.record import Item, Measure, Recorded
from evals.report.build import Cell, Column, Report, Row, Table
from evals.report.charts import Point, intervals, lengths, scatter
from evals.report.images import Pictures
from evals.report.markdown import facts, heading, number, with_unit
from evals.report.markup import Html, element, join
from evals.statistics import LATENCY, LATENCY_P95, WORDS, value

_HERE = Path(__file__).parent
_MAX_TEXT = 1_500
_MAX_REFERENCES = 8


def page(report: Report, recorded: Sequence[Recorded], gallery: int = 12) -> str:
    """``recorded`` are the runs that ``report`` is of; at most ``gallery`` items a gallery."""
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    runs = {each.run.id: each for each in recorded}
    pictures = Pictures()
    sections = [_section(table, runs, pictures, gallery) for table in report.tables]
    title = f"Evaluation report, {report.created_at:%Y-%m-%d %H:%M} UTC"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element("header", element("h1", title), _filters(report), class_="top"),
        element("main", sections),
        element("script", Html(script)),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def _filters(report: Report) -> Html:
    rows = [row for table in report.tables for row in table.rows]
    runs = [element("option", f"{row.run.task}: {row.name}", value=row.run.id) for row in rows]
    kinds = [element("option", kind, value=kind) for kind in ("best", "worst", "moved", "failed")]
    return element(
        "form",
        element("label", "Run ", element("select", element("option", "all", value=""), runs, id="run")),
        element("label", "Items ", element("select", element("option", "all", value=""), kinds, id="kind")),
        element("label", "Text ", element("input", type="search", id="text", placeholder="in captions and references")),
        element("label", element("input", type="checkbox", id="lit"), " with a lit trend"),
        element("output", "", id="count", aria_live="polite"),
        id="filters",
    )


def _section(table: Table, runs: Mapping[str, Recorded], pictures: Pictures, gallery: int) -> Html:
    return element(
        "section",
        element("h2", table.task),
        _heat_map(table),
        element(
            "p",
            "Best rows on top. Colours are deciles of the rank within a column, from pale (last) to strong (first); "
            "times and lengths have none. Small figures are 95% bootstrap intervals over items.",
            class_="quiet",
        ),
        [element("p", each, class_="warning") for each in _warnings(table)],
        _charts(table, runs),
        [_comparison(each, table) for each in table.comparisons],
        _galleries(table, runs, pictures, gallery),
        _made_with(table),
    )


def _warnings(table: Table) -> Iterable[str]:
    for row in table.rows:
        if row.failed:
            yield f"{row.name}: {row.failed} of {row.items} items failed. Their errors are shown below."
    for note in dict.fromkeys(note for row in table.rows for note in row.run.notes):
        yield f"{', '.join(row.name for row in table.rows if note in row.run.notes)}: {note}"
    for each in table.not_compared:
        yield f"Not compared: {each}"


def _heat_map(table: Table) -> Html:
    heads = [
        element("th", _heading(column), scope="col", title=column.measure.about or None) for column in table.columns
    ]
    head = element("tr", element("th", "run", scope="col"), element("th", "n", scope="col"), heads)
    return element(
        "div",
        element("table", element("thead", head), element("tbody", [_row(row, table.columns) for row in table.rows])),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"Runs and measures of {table.task}",
    )


def _heading(column: Column) -> Html:
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[column.measure.better]
    small = heading(column).removeprefix(column.measure.name).removeprefix(", ")
    return join(column.measure.name + arrow, element("small", small) if small else None)


def _row(row: Row, columns: Sequence[Column]) -> Html:
    n = join(str(row.items), element("small", f"{row.failed} failed") if row.failed else None)
    cells = [_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True)]
    name = element("th", row.name, element("small", row.run.id), scope="row")
    return element("tr", name, element("td", n), cells, data_run=row.run.id)


def _cell(cell: Cell, column: Column) -> Html:
    if cell.mean is None:
        return element("td", "–")
    mean = cell.mean
    counted = "" if column.batch else f"n = {mean.n}"
    return element(
        "td",
        with_unit(mean.value, column.measure.unit),
        element("small", f"{number(mean.low)} – {number(mean.high)}"),
        class_=None if cell.decile is None else f"d{cell.decile}",
        title=counted or None,
    )


def _charts(table: Table, runs: Mapping[str, Recorded]) -> Html:
    drawn = []
    for place, column in enumerate(table.columns):
        if column.batch is None and column.coloured:
            rows = [(row.name, row.run.id, mean) for row in table.rows if (mean := row.cells[place].mean) is not None]
            if rows:
                drawn.append(intervals(column.measure.name, rows))
    points = list(_points(table))
    if table.main and points:
        drawn.append(scatter(table.main.name, points))
    counted = any(column.measure == WORDS for column in table.columns)
    words = {row.run.id: _words(runs[row.run.id].items) if counted else [] for row in table.rows}
    longest = max((max(each) for each in words.values() if each), default=0)
    histograms = [lengths(row.name, row.run.id, words[row.run.id], longest) for row in table.rows if words[row.run.id]]
    return join(
        element("div", drawn, class_="charts") if drawn else None,
        join(element("h3", "Lengths"), element("div", histograms, class_="charts")) if histograms else None,
    )


def _points(table: Table) -> Iterable[Point]:
    places = {column.measure: place for place, column in enumerate(table.columns) if column.batch is None}
    if table.main is None or LATENCY not in places:
        return
    for row in table.rows:
        quality, latency = row.cells[places[table.main]].mean, row.cells[places[LATENCY]].mean
        if quality and latency:
            yield Point(row.name, row.run.id, quality, latency.value)


def _words(items: Sequence[Item]) -> list[int]:
    return [len(item.output.split()) for item in items if item.output is not None]


def _comparison(comparison: Comparison, table: Table) -> Html:
    names = {row.run.id: row.name for row in table.rows}
    heads = ("measure", "before", "after", "difference", "n", "")
    rows = [
        element(
            "tr",
            element("th", each.measure.name, scope="row"),
            [_mean(mean, each.measure.unit) for mean in (each.before, each.after, each.change)],
            element("td", str(each.change.n)),
            element("td", each.verdict, class_=f"verdict {each.verdict.split(maxsplit=1)[0]}"),
        )
        for each in comparison.changes
    ]
    return element(
        "div",
        element("h3", f"{names[comparison.b]} against {names[comparison.a]}: the same {comparison.cases} cases"),
        element("ul", [element("li", each) for each in comparison.settings], class_="quiet"),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", [element("th", each, scope="col") for each in heads])),
                element("tbody", rows),
            ),
            class_="scroll",
        ),
        class_="comparison",
        data_run=comparison.b,
    )


def _mean(mean: Mean | None, unit: str) -> Html:
    if mean is None:
        return element("td", "–")
    return element("td", with_unit(mean.value, unit), element("small", f"{number(mean.low)} – {number(mean.high)}"))


def _galleries(table: Table, runs: Mapping[str, Recorded], pictures: Pictures, most: int) -> Html:
    parts = []
    names = {row.run.id: row.name for row in table.rows}
    few = len(table.rows) <= 2
    for comparison in table.comparisons:
        before, after = ({item.id: item for item in runs[each].items} for each in (comparison.a, comparison.b))
        cards = [
            _card(after[each.id], table, pictures, "moved", comparison.b, before[each.id], each.by)
            for each in comparison.moved[:most]
        ]
        title = f"Moved most, by {comparison.by}: {names[comparison.a]} → {names[comparison.b]}"
        parts.append(_gallery(title, cards, few))
    for row in table.rows:
        items = runs[row.run.id].items
        for kind, chosen in _chosen(items, table.main, most):
            cards = [_card(item, table, pictures, kind, row.run.id) for item in chosen]
            by = f", by {table.main.name}" if table.main and kind != "failed" else ""
            parts.append(_gallery(f"{row.name}: {kind}{by}", cards, few))
    return join(*parts)


def _chosen(items: Sequence[Item], main: Measure | None, most: int) -> Iterable[tuple[str, Sequence[Item]]]:
    """No item is among the best and the worst."""
    if main is not None:
        sign = 1 if main.better == "higher" else -1
        there = [(found, item) for item in items if not item.error and (found := value(main, item)) is not None]
        ranked = [item for _, item in sorted(there, key=lambda each: -sign * each[0])]
        many = min(most, (len(ranked) + 1) // 2)
        yield "best", ranked[:many]
        yield "worst", ranked[many:][-most:][::-1]
    yield "failed", [item for item in items if item.error][:most]


def _gallery(title: str, cards: Sequence[Html], opened: bool) -> Html | None:
    """A closed one shows how many items it has, and opens by hand or by a filter."""
    if not cards:
        return None
    many = element("small", "1 item" if len(cards) == 1 else f"{len(cards)} items")
    head = element("summary", element("h3", title, many))
    return element("details", head, element("div", cards, class_="cards"), class_="gallery", open=opened)


def _card(
    item: Item,
    table: Table,
    pictures: Pictures,
    kind: str,
    run: str,
    before: Item | None = None,
    by: float | None = None,
) -> Html:
    source = pictures.address(item.image)
    references = [element("li", _cut(each)) for each in item.references[:_MAX_REFERENCES]]
    measures = dict.fromkeys(column.measure for column in table.columns if column.batch is None)
    measures.pop(LATENCY_P95, None)  # of one item it is its latency
    scores = [
        element("div", element("dt", measure.name), element("dd", with_unit(found, measure.unit)))
        for measure in measures
        if (found := value(measure, item)) is not None
    ]
    return element(
        "article",
        element("img", src=source, alt=f"The image of {item.id}", loading="lazy") if source else None,
        element("p", "image not found", class_="quiet") if item.image and not source else None,
        element("p", element("code", item.id), f" {by:+.4f}" if by is not None else None, class_="id"),
        element("p", _cut(item.input), class_="input") if item.input else None,
        element("p", element("b", "before "), lit_text(before), class_="caption before") if before else None,
        element("p", element("b", "after ") if before else None, lit_text(item), class_="caption"),
        element("p", _cut(item.error), class_="error") if item.error else None,
        element("details", element("summary", _count(len(item.references))), element("ul", references))
        if references
        else None,
        element("dl", scores),
        class_="card",
        data_run=run,
        data_kind=kind,
        data_lit=bool(item.lit) or None,
    )


def lit_text(item: Item) -> Html:
    """The output with its trends marked; where spans overlap, the first counts."""
    output = item.output or ""
    parts, at = [], 0
    for lit in sorted(item.lit, key=lambda each: (each.start, -each.end)):
        if lit.start < at:
            continue
        parts.append(join(_cut(output[at : lit.start])))
        about = " · ".join(filter(None, (lit.phrase, lit.source)))
        words: str = output[lit.start : lit.end]
        if lit.url and lit.url.lower().startswith(("https://", "http://")):
            words = element("a", words, href=lit.url, rel="noopener noreferrer nofollow", target="_blank")
        parts.append(element("mark", words, title=about))
        at = lit.end
    return join(*parts, _cut(output[at:]) if output else element("i", "no output"))


def _count(references: int) -> str:
    return "1 reference" if references == 1 else f"{references} references"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def _made_with(table: Table) -> Html:
    runs = [
        element(
            "details",
            element("summary", row.name, " ", element("code", row.run.id)),
            element(
                "dl",
                element("div", element("dt", "created"), element("dd", f"{row.run.created_at:%Y-%m-%d %H:%M:%S} UTC")),
                [
                    element("div", element("dt", name), element("dd", said))
                    for name, said in facts(row.run.model_dump())
                ],
            ),
            data_run=row.run.id,
        )
        for row in table.rows
    ]
    return element("div", element("h3", "What the runs were made with"), runs, class_="made")
