"""The curves of a score report as one small SVG: bursts found against false alarms, readable on light and dark."""

import math
from collections.abc import Callable
from html import escape

from evals.score import CURVE, CurvePoint, MethodResult, ScoreReport

_WIDTH, _HEIGHT = 330, 220
_LEFT, _TOP, _GAP = 45, 34, 55
_TOTAL = f"{_LEFT + 2 * _WIDTH + _GAP + 20} {_TOP + _HEIGHT + 50}"
_COLOURS = ("#2f81f7", "#d97706", "#8b949e")
_STYLE = (
    "text{font:12px sans-serif;fill:#57606a}.axis{stroke:#8b949e}.grid{stroke:#8b949e;opacity:.25}"
    "polyline{fill:none;stroke-width:2.5}@media(prefers-color-scheme:dark){text{fill:#b1bac4}}"
)


def plot(report: ScoreReport) -> str:
    """Two panels, found within 6 and within 24 hours; x: false alarms a day (logarithmic), y: the share of bursts."""
    panels = _panel(report, _LEFT, "Bursts found within 6 hours", lambda point: point.soon)
    panels += _panel(report, _LEFT + _WIDTH + _GAP, "… within 24 hours", lambda point: point.day)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_TOTAL}" role="img"'
        f' aria-label="Share of bursts found against false alarms a day"><style>{_STYLE}</style>\n{panels}</svg>\n'
    )


def _panel(report: ScoreReport, left: int, title: str, share: Callable[[CurvePoint], float]) -> str:
    bottom = _TOP + _HEIGHT
    parts = [f'<text x="{left}" y="{_TOP - 14}">{escape(title)}</text>']
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - part * _HEIGHT
        parts.append(f'<line class="grid" x1="{left}" x2="{left + _WIDTH}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:g}" text-anchor="end">{part:.0%}</text>')
    parts += [
        f'<text x="{_x(left, value):.0f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>' for value in CURVE
    ]
    parts.append(f'<line class="axis" x1="{left}" x2="{left + _WIDTH}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{left + _WIDTH / 2:g}" y="{bottom + 36}" text-anchor="middle">false alarms a day</text>')
    parts += [_line(left, method, number, share) for number, method in enumerate(report.methods)]
    return "\n".join(parts) + "\n"


def _line(left: int, method: MethodResult, number: int, share: Callable[[CurvePoint], float]) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    spots = " ".join(
        f"{_x(left, point.false_alarms):.0f},{_TOP + _HEIGHT * (1 - share(point)):.0f}" for point in method.curve
    )
    legend = _TOP + 16 + 17 * number
    return (
        f'<polyline points="{spots}" stroke="{colour}"/>'
        f'<line x1="{left + 10}" x2="{left + 28}" y1="{legend - 4}" y2="{legend - 4}" stroke="{colour}"'
        f' stroke-width="2.5"/><text x="{left + 34}" y="{legend}">{escape(method.method)}</text>'
    )


def _x(left: int, false_alarms: float) -> float:
    return left + _WIDTH * math.log(false_alarms / CURVE[0]) / math.log(CURVE[-1] / CURVE[0])
