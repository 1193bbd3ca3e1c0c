"""What a run's items come to, and how far that can be trusted: a figure, its 95% interval and n; two runs, paired.

Percentile bootstrap over items (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): items are
drawn with replacement and the figure is made of each draw, corpus measures (BLEU, F1) as a whole (Koehn, "Statistical
significance tests for machine translation evaluation", EMNLP 2004). For a difference both runs get the same draws. A
draw is a vector of how often each item was drawn, so that the sums of many draws are one product of matrices.

The seed is fixed: equal items give equal intervals. The statistics of CIDEr's references are those of the whole run in
every draw.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evals.bootstrap import RESAMPLES, SEED, Mean
from evals.record import Item, Measure
from trendrag.errors import RequestError

Array = NDArray[np.float64]

MIN_ITEMS = 10
"""Below that nothing is said to differ: the percentiles of so few items' draws are far too narrow."""

WORDS = Measure(name="words", better=None, about="words of the output; a caption measure means little without them")
LATENCY = Measure(name="latency", better="lower", unit="s", how="p50", about="of the whole call, in the middle")
LATENCY_P95 = Measure(name="latency p95", better="lower", unit="s", how="p95")
FIRST_TOKEN = Measure(name="first token", better="lower", unit="s", how="p50")
COMPLETION = Measure(name="tokens out", better=None)
OBSERVED = (WORDS, LATENCY, LATENCY_P95, FIRST_TOKEN, COMPLETION)
"""What every run has whose items hold outputs and times, without its task saying so."""

_DRAWN_AT_ONCE = 4_000_000  # numbers, 32 MB
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def measures(items: Sequence[Item], named: Iterable[Measure]) -> tuple[Measure, ...]:
    """The measures that a run names, then those of OBSERVED that its items have anything of."""
    named = tuple(named)
    taken = {measure.name for measure in named}
    # Words are figures of what a model wrote, and not of a list of hits or a "yes".
    asked = any(item.latency_s is not None for item in items)
    observed = (each for each in OBSERVED if each.name not in taken and (asked or each is not WORDS))
    return (*named, *(each for each in observed if any(row(each, item) is not None for item in items)))


def row(measure: Measure, item: Item) -> tuple[float, ...] | None:
    """What the item brings to the measure; None where it brings nothing."""
    if measure.how in _CORPUS:
        return item.counts.get(measure.key)
    value = item.scores.get(measure.name)
    if value is None and measure in OBSERVED:
        value = _OBSERVE[measure.name](item)
    return None if value is None else (value,)


def value(measure: Measure, item: Item) -> float | None:
    """The measure of this item alone, by which items are ranked and shown; None where it says nothing of it."""
    found = row(measure, item)
    if found is None:
        return None
    if measure.how not in _CORPUS:
        return found[0]
    alone = float(_CORPUS[measure.how](np.asarray([found]))[0])
    return alone if np.isfinite(alone) else None


def figure(measure: Measure, items: Iterable[Item]) -> Mean | None:
    """Over the items that bring anything to it; None where none does, or the figure is undefined, as 0 / 0.

    The interval of a single item is its value: it says nothing.
    """
    rows = [found for item in items if (found := row(measure, item)) is not None]
    if not rows:
        return None
    data = np.asarray(rows, dtype=np.float64)
    whole = float(_of(measure, data))
    if not np.isfinite(whole):
        return None
    return _interval(whole, _draws(measure, data), _telling(measure, data))


def difference(measure: Measure, pairs: Sequence[tuple[Item, Item]]) -> Mean | None:
    """Of (before, after) pairs of one case each: the figure after less the figure before, over the pairs of which both
    bring something. None where there is no such pair."""
    both = [(old, new) for one, other in pairs if (old := row(measure, one)) and (new := row(measure, other))]
    if not both:
        return None
    before, after = (np.asarray(rows, dtype=np.float64) for rows in zip(*both, strict=True))
    whole = float(_of(measure, after)) - float(_of(measure, before))
    if not np.isfinite(whole):
        return None
    n = min(_telling(measure, before), _telling(measure, after))
    return _interval(whole, _draws(measure, after) - _draws(measure, before), n)


def differs(change: Mean) -> bool:
    """Whether the interval leaves out 0, of items enough to say so."""
    return change.n >= MIN_ITEMS and (change.low > 0 or change.high < 0)


