"""How well names of one topic are told from names of two: our rule against three simple ones, on labelled pairs.

A case is a line of JSON: ``{"id", "a": {"names", "headlines", "language", "kind"}, "b": {…}, "same", "split", "why"}``.
The test split was written before the rule and is not looked at while tuning; thresholds are the best of the dev split.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import sqrt

from evals.labelled import Quality, Record, Split, quality
from indexes.embedder import Embedder
from ingest.observation import joined_form
from ingest.phrases import without_qualifier
from ingest.same import Named, reason
from trendrag.text import normal_form

YEAR = 2026
"""In which the cases' names were said."""


class CaseName(Record):
    names: tuple[str, ...]
    headlines: tuple[str, ...] = ()
    language: str = "und"
    kind: str = "phrase"


class MergeCase(Record):
    id: str | int
    a: CaseName
    b: CaseName
    same: bool
    split: Split = "test"
    why: str = ""


class MergeResult(Record):
    """``reason`` is the rule by which ours calls the two the same, None where it doesn't."""

    id: str | int
    split: Split
    same: bool
    reason: str | None

    @property
    def passed(self) -> bool:
        return self.same == (self.reason is not None)


class MethodResult(Record):
    """``threshold`` is the best on dev, None for a method without one; ``dev`` and ``test`` are None without cases."""

    method: str
    threshold: float | None
    dev: Quality | None
    test: Quality | None


class MergeReport(Record):
    cases: int
    methods: tuple[MethodResult, ...]
    results: tuple[MergeResult, ...]


Likeness = Callable[[MergeCase], float]


def named(name: CaseName) -> Named:
    said = [without_qualifier(each)[0] if name.kind == "article" else each for each in name.names]
    return Named.of(joined_form(said[0]), said, name.headlines, YEAR)


def run(cases: Iterable[MergeCase], embedder: Embedder | None = None) -> MergeReport:
    """Without an ``embedder`` the method that compares embeddings is left out."""
    cases = list(cases)
    results = tuple(
        MergeResult(id=case.id, split=case.split, same=case.same, reason=reason(named(case.a), named(case.b)))
        for case in cases
    )
    ours = [result.reason is not None for result in results]
    methods = [
        _method("TrendRAG", None, cases, ours),
        _method("normal form", None, cases, [_normal_forms(case) == 1.0 for case in cases]),
        _best("words", cases, [_jaccard(case) for case in cases]),
        _best("trigrams", cases, [_trigrams(case) for case in cases]),
    ]
    if embedder is not None:
        methods.append(_best("embedding", cases, _cosines(cases, embedder)))
    return MergeReport(cases=len(cases), methods=tuple(methods), results=results)


def _best(name: str, cases: Sequence[MergeCase], likeness: Sequence[float]) -> MethodResult:
    """At the threshold of the highest F1 on dev, or on all cases where no case is of dev."""
    dev = [number for number, case in enumerate(cases) if case.split == "dev"] or list(range(len(cases)))

    def f1(threshold: float) -> float:
        return quality((likeness[number] >= threshold, cases[number].same) for number in dev).f1

    threshold = max(sorted({likeness[number] for number in dev if likeness[number] > 0}), key=f1, default=1.0)
    return _method(name, threshold, cases, [each >= threshold for each in likeness])


def _method(name: str, threshold: float | None, cases: Sequence[MergeCase], said: Sequence[bool]) -> MethodResult:
    parts = {}
    for split in ("dev", "test"):
        pairs = [(each, case.same) for each, case in zip(said, cases, strict=True) if case.split == split]
        parts[split] = quality(pairs) if pairs else None
    return MethodResult(method=name, threshold=threshold, dev=parts["dev"], test=parts["test"])


def _normal_forms(case: MergeCase) -> float:
    return float(bool(set(map(joined_form, case.a.names)) & set(map(joined_form, case.b.names))))


def _jaccard(case: MergeCase) -> float:
    first, second = (set(normal_form(" ".join(name.names)).split()) for name in (case.a, case.b))
    return len(first & second) / len(first | second) if first | second else 0.0


def _trigrams(case: MergeCase) -> float:
    """The cosine of counts of three letters in a row."""
    first, second = (_grams(normal_form(name.names[0])) for name in (case.a, case.b))
    both = sum(count * second[gram] for gram, count in first.items())
    size = sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))
    return both / size if size else 0.0


def _grams(form: str) -> Counter[str]:
    padded = f" {form} "
    return Counter(padded[start : start + 3] for start in range(len(padded) - 2))


def _cosines(cases: Sequence[MergeCase], embedder: Embedder) -> list[float]:
    first = embedder.embed([case.a.names[0] for case in cases])
    second = embedder.embed([case.b.names[0] for case in cases])
    return [float(a @ b) for a, b in zip(first, second, strict=True)]
