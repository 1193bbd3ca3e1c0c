"""What trends are filtered and found by, as arrays: kept beside a segment, so that few of its trends are ever read.

<segment>.facts   the arrays of ``Facts`` one after the other, each in numpy's own format
"""

import json
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from indexes.arrays import arrays_in, packed_arrays
from indexes.lexical import Postings, postings
from trendrag.types import TrendFilters

UNKNOWN = "und"
"""The language of what is in an unknown one."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Names that trends have: trend ``rows[i]`` has ``names[codes[i]]``, int32 both. One may have several, or none."""

    names: tuple[str, ...]
    rows: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, named: Iterable[Iterable[str]]) -> Self:
        numbers: dict[str, int] = {}
        rows, codes = array("i"), array("i")
        for row, names in enumerate(named):
            for name in names:
                rows.append(row)
                codes.append(numbers.setdefault(name, len(numbers)))
        return cls(tuple(numbers), np.array(rows, dtype=np.int32), np.array(codes, dtype=np.int32))

    def any_of(self, wanted: Collection[str], count: int) -> npt.NDArray[np.bool_]:
        """(count,): which of so many trends have one of the names."""
        found = np.zeros(count, dtype=np.bool_)
        is_wanted = np.array([name in wanted for name in self.names], dtype=np.bool_)
        found[self.rows[is_wanted[self.codes]]] = True
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Of the trends of one segment, in its order, the dead ones among them. ``scenes``, int32 (trends,), is how many
    each has: so many of its vectors, the last, are theirs."""

    languages: Labels
    regions: Labels
    categories: Labels
    postings: Postings
    scenes: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.postings.lengths)

    def saying(self, word: int) -> npt.NDArray[np.bool_]:
        """(trends,): which ones a word, by its ``hash64``, stands in."""
        found = np.zeros(len(self), dtype=np.bool_)
        found[self.postings.rows[self.postings.of(word)]] = True
        return found

    def passing(self, filters: TrendFilters) -> npt.NDArray[np.bool_]:
        """(trends,): which ones the filters let through, by the same rule as ``table.passes``."""
        count = len(self)
        passing = np.ones(count, dtype=np.bool_)
        if filters.region is not None:
            passing &= self.regions.any_of({filters.region}, count) | ~self.regions.any_of(self.regions.names, count)
        if filters.language is not None:
            passing &= self.languages.any_of({UNKNOWN, filters.language}, count)
        if filters.categories:
            passing &= self.categories.any_of(filters.categories, count)
        return passing


def facts_of(trends: Iterable[Mapping[str, Any]]) -> Facts:
    """The facts of trends as their lines say them (``Trend`` in JSON).

    Raises:
        KeyError, TypeError: that is no trend.
    """
    languages: list[tuple[str, ...]] = []
    regions: list[tuple[str, ...]] = []
    categories: list[tuple[str, ...]] = []
    scenes = array("i")

    def texts() -> Iterator[str]:  # one at a time: a segment's are many
        for trend in trends:
            languages.append((sys.intern(trend["language"]),))
            regions.append((sys.intern(trend["region"]),) if trend["region"] is not None else ())
            categories.append(tuple(map(sys.intern, trend["categories"])))
            scenes.append(len(trend.get("scenes", ())))
            yield searched(trend["phrase"], trend["aliases"], trend["summary"])

    said = postings(texts())
    counts = np.array(scenes, dtype=np.int32)
    return Facts(Labels.of(languages), Labels.of(regions), Labels.of(categories), said, counts)


def searched(phrase: str, aliases: Iterable[str], summary: str) -> str:
    """The text of a trend that words are looked for in."""
    return " ".join((phrase, *aliases, summary))


def pack(facts: Facts) -> bytes:
    arrays: list[npt.NDArray[Any]] = []
    for labels in (facts.languages, facts.regions, facts.categories):
        names = np.frombuffer(json.dumps(labels.names).encode(), dtype=np.uint8)
        arrays += (names, labels.rows, labels.codes)
    said = facts.postings
    return packed_arrays([*arrays, said.words, said.ends, said.rows, said.counts, said.lengths, facts.scenes])


def unpack(packed: bytes, trends: int) -> Facts:
    """The facts of so many trends.

    Raises:
        Exception: they are not, or none that there can be; parsers raise all sorts.
    """
    labels, said = (np.uint8, np.int32, np.int32), (np.int64, np.int64, np.int32, np.int32, np.int32)
    found = arrays_in(packed, *((kind, 1) for kind in (*labels * 3, *said, np.int32)))
    one, two, three = (_labels(found[start : start + 3], trends) for start in (0, 3, 6))
    facts = Facts(one, two, three, _postings(Postings(*found[9:14]), trends), found[14])
    if len(facts.scenes) != trends or (facts.scenes < 0).any():
        raise ValueError("not scenes of these trends")
    return facts


def _labels(arrays: Sequence[npt.NDArray[Any]], trends: int) -> Labels:
    names, rows, codes = arrays
    labels = Labels(tuple(json.loads(names.tobytes())), rows, codes)
    named = all(isinstance(name, str) for name in labels.names)
    if not named or len(rows) != len(codes) or not _within(rows, trends) or not _within(codes, len(labels.names)):
        raise ValueError("not labels of these trends")
    return labels


def _postings(said: Postings, trends: int) -> Postings:
    starts = np.insert(said.ends, 0, 0)
    if (
        len(said.lengths) != trends
        or len(said.words) != len(said.ends)
        or len(said.rows) != len(said.counts)
        or starts[-1] != len(said.rows)
        or (starts[1:] <= starts[:-1]).any()
        or (said.words[1:] <= said.words[:-1]).any()
        or not _within(said.rows, trends)
        or (said.counts < 1).any()
        or (np.bincount(said.rows, said.counts, trends) != said.lengths).any()
    ):
        raise ValueError("not words of these trends")
    # A text that a word has twice would be counted once by numpy's sums.
    steps = np.diff(said.rows)
    steps[said.ends[:-1] - 1] = 1  # to the next word's
    if (steps < 1).any():
        raise ValueError("a word's trends are out of order")
    return said


def _within(numbers: npt.NDArray[np.int32], end: int) -> bool:
    return bool(((numbers >= 0) & (numbers < end)).all())
