"""Trains the safety gate's classifier: ``python -m evals.safety_training``. numpy only; ten minutes of one idle
core, and 6 GB of memory.

Penalised logistic regression in its dual form (kernel logistic regression by Newton's method): with more features than
cases, n × n is the smaller system. Features, and what a case's instances are, come from ``ingest.safety_model``, so
that training and judging can't differ. Of an unsafe case with several headlines one is what makes it so: the riskiest
under the model of the round before stands for it.

Thresholds come from cross-validation by phrase, so that a phrase and its harmless twin are never on both sides. They
are set on the files that are not ``TWINNED``.
"""

import argparse
import base64
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evals.labelled import read_cases
from evals.safety import CASES, Case, is_development
from indexes.embedder import Embedder, Vectors, open_minilm
from indexes.embedding_cache import CachedEmbedder
from ingest.safety_model import (
    BUCKETS,
    Floats,
    Instance,
    fourier,
    hashed_features,
    kinds,
    rule_features,
    word_set,
)
from ingest.safety_rules import Vocabulary, words_of
from trendrag.settings import load_settings
from trendrag.text import normal_form

TWINNED = frozenset(
    {"french", "german", "italian", "lowlands", "quiet", "spanish", "trendlists", "wordplay"}
)  # files in TRAINING
"""Nearly all of their cases are twins: a phrase twice, told apart by one quiet or one loud headline. That teaches well,
but no day's trends are like that, and thresholds set on them would withhold a quarter of what is safe."""

TRAINING = Path(__file__).parent / "cases" / "safety-train"
WEIGHTS = Path(__file__).parent.parent / "ingest" / "safety_weights.json"

SCALES = {"joint": 6.0, "phrase": 4.0, "headline": 4.0, "words": 5.0, "letters": 4.0, "rules": 0.3, "curved rules": 3.0}
"""How much of the kernel each block is. Larger is freer."""

PENALTY = 1.0
FOLDS = 3
ROUNDS = 1
MISSED_WEIGHT = 0.08 / 0.03
"""The gate may miss 3 % of the unsafe and withhold 8 % of the safe: so much more a missed share weighs."""

BARE_WITHHELD = 0.05

FREQUENT = 512
"""Hashed features of more rows than this are multiplied as dense columns."""

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Matrix:
    """All instances of all cases. ``blocks`` are dense (n, size), ``hashed`` sparse rows; ``case`` is (n,)."""

    blocks: Mapping[str, Floats]
    hashed: Mapping[str, Sequence[Mapping[int, float]]]
    case: Ints
    strong: npt.NDArray[np.bool_]
    unsafe: npt.NDArray[np.bool_]
    """Both per case."""

    def kernel(self) -> npt.NDArray[np.float32]:
        """float32 (n, n): scaled inner products, and 1 for the bias."""
        n = len(self.case)
        total = np.ones((n, n), dtype=np.float32)
        for name, block in self.blocks.items():
            _add_products(total, SCALES[name], block.astype(np.float32))
        for name, sparse in self.hashed.items():
            _add_sparse_products(total, SCALES[name], sparse)
        return total

    def weights(self, dual: Floats, rows: Ints) -> dict[str, Floats]:
        """The linear weights that ``dual`` coefficients of ``rows`` stand for."""
        found = {name: SCALES[name] * (block[rows].T @ dual) for name, block in self.blocks.items()}
        for name, sparse in self.hashed.items():
            weights = np.zeros(BUCKETS)
            for row, amount in zip(rows.tolist(), dual.tolist(), strict=True):
                for bucket, value in sparse[row].items():
                    weights[bucket] += SCALES[name] * amount * value
            found[name] = weights
        found["bias"] = np.array([dual.sum()])
        return found


def _add_products(total: npt.NDArray[np.float32], scale: float, rows: npt.NDArray[np.float32]) -> None:
    """Adds ``scale`` × the inner products of all rows, a stripe at a time: a product of the whole would be a second
    matrix of gigabytes, of a size on which BLAS has been seen to crash."""
    for start in range(0, len(rows), 2048):
        stripe = slice(start, start + 2048)
        total[stripe] += np.float32(scale) * (rows[stripe] @ rows.T)


