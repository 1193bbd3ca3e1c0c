"""What trends are filtered and found by, as arrays: kept beside a segment, so that few of its trends are ever read.

<segment>.facts   the arrays of ``Facts`` one after the other, each in numpy's own format
"""

import io
import json
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

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
    """Of the trends of one segment, in its order, the dead ones among them."""

    languages: Labels
    regions: Labels
    categories: Labels
    postings: Postings

    def __len__(self) -> int:
        return len(self.postings.lengths)

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

    def texts() -> Iterator[str]:  # one at a time: a segment's are many
        for trend in trends:
            languages.append((sys.intern(trend["language"]),))
            regions.append((sys.intern(trend["region"]),) if trend["region"] is not None else ())
            categories.append(tuple(map(sys.intern, trend["categories"])))
            yield searched(trend["phrase"], trend["aliases"], trend["summary"])

    said = postings(texts())
    return Facts(Labels.of(languages), Labels.of(regions), Labels.of(categories), said)


def searched(phrase: str, aliases: Iterable[str], summary: str) -> str:
    """The text of a trend that words are looked for in."""
    return " ".join((phrase, *aliases, summary))


def pack(facts: Facts) -> bytes:
    packed = io.BytesIO()
    for labels in (facts.languages, facts.regions, facts.categories):
        names = np.frombuffer(json.dumps(labels.names).encode(), dtype=np.uint8)
        for one in (names, labels.rows, labels.codes):
            np.lib.format.write_array(packed, one, allow_pickle=False)
    said = facts.postings
    for two in (said.words, said.ends, said.rows, said.counts, said.lengths):
        np.lib.format.write_array(packed, two, allow_pickle=False)
    return packed.getvalue()


def unpack(packed: bytes, trends: int) -> Facts:
    """The facts of so many trends.

    Raises:
        ValueError: they are not.
    """
    file = io.BytesIO(packed)

    def array_of(kind: type[np.generic]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if found.dtype != kind or found.ndim != 1:
            raise ValueError("not the array that is meant")
        return found

    def labels() -> Labels:
        names = json.loads(array_of(np.uint8).tobytes())
        return Labels(tuple(names), array_of(np.int32), array_of(np.int32))

    facts = Facts(
        labels(),
        labels(),
        labels(),
        Postings(*(array_of(kind) for kind in (np.int64, np.int64, np.int32, np.int32, np.int32))),
    )
    if len(facts) != trends:
        raise ValueError("not of these trends")
    return facts
