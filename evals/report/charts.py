"""The report's charts, as SVG within the page; colours are the page's."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evals.bootstrap import Mean
from evals.report.markdown import number
from evals.report.markup import Html, element

_WIDTH = 460
_LABEL = 170
_ROW = 24
_NAME_CHARS = 22


class Point(NamedTuple):
    name: str
    run: str
    mean: Mean
    latency: float


def intervals(title: str, rows: Sequence[tuple[str, str, Mean]]) -> Html:
    """Dots with whiskers, of (name, id of the run, mean), one below the other."""
    low, high = _padded(min(mean.low for *_, mean in rows), max(mean.high for *_, mean in rows))
    height = _ROW * len(rows) + 34

    def x(value: float) -> float:
        return _LABEL + 8 + (_WIDTH - _LABEL - 28) * (value - low) / (high - low)

    parts = []
    for place, (name, run, mean) in enumerate(rows):
        y = 10 + _ROW * place + _ROW / 2
        parts.append(
            element(
                "g",
                element(
                    "title", f"{name}: {number(mean.value)} [{number(mean.low)}, {number(mean.high)}], n = {mean.n}"
                ),
                element("text", _cut(name), x=float(_LABEL - 10), y=y + 4, text_anchor="end"),
                element("line", x1=x(mean.low), x2=x(mean.high), y1=y, y2=y, class_="whisker"),
                element("circle", cx=x(mean.value), cy=y, r=5.0, class_="dot"),
                data_run=run,
            )
        )
    return _figure(title, height, [*_axis(low, high, x, height), *parts])


def scatter(measure: str, points: Sequence[Point]) -> Html:
    """Quality, with its interval, against the median latency in seconds."""
    height, left, bottom = 300, 64, 44
    top = max(point.latency for point in points) * 1.15 or 1.0
    low, high = _padded(min(each.mean.low for each in points), max(each.mean.high for each in points))

    def x(value: float) -> float:
        return left + (_WIDTH - left - 24) * value / top

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (1 - (value - low) / (high - low))

    parts = [
        element("line", x1=float(left), x2=float(_WIDTH), y1=y(low), y2=y(low), class_="axis"),
        element("line", x1=float(left), x2=float(left), y1=10.0, y2=y(low), class_="axis"),
        element("text", "median latency, s", x=float(_WIDTH), y=height - 6.0, text_anchor="end"),
    ]
    parts += [
        element("text", number(tick), x=left - 8.0, y=y(tick) + 4, text_anchor="end")
        for tick in (low, (low + high) / 2, high)
    ]
    parts += [
        element("text", number(tick), x=x(tick), y=height - bottom + 18.0, text_anchor="middle")
        for tick in (0.0, top / 2, top)
    ]
    for place, point in enumerate(sorted(points, key=lambda each: each.latency)):
        at = x(point.latency)
        before = at > _WIDTH * 0.6
        parts.append(
            element(
                "g",
                element("title", f"{point.name}: {number(point.mean.value)} at {number(point.latency)} s"),
                element("line", x1=at, x2=at, y1=y(point.mean.low), y2=y(point.mean.high), class_="whisker"),
                element("circle", cx=at, cy=y(point.mean.value), r=5.0, class_="dot"),
                element(
                    "text",
                    _cut(point.name),
                    x=at + (-9.0 if before else 9.0),
                    # Neighbours' names keep apart, and above the axis.
                    y=min(y(point.mean.value) + (16 if place % 2 else -8), y(low) - (22 if place % 2 else 8)),
                    text_anchor="end" if before else "start",
                ),
                data_run=point.run,
            )
        )
    return _figure(f"{measure} against latency", height, parts)


def lengths(name: str, run: str, words: Sequence[int], longest: int) -> Html:
    """A histogram of words an output; ``longest`` is that of all histograms that stand beside it."""
    bins = 20
    step = max(1, -(-(longest + 1) // bins))
    counts = [0] * (longest // step + 1)
    for each in words:
        counts[each // step] += 1
    height, base = 130, 104
    wide = (_WIDTH / 2 - 20) / len(counts)
    bars = [
        element(
            "g",
            element("title", f"{place * step} to {place * step + step - 1} words: {count}"),
            element(
                "rect",
                x=10 + place * wide,
                y=base - 90 * count / max(counts),
                width=max(1.0, wide - 1),
                height=90 * count / max(counts),
                class_="bar",
            ),
        )
        for place, count in enumerate(counts)
        if count
    ]
    middle = sorted(words)[len(words) // 2]
    axis = [
        element("line", x1=10.0, x2=_WIDTH / 2 - 10, y1=float(base), y2=float(base), class_="axis"),
        element("text", "0", x=10.0, y=base + 18.0),
        element("text", f"{len(counts) * step - 1} words", x=_WIDTH / 2 - 10, y=base + 18.0, text_anchor="end"),
    ]
    title = f"{name}: median {middle} words, n = {len(words)}"
    return _figure(title, height, [*axis, *bars], width=_WIDTH // 2, run=run)


def _axis(low: float, high: float, x: Callable[[float], float], height: int) -> list[Html]:
    y = height - 22.0
    parts = [element("line", x1=x(low), x2=x(high), y1=y, y2=y, class_="axis")]
    for tick in (low, (low + high) / 2, high):
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=8.0, y2=y, class_="grid"))
        parts.append(element("text", number(tick), x=x(tick), y=y + 17, text_anchor="middle"))
    return parts


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 0.1)
    # Where nothing is below 0, neither is the axis.
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 1] + "…"


def _figure(title: str, height: int, parts: Sequence[Html], width: int = _WIDTH, run: str | None = None) -> Html:
    drawing = element("svg", parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=title)
    return element("figure", element("figcaption", title), drawing, data_run=run)