def paired(before: Sequence[Item], after: Sequence[Item]) -> list[tuple[Item, Item]]:
    """The items of two runs, by case, in the order of ``before``.

    Raises:
        RequestError: they are not over the same cases, and how they differ.
    """
    news = {item.id: item for item in after}
    olds = {item.id for item in before}
    gone, new = [item.id for item in before if item.id not in news], [each for each in news if each not in olds]
    if gone or new:
        parts = [f"{len(ids)} only in {run} ({_some(ids)})" for run, ids in (("A", gone), ("B", new)) if ids]
        raise RequestError(
            f"The runs are not over the same cases: {' and '.join(parts)}. Run both over the same cases and limit."
        )
    pairs = [(item, news[item.id]) for item in before]
    changed = [old.id for old, new in pairs if (old.input, old.references) != (new.input, new.references)]
    if changed:
        raise RequestError(
            f"The runs are not over the same cases: input or references differ in {len(changed)} of {len(pairs)} "
            f"({_some(changed)}). Run both over one version of the cases."
        )
    return pairs


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")


def _interval(whole: float, drawn: Array, n: int) -> Mean:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (whole, whole)
    return Mean(value=whole, low=float(low), high=float(high), n=n)


def _telling(measure: Measure, data: Array) -> int:
    """How many items say anything: of a ratio such as "right, of those taken", those of which any was taken."""
    return int(np.count_nonzero(data[:, 1])) if measure.how == "ratio" else len(data)


def _of(measure: Measure, data: Array) -> Array:
    if measure.how in _QUANTILES:
        return np.asarray(np.quantile(data[:, 0], _QUANTILES[measure.how]))
    if measure.how == "mean":
        return np.asarray(data[:, 0].mean())
    return np.asarray(_CORPUS[measure.how](data.sum(axis=0)[None])[0])


def _draws(measure: Measure, data: Array) -> Array:
    """(RESAMPLES,) figures, each of n items drawn from the (n, columns) ``data``; the same items for equal n."""
    return np.concatenate([_drawn(measure, data, picks) for picks in _picks(len(data))])


def _picks(n: int) -> Iterator[NDArray[np.int64]]:
    """(draws, n) indices of items, a block of draws at a time."""
    generator = np.random.default_rng(SEED)
    block = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, RESAMPLES, block):
        yield generator.integers(0, n, size=(min(block, RESAMPLES - start), n))


def _drawn(measure: Measure, data: Array, picks: NDArray[np.int64]) -> Array:
    if measure.how in _QUANTILES:
        found: Array = np.quantile(data[:, 0][picks], _QUANTILES[measure.how], axis=1)
        return found
    n = len(data)
    draws = len(picks)
    flat = (picks + np.arange(draws)[:, None] * n).ravel()
    sums = np.bincount(flat, minlength=draws * n).reshape(draws, n) @ data
    return sums[:, 0] / n if measure.how == "mean" else _CORPUS[measure.how](sums)


def _ratio(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Array = sums[:, 0] / sums[:, 1]
    return quotient


def _f1(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])
    return found


def _bleu(order: int) -> Callable[[Array], Array]:
    """Papineni and others, "BLEU", ACL 2002: the geometric mean of the precisions of 1 to ``order`` grams, times
    min(1, e^(1 - r/c)). 0 where one of them is 0: nothing is smoothed."""

    def bleu(sums: Array) -> Array:
        matches, totals, words, wanted = sums[:, :order], sums[:, 4 : 4 + order], sums[:, 8], sums[:, 9]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.log(np.where(totals > 0, matches / totals, 0.0)).mean(axis=1)
            found: Array = np.where(words > 0, np.exp(precision + np.minimum(0.0, 1 - wanted / words)), 0.0)
        return found

    return bleu


_CORPUS: dict[str, Callable[[Array], Array]] = {
    "ratio": _ratio,
    "f1": _f1,
    **{f"bleu-{order}": _bleu(order) for order in (1, 2, 3, 4)},
}

_OBSERVE: dict[str, Callable[[Item], float | None]] = {
    WORDS.name: lambda item: None if item.output is None else float(len(item.output.split())),
    # How soon a call failed is no time of an answer.
    LATENCY.name: lambda item: None if item.error else item.latency_s,
    LATENCY_P95.name: lambda item: None if item.error else item.latency_s,
    FIRST_TOKEN.name: lambda item: None if item.error else item.first_token_s,
    COMPLETION.name: lambda item: None if item.tokens is None else float(item.tokens.completion),
}