def _add_sparse_products(total: npt.NDArray[np.float32], scale: float, rows: Sequence[Mapping[int, float]]) -> None:
    """The same for hashed features. Most buckets are met in few rows: only what these have in common is added."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, values in enumerate(rows):
        for bucket in values:
            members[bucket].append(row)
    frequent = sorted(bucket for bucket, met in members.items() if len(met) > FREQUENT)
    for start in range(0, len(frequent), 2048):
        part = np.zeros((len(rows), len(frequent[start : start + 2048])), dtype=np.float32)
        for column, bucket in enumerate(frequent[start : start + 2048]):
            met = members.pop(bucket)
            part[met, column] = [rows[row][bucket] for row in met]
        _add_products(total, scale, part)
    for bucket, met in members.items():
        amounts = np.array([rows[row][bucket] for row in met], dtype=np.float32)
        total[np.ix_(met, met)] += np.float32(scale) * np.outer(amounts, amounts)


def matrix(cases: Sequence[Case], vocabulary: Vocabulary, embedder: Embedder) -> Matrix:
    instances = [
        (row, Instance.of(case.phrase, headline, case.language, vocabulary))
        for row, case in enumerate(cases)
        for headline in (case.headlines or (None,))
    ]
    texts = list(dict.fromkeys(text for _, each in instances for text in each.texts))
    rows = {text: row for row, text in enumerate(texts)}
    vectors: Vectors = embedder.embed(texts)
    n = len(instances)
    blocks: dict[str, Floats] = {}
    for kind in ("joint", "phrase", "headline"):
        has = [
            (i, rows[text])
            for i, (_, each) in enumerate(instances)
            for k, text in zip(kinds(each), each.texts, strict=True)
            if k == kind
        ]
        mapped = fourier(kind, vectors[[row for _, row in has]])
        block = np.zeros((n, mapped.shape[1]))
        block[[i for i, _ in has]] = mapped
        blocks[kind] = block
    blocks["rules"] = np.stack([rule_features(each, vocabulary) for _, each in instances])
    blocks["curved rules"] = fourier("curved rules", blocks["rules"])
    hashed = [hashed_features(each) for _, each in instances]
    strong = np.zeros(len(cases), dtype=np.bool_)
    for row, each in instances:
        strong[row] |= bool(each.phrase_reading.strong or each.headline_reading.strong)
    return Matrix(
        blocks,
        {"words": [words for words, _ in hashed], "letters": [letters for _, letters in hashed]},
        np.array([row for row, _ in instances]),
        strong,
        np.array([case.unsafe for case in cases]),
    )


def fit(kernel: npt.NDArray[np.float32], data: Matrix, cases: npt.NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """(dual coefficients, their rows) of a model trained on the instances of ``cases``, a mask."""
    inside = np.flatnonzero(cases[data.case])
    several = np.bincount(data.case, minlength=len(cases)) > 1
    doubtful = data.unsafe & several
    rows = inside[~doubtful[data.case[inside]]]
    dual = np.zeros(len(rows))
    for _ in range(ROUNDS):
        dual = _newton(kernel[np.ix_(rows, rows)], data.unsafe[data.case[rows]].astype(np.float64), dual)
        best: dict[int, tuple[float, int]] = {}
        for row in inside[doubtful[data.case[inside]]].tolist():
            score = float(kernel[row, rows] @ dual.astype(np.float32))
            best[int(data.case[row])] = max(best.get(int(data.case[row]), (-np.inf, -1)), (score, row))
        chosen = [row for _, row in best.values()]
        if not chosen:
            break
        before = dict(zip(rows.tolist(), dual.tolist(), strict=True))
        rows = np.sort(np.concatenate([inside[~doubtful[data.case[inside]]], np.array(chosen, dtype=np.int64)]))
        dual = np.array([before.get(row, 0.0) for row in rows.tolist()])
    return _newton(kernel[np.ix_(rows, rows)], data.unsafe[data.case[rows]].astype(np.float64), dual), rows


def _newton(kernel: npt.NDArray[np.float32], labels: Floats, start: Floats, steps: int = 6) -> Floats:
    """Minimises sum log(1 + exp(-±f)) + PENALTY/2 aᵀKa over a, with f = Ka."""
    dual = start
    for _ in range(steps):
        values = (kernel @ dual.astype(np.float32)).astype(np.float64)  # for float64 numpy would copy the kernel
        chance = 1 / (1 + np.exp(-values))
        weight = np.maximum(chance * (1 - chance), 1e-3)
        new = _solved(kernel, PENALTY / weight, values + (labels - chance) / weight, dual)
        if np.abs(new - dual).max() < 0.03:
            return new
        dual = new
    return dual


def _solved(kernel: npt.NDArray[np.float32], ridge: Floats, wanted: Floats, start: Floats) -> Floats:
    """x of (kernel + diag(ridge)) x = wanted, by conjugate gradients scaled with the diagonal; ``start`` is a guess.

    Far fewer than n steps are enough, since most of a smooth kernel's eigenvalues are small next to the ridge.
    """
    scale = 1 / (np.diag(kernel) + ridge)
    x = start.copy()
    rest = wanted - (kernel @ x.astype(np.float32) + ridge * x)
    step = scale * rest
    size = float(rest @ step)
    for _ in range(300):
        pushed = kernel @ step.astype(np.float32) + ridge * step
        length = size / float(step @ pushed)
        x += length * step
        rest -= length * pushed
        scaled = scale * rest
        before, size = size, float(rest @ scaled)
        if np.abs(scaled).max() < 1e-3:
            break
        step = scaled + (size / before) * step
    return x


def folds(cases: Sequence[Case]) -> Ints:
    digests = (hashlib.sha256(normal_form(case.phrase).encode()).digest() for case in cases)
    return np.array([digest[1] % FOLDS for digest in digests])


def cross_validated(kernel: npt.NDArray[np.float32], data: Matrix, fold: Ints) -> Floats:
    """Each case's highest log-odds under a model that has not seen its phrase; (cases,)."""
    scores = np.full(len(fold), -np.inf)
    for number in range(FOLDS):
        dual, rows = fit(kernel, data, fold != number)
        outside = np.flatnonzero(fold[data.case] == number)
        np.maximum.at(scores, data.case[outside], kernel[np.ix_(outside, rows)] @ dual.astype(np.float32))
    return scores


