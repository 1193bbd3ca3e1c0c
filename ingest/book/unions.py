"""Which groups are one topic, where some groups change: ``unite.united``, from what is known of all others.

A pair of names is the same by itself, and counts where they share a key that no more than ``MAX_BLOCK`` names have.
Names become one topic only along such pairs. So pairs are kept; those of a name that changed, or of a key that has just
become too common or is no longer, are looked at anew, and what they connect is united anew.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from ingest.book.tables import batches, put, read, remove
from ingest.same import REASONS, Named, keys, reason
from ingest.schema import BookKeyRow, BookNameRow, BookPairRow
from ingest.unite import MAX_BLOCK, joined

Cluster = tuple[str, ...]
"""The forms of one topic."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What ``same.brief`` gave of a group, and the year."""

    names: Sequence[str]
    said: Sequence[str]
    year: int


class Unions:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def change(self, briefs: Mapping[str, Brief | None]) -> list[Cluster]:
        """Takes in how some groups are now, None for one that is gone. Gives the topics that may be others than before
        or hold one of these."""
        common = self._keep(briefs)
        dirty = briefs.keys() | {form for (form,) in read(self._connection, (BookKeyRow.form,), BookKeyRow.key, common)}
        near = self._forget_pairs(dirty)
        self._pair(dirty)
        return list(self._clusters(dirty | near))

    def _keep(self, briefs: Mapping[str, Brief | None]) -> set[int]:
        """Keeps names and keys; gives the keys that have become too common, or are so no longer."""
        before: dict[str, set[int]] = defaultdict(set)
        for form, key in read(self._connection, (BookKeyRow.form, BookKeyRow.key), BookKeyRow.form, briefs):
            before[form].add(key)
        after = {
            form: _hashed(Named.recalled(form, brief.names, brief.said, brief.year)) if brief else set()
            for form, brief in briefs.items()
        }
        change: Counter[int] = Counter()
        for form, new in after.items():
            change.update(new - before[form])
            change.subtract(before[form] - new)
        sizes = self._sizes({key for key, by in change.items() if by})
        crossing = {key for key, by in change.items() if (sizes[key] > MAX_BLOCK) != (sizes[key] + by > MAX_BLOCK)}
        changed = [form for form, new in after.items() if new != before[form]]
        remove(self._connection, BookKeyRow.form, [form for form in changed if before[form]])
        put(self._connection, BookKeyRow, ({"key": key, "form": form} for form in changed for key in after[form]))
        remove(self._connection, BookNameRow.form, briefs)
        put(
            self._connection,
            BookNameRow,
            (
                {"form": form, "names": list(brief.names), "said": list(brief.said), "year": brief.year}
                for form, brief in briefs.items()
                if brief
            ),
        )
        return crossing

    def _sizes(self, wanted: Collection[int]) -> Counter[int]:
        sizes: Counter[int] = Counter()
        for part in batches(wanted):
            counted = select(BookKeyRow.key, func.count()).where(BookKeyRow.key.in_(part)).group_by(BookKeyRow.key)
            for key, count in self._connection.execute(counted):
                sizes[key] = count
        return sizes

    def _forget_pairs(self, forms: Collection[str]) -> set[str]:
        """The names that they were paired with."""
        near = {form for _, one, other in self._pairs(forms) for form in (one, other)}
        remove(self._connection, BookPairRow.one, forms)
        remove(self._connection, BookPairRow.other, forms)
        return near

    def _pairs(self, forms: Collection[str]) -> Iterator[tuple[int, str, str]]:
        row = BookPairRow
        for which in (row.one, row.other):
            found = read(self._connection, (row.rank, row.one, row.other), which, forms)
            yield from ((rank, one, other) for rank, one, other in found)

    def _pair(self, forms: Collection[str]) -> None:
        """Looks at all pairs of these names, which have none."""
        done: set[tuple[str, str]] = set()
        for part in batches(sorted(forms)):
            keyed: dict[int, list[str]] = defaultdict(list)
            for form, key in read(self._connection, (BookKeyRow.form, BookKeyRow.key), BookKeyRow.form, part):
                keyed[key].append(form)
            rare = [key for key, size in self._sizes(keyed).items() if 1 < size <= MAX_BLOCK]
            pairs: set[tuple[str, str]] = set()
            for key, other in read(self._connection, (BookKeyRow.key, BookKeyRow.form), BookKeyRow.key, rare):
                pairs |= {(min(form, other), max(form, other)) for form in keyed[key] if form != other}
            pairs -= done
            known = self._named({form for pair in pairs for form in pair})
            found = ((one, other, reason(known[one], known[other])) for one, other in sorted(pairs))
            put(
                self._connection,
                BookPairRow,
                ({"one": one, "other": other, "rank": REASONS.index(why)} for one, other, why in found if why),
            )
            done |= {pair for pair in pairs if pair[0] in forms and pair[1] in forms}

    def _named(self, forms: Collection[str]) -> dict[str, Named]:
        row = BookNameRow
        found = read(self._connection, (row.form, row.names, row.said, row.year), row.form, forms)
        return {form: Named.recalled(form, names, said, year) for form, names, said, year in found}

    def _clusters(self, forms: Collection[str]) -> Iterator[Cluster]:
        """The topics of what these are connected with."""
        pairs: set[tuple[int, str, str]] = set()
        seen: set[str] = set()
        waiting = set(forms)
        while waiting:
            seen |= waiting
            pairs |= (more := set(self._pairs(waiting)))
            waiting = {form for _, one, other in more for form in (one, other)} - seen
        paired: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for pair in pairs:
            paired[pair[1]].append(pair)
            paired[pair[2]].append(pair)
        there = {form for (form,) in read(self._connection, (BookNameRow.form,), BookNameRow.form, seen)}
        for component in _components(there, paired):
            if len(component) == 1:
                yield (component[0],)
            else:
                among = {pair for form in component for pair in paired[form]}
                yield from joined(among, self._named(component))


def _components(forms: Iterable[str], paired: Mapping[str, Sequence[tuple[int, str, str]]]) -> Iterator[list[str]]:
    seen: set[str] = set()
    for start in sorted(forms):
        found, waiting = [], [start] if start not in seen else []
        while waiting:
            form = waiting.pop()
            if form not in seen:
                seen.add(form)
                found.append(form)
                waiting.extend(near for _, one, other in paired.get(form, ()) for near in (one, other))
        if found:
            yield found


def _hashed(named: Named) -> set[int]:
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys(named))
    return {int.from_bytes(digest, signed=True) for digest in digests}
