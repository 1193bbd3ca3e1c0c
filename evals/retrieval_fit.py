"""Fits the coefficients of ``indexes.relevance`` on the cases "tune", and shows what each threshold would give.

    python -m evals.retrieval_fit

Pairs are each query with the ``PAIRS`` trends that rank highest by an even mix of the signals; one is positive where
the labels grade it. Logistic regression with an L2 penalty on standardised signals, by Newton's method. The table below
the coefficients is cross-validated over queries: each one's probabilities come from a fit without its fold.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from evals.measures.ndcg import ndcg
from evals.retrieval import Cases, K, offered, read_cases
from indexes.concepts import Concepts, make_concepts
from indexes.embedder import Embedder, open_embedder
from indexes.relevance import distinct
from indexes.retriever import LOOKED_AT
from indexes.snapshot import Snapshot
from indexes.table import Table
from trendrag.settings import Settings, load_settings

PAIRS = 12
FOLDS = 8
PENALTY = 1.0
_Array = npt.NDArray[np.float64]


def main() -> None:
    settings = load_settings()
    embedder = open_embedder(settings)
    cases = read_cases(Path(__file__).parent / "cases" / "retrieval" / "tune")
    concepts = make_concepts(embedder, settings.models_dir)
    for name, given in (("WITH_CONCEPTS", concepts), ("WITHOUT_CONCEPTS", None)):
        _show(name, cases, settings, embedder, given)


def _show(name: str, cases: Cases, settings: Settings, embedder: Embedder, concepts: Concepts | None) -> None:
    snapshot, case_of = offered(cases, settings, embedder)
    table = Table(snapshot, concepts)
    found = [table.signals(query.description, embedder) for query in cases.queries]
    signals = np.array(
        [[each.cosine, each.lexical, *([each.bridge] if each.bridge is not None else [])] for each in found]
    ).transpose(0, 2, 1)  # (queries, trends, signals)
    grades = _grades(cases, snapshot, case_of)
    bias, slopes = fit(*_pairs(signals, grades, range(len(grades))))
    click.echo(f"{name}: bias={bias:.2f} " + " ".join(f"{slope:.2f}" for slope in slopes))
    chances = np.zeros(grades.shape)
    for fold in range(FOLDS):
        inside = [at for at in range(len(grades)) if at % FOLDS != fold]
        bias, slopes = fit(*_pairs(signals, grades, inside))
        chances[fold::FOLDS] = probability(signals[fold::FOLDS], bias, slopes)
    gains = np.zeros(len(grades))
    some = np.array([bool(query.relevant) for query in cases.queries])
    for at in np.flatnonzero(some).tolist():
        order = np.argsort(-chances[at], kind="stable")[: LOOKED_AT * K].tolist()
        kept = distinct(order, snapshot.trends, table.vectors_of(order), K)
        gains[at] = ndcg([float(grades[at, row]) for row in kept], _ideal(cases, at), K)
    best = chances.max(axis=1)
    click.echo("  threshold  nDCG@5  abstention precision  recall")
    for threshold in (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3):
        empty = best < threshold
        right = int((empty & ~some).sum())
        click.echo(
            f"  {threshold:9.2f}  {np.where(empty, 0, gains)[some].mean():6.3f}  "
            f"{right / max(int(empty.sum()), 1):20.2f}  {right / int((~some).sum()):6.2f}"
        )


def fit(pairs: _Array, positive: _Array) -> tuple[float, _Array]:
    """Bias and slopes for (pairs, signals) as they are, from (pairs,) of 0 and 1."""
    mean, spread = pairs.mean(axis=0), pairs.std(axis=0)
    design = np.column_stack([np.ones(len(pairs)), (pairs - mean) / spread])
    penalty = np.diag([0.0, *[PENALTY] * len(mean)])
    weights = np.zeros(design.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-design @ weights))
        hessian = (design * (chance * (1 - chance))[:, np.newaxis]).T @ design + penalty
        weights += np.linalg.solve(hessian, design.T @ (positive - chance) - penalty @ weights)
    slopes = weights[1:] / spread
    return float(weights[0] - slopes @ mean), slopes


def probability(signals: _Array, bias: float, slopes: _Array) -> _Array:
    return np.asarray(1 / (1 + np.exp(-(bias + signals @ slopes))))


def _pairs(signals: _Array, grades: _Array, queries: Sequence[int]) -> tuple[_Array, _Array]:
    spread = signals.reshape(-1, signals.shape[-1]).std(axis=0)
    picked = {at: np.argsort(-(signals[at] / spread).sum(axis=1), kind="stable")[:PAIRS] for at in queries}
    pairs = np.concatenate([signals[at][rows] for at, rows in picked.items()])
    return pairs, np.concatenate([grades[at][rows] > 0 for at, rows in picked.items()]).astype(np.float64)


def _grades(cases: Cases, snapshot: Snapshot, case_of: Mapping[str, str]) -> _Array:
    """(queries, trends of the snapshot): 0, 1 or 2."""
    root = {trend.id: trend.dup_of or trend.id for trend in cases.trends}
    rows = [root[case_of[trend.id]] for trend in snapshot.trends]
    graded = [{root[id_]: grade for id_, grade in query.relevant.items()} for query in cases.queries]
    return np.array([[each.get(row, 0) for row in rows] for each in graded], dtype=np.float64)


def _ideal(cases: Cases, at: int) -> list[float]:
    return [float(grade) for grade in cases.queries[at].relevant.values()]


if __name__ == "__main__":
    main()
