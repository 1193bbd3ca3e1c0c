"""How well the highlighter marks trends: precision, recall and F1 of exact spans, and whether chunking changes them.

A case is a line of JSON: ``{"id", "caption", "trends": [{"id", "phrase", "aliases"}], "expected": [{"start", "end",
"id"}]}``, with offsets in code points. A span counts as found only if start, end and trend id all agree.
"""

import itertools
import random
from collections.abc import Iterable, Sequence

from evals.labelled import Record
from trendrag.highlight import Highlighter, Span, find_spans

SEED = 7
CHUNKINGS = 5
"""Each case is also read in so many random chunkings, the first of them one code point at a time."""


class CaseTrend(Record):
    id: str
    phrase: str
    aliases: tuple[str, ...] = ()


class CaseSpan(Record):
    start: int
    end: int
    id: str


class Case(Record):
    id: str | int
    caption: str
    trends: tuple[CaseTrend, ...]
    expected: tuple[CaseSpan, ...]


class CaseResult(Record):
    """What differs: ``missing`` spans were expected, ``unexpected`` ones were not; ``stable`` whatever the chunks."""

    id: str | int
    passed: bool
    stable: bool
    found: tuple[CaseSpan, ...]
    missing: tuple[CaseSpan, ...]
    unexpected: tuple[CaseSpan, ...]


class HighlightReport(Record):
    """Over spans of all cases: precision and recall in [0, 1], 1 where there was nothing to find or nothing found."""

    cases: int
    passed: int
    unstable: int
    precision: float
    recall: float
    f1: float
    results: tuple[CaseResult, ...]


def run(cases: Iterable[Case]) -> HighlightReport:
    rng = random.Random(SEED)  # noqa: S311  (chunkings, no secrets)
    results = tuple(_run_case(case, rng) for case in cases)
    found = sum(len(result.found) for result in results)
    missing = sum(len(result.missing) for result in results)
    right = found - sum(len(result.unexpected) for result in results)
    precision = right / found if found else 1.0
    recall = right / (right + missing) if right + missing else 1.0
    return HighlightReport(
        cases=len(results),
        passed=sum(result.passed for result in results),
        unstable=sum(not result.stable for result in results),
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        results=results,
    )


def _run_case(case: Case, rng: random.Random) -> CaseResult:
    trends = [(trend.id, (trend.phrase, *trend.aliases)) for trend in case.trends]
    whole = find_spans(case.caption, trends)
    length = len(case.caption)
    chunkings = [list(range(length + 1))] + [
        [0, *sorted(rng.randint(0, length) for _ in range(rng.randint(0, 12))), length] for _ in range(CHUNKINGS - 1)
    ]
    stable = all(_in_chunks(case.caption, edges, trends) == whole for edges in chunkings)
    found = tuple(CaseSpan(start=span.start, end=span.end, id=span.trend_id) for span in whole)
    missing = tuple(span for span in case.expected if span not in found)
    unexpected = tuple(span for span in found if span not in case.expected)
    passed = stable and not missing and not unexpected
    return CaseResult(id=case.id, passed=passed, stable=stable, found=found, missing=missing, unexpected=unexpected)


def _in_chunks(caption: str, edges: Sequence[int], trends: Sequence[tuple[str, Sequence[str]]]) -> list[Span]:
    highlighter = Highlighter(trends)
    spans: list[Span] = []
    for start, end in itertools.pairwise(edges):
        spans += highlighter.feed(caption[start:end])
    return spans + highlighter.close()
