"""How well a headline's phrase is found: of the phrases given the share that is right, and for how many headlines.

A case is a line of JSON: ``{"id", "headline", "language", "phrases", "none_is_right", "split"}``. ``phrases`` are those
that would do; without one the headline must give none. The test split was written before the rules.
"""

from collections.abc import Iterable

from evals.labelled import Record, Share, Split, share
from ingest.headlines import own_phrase
from ingest.observation import joined_form


class PhraseCase(Record):
    id: str | int
    headline: str
    language: str = "und"
    phrases: tuple[str, ...] = ()
    none_is_right: bool = False
    split: Split = "test"


class PhraseResult(Record):
    id: str | int
    split: Split
    phrase: str | None
    passed: bool


class PhraseQuality(Record):
    """``precision``: of the phrases given, those that would do. ``coverage``: of the headlines that have one, those
    that gave a right one. ``silence``: of the headlines that have none, those that gave none."""

    precision: Share
    coverage: Share
    silence: Share


class PhraseReport(Record):
    cases: int
    dev: PhraseQuality | None
    test: PhraseQuality | None
    results: tuple[PhraseResult, ...]


def run(cases: Iterable[PhraseCase]) -> PhraseReport:
    cases = list(cases)
    pairs = [(case, _result(case)) for case in cases]
    parts = {split: [pair for pair in pairs if pair[0].split == split] for split in ("dev", "test")}
    return PhraseReport(
        cases=len(cases),
        dev=_quality(parts["dev"]) if parts["dev"] else None,
        test=_quality(parts["test"]) if parts["test"] else None,
        results=tuple(result for _, result in pairs),
    )


def _result(case: PhraseCase) -> PhraseResult:
    phrase = own_phrase(case.headline, case.language)
    none_is_right = case.none_is_right or not case.phrases
    passed = none_is_right if phrase is None else joined_form(phrase) in set(map(joined_form, case.phrases))
    return PhraseResult(id=case.id, split=case.split, phrase=phrase, passed=passed)


def _quality(pairs: list[tuple[PhraseCase, PhraseResult]]) -> PhraseQuality:
    given = [result.passed for _, result in pairs if result.phrase is not None]
    wanted = [
        result.passed and result.phrase is not None
        for case, result in pairs
        if case.phrases and not (case.none_is_right and result.phrase is None)
    ]
    silent = [result.phrase is None for case, result in pairs if not case.phrases]
    return PhraseQuality(
        precision=share(sum(given), len(given)),
        coverage=share(sum(wanted), len(wanted)),
        silence=share(sum(silent), len(silent)),
    )