class Thresholds(NamedTuple):
    """As in ``ingest.safety_model.Weights``."""

    threshold: float
    bare: float
    sure: float

    def withheld(self, scores: Floats, strong: Mask, bare: Mask) -> Mask:
        least = np.where(bare, self.bare, self.threshold)
        return np.asarray((scores >= least) | (strong & (scores >= self.sure)), dtype=np.bool_)


def thresholds(scores: Floats, strong: Mask, bare: Mask, unsafe: Mask) -> Thresholds:
    """From scores that are cross-validated; ``bare`` cases have no headline.

    With headlines MISSED_WEIGHT × missed share of the unsafe + withheld share of the safe is least. Without any, little
    speaks for harm, and most such phrases are everyday ones: there no more than BARE_WITHHELD of the safe are withheld.
    """
    best = (np.inf, 0.0, 0.0)
    news, bad = scores[~bare], unsafe[~bare]
    for sure in np.arange(-5.0, 0.1, 0.25).tolist():
        for threshold in np.arange(max(sure, -4.0), 2.1, 0.05).tolist():
            withheld = (strong[~bare] & (news >= sure)) | (news >= threshold)
            missed, wrong = float((~withheld)[bad].mean()), float(withheld[~bad].mean())
            best = min(best, (MISSED_WEIGHT * missed + wrong, threshold, sure))
    _, threshold, sure = best
    alone = np.sort(np.where(strong & (scores >= sure), np.inf, scores)[bare & ~unsafe])
    least = alone[int(np.ceil((1 - BARE_WITHHELD) * len(alone))) :]
    return Thresholds(threshold, float(least[0]) if len(least) else threshold, sure)


