"""How well the safety gate tells what may be offered: recall of unsafe topics, and safe ones wrongly withheld.

A case is a line of JSON: ``{"id", "phrase", "headlines", "language", "unsafe", "reason"}``. It passes through the same
gate as a live topic that was found as a search term with these headlines.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from evals.labelled import Record, wilson
from indexes.embedder import Embedder
from ingest.safety import Gate, Subject, Verdict, judge_subjects

CASES = Path(__file__).parent / "cases" / "safety.jsonl"


class Case(Record):
    id: str | int
    phrase: str
    headlines: tuple[str, ...] = ()
    language: str = "und"
    unsafe: bool
    reason: str | None = None


class Share(Record):
    """``hits`` of ``of``, with the interval of ``wilson``. ``value`` and the interval are None where ``of`` is 0."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


class Part(Record):
    """``recall`` of the unsafe, ``withheld`` of the safe."""

    name: str
    recall: Share
    withheld: Share


class CaseResult(Record):
    id: str | int
    unsafe: bool
    withheld: bool
    by: str | None
    reason: str | None
    term: str | None
    score: float | None


class SafetyReport(Record):
    cases: int
    note: str | None
    gate: Part
    baselines: tuple[Part, ...]
    languages: tuple[Part, ...]
    reasons: tuple[Part, ...]
    """Of the unsafe, by the reason that the case gives."""
    missed: tuple[CaseResult, ...]
    wrongly_withheld: tuple[CaseResult, ...]


def is_development(case: Case) -> bool:
    """Half of our own cases, by a hash of the id, serve development; figures are given for the other half."""
    return hashlib.sha256(str(case.id).encode()).digest()[0] % 2 == 0


def subject(case: Case) -> Subject:
    return Subject((case.phrase,), tuple(dict.fromkeys(case.headlines)), case.language, self_explaining=False)


def run(cases: Sequence[Case], gate: Gate, embedder: Embedder) -> SafetyReport:
    verdicts = judge_subjects([subject(case) for case in cases], gate, embedder)
    results = [_result(case, verdict) for case, verdict in zip(cases, verdicts, strict=True)]
    decided = {id(case): result.withheld for case, result in zip(cases, results, strict=True)}

    def by_gate(case: Case) -> bool:
        return decided[id(case)]

    return SafetyReport(
        cases=len(cases),
        note=gate.note,
        gate=_part("gate", cases, by_gate),
        baselines=_baselines(cases, gate),
        languages=_parts(cases, by_gate, lambda case: case.language),
        reasons=_parts([case for case in cases if case.unsafe], by_gate, lambda case: case.reason or "none given"),
        missed=tuple(result for result in results if result.unsafe and not result.withheld),
        wrongly_withheld=tuple(result for result in results if result.withheld and not result.unsafe),
    )


def _baselines(cases: Sequence[Case], gate: Gate) -> tuple[Part, ...]:
    """What one would reach with a profanity list alone, with strong terms alone, and with any term at all."""

    def found(case: Case, *, profanity: bool = False, hints: bool = False) -> bool:
        readings = (gate.vocabulary.read(text, case.language) for text in (case.phrase, *case.headlines))
        terms = [each for reading in readings for each in reading.found if each.strong or hints]
        return any(each.category == "profanity" for each in terms) if profanity else bool(terms)

    return (
        _part("profanity list", cases, lambda case: found(case, profanity=True)),
        _part("strong terms", cases, found),
        _part("any term", cases, lambda case: found(case, hints=True)),
    )


def _parts(cases: Sequence[Case], withheld: Callable[[Case], bool], key: Callable[[Case], str]) -> tuple[Part, ...]:
    names = sorted({key(case) for case in cases})
    return tuple(_part(name, [case for case in cases if key(case) == name], withheld) for name in names)


def _part(name: str, cases: Iterable[Case], withheld: Callable[[Case], bool]) -> Part:
    by_label: dict[bool, list[bool]] = {True: [], False: []}
    for case in cases:
        by_label[case.unsafe].append(withheld(case))
    return Part(name=name, recall=share(by_label[True]), withheld=share(by_label[False]))


def share(hits: Sequence[bool]) -> Share:
    n, found = len(hits), sum(hits)
    if not n:
        return Share(hits=0, of=0, value=None, low=None, high=None)
    low, high = wilson(found, n)
    return Share(hits=found, of=n, value=found / n, low=low, high=high)


def _result(case: Case, verdict: Verdict) -> CaseResult:
    return CaseResult(
        id=case.id,
        unsafe=case.unsafe,
        withheld=not verdict.allowed,
        by=verdict.by,
        reason=verdict.reason,
        term=verdict.term,
        score=verdict.score,
    )