def known_words(cases: Iterable[Case]) -> set[str]:
    """Words that are said in lower case, so that they are no names; and those of harmless phrases without headlines."""
    found: set[str] = set()
    for case in cases:
        texts = [*case.headlines] if case.headlines else ([] if case.unsafe else [case.phrase])
        for text in texts:
            found.update(
                word for raw in text.split() if raw[:1].islower() or not case.headlines for word in words_of(raw)
            )
    return found


def _packed(blocks: Mapping[str, Floats]) -> dict[str, dict[str, Any]]:
    packed: dict[str, dict[str, Any]] = {}
    for name, weights in blocks.items():
        scale = float(np.abs(weights).max()) / 127 or 1.0
        data = np.round(weights / scale).astype(np.int8).tobytes()
        packed[name] = {"scale": scale, "int8": base64.b64encode(data).decode()}
    return packed


def training_files() -> dict[str, str]:
    """Name → SHA-256 of each file of training cases."""
    files = [*sorted(TRAINING.glob("*.jsonl")), CASES]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def training_cases() -> tuple[list[Case], Mask]:
    """Those of ``safety-train`` and the development half of our own, without any that has a phrase of the test half;
    and which of them set the thresholds."""
    own = read_cases(CASES, Case)
    test = {normal_form(case.phrase) for case in own if not is_development(case)}
    read = [(case, file.stem) for file in sorted(TRAINING.glob("*.jsonl")) for case in read_cases(file, Case)]
    read += [(case, CASES.stem) for case in own if is_development(case)]
    kept = [(case, name) for case, name in read if normal_form(case.phrase) not in test]
    return [case for case, _ in kept], np.array([name not in TWINNED for _, name in kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--scores", type=Path, help="write each case's cross-validated score here (.npz)")
    arguments = parser.parse_args()
    settings = load_settings()
    embedder = open_minilm(settings.models_dir)
    cases, ordinary = training_cases()
    vocabulary = Vocabulary.built_in()
    data = matrix(cases, vocabulary, CachedEmbedder(embedder, settings.data_dir / "cache" / "embeddings.sqlite3"))
    kernel = data.kernel()
    scores = cross_validated(kernel, data, folds(cases))
    bare = np.array([not case.headlines for case in cases])
    if arguments.scores:
        ids = [str(case.id) for case in cases]
        np.savez(arguments.scores, ids=ids, scores=scores, unsafe=data.unsafe, strong=data.strong, bare=bare)
    found = thresholds(scores[ordinary], data.strong[ordinary], bare[ordinary], data.unsafe[ordinary])
    withheld = found.withheld(scores, data.strong, bare)
    figures = {
        name: {
            "cases": int(part.sum()),
            "unsafe": int(data.unsafe[part].sum()),
            "recall": round(float(withheld[part & data.unsafe].mean()), 4),
            "withheld_safe": round(float(withheld[part & ~data.unsafe].mean()), 4),
        }
        for name, part in (("ordinary", ordinary), ("twinned", ~ordinary))
    }
    dual, rows = fit(kernel, data, np.ones(len(cases), dtype=np.bool_))
    document = {
        "about": "The safety gate's classifier; made by `python -m evals.safety_training`.",
        "embedder": {"name": embedder.name, "sha256": embedder.sha256, "dim": embedder.dim},
        "training": {"files": training_files(), "vocabulary": vocabulary.digest, "cross_validation": figures},
        **{name: round(value, 4) for name, value in found._asdict().items()},
        "known_words": base64.b64encode(zlib.compress(word_set(known_words(cases)), 9)).decode(),
        "blocks": _packed(data.weights(dual, rows)),
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(json.dumps(figures), found, arguments.output.stat().st_size)  # noqa: T201  (a script)


if __name__ == "__main__":
    main()
