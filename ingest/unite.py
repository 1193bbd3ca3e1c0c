"""Which names are one topic: pairs that ``same`` calls the same, joined to groups that hold no contradiction. Pure.

What becomes of a name depends only on those that share a key with it, directly or through others: a set of names that
is closed under shared keys is united as it would be among all names, so that a refresh may look at what is new and its
surroundings only. The order of the names never matters.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from ingest.same import REASONS, Named, clash, keys, reason, same

MAX_BLOCK = 60
"""A key that more names share says little, and looking at all their pairs would cost too much: it is passed over."""

MAX_NAMES = 24
"""Names of one topic. More than that in one language don't exist, except by mistake."""


def united(names: Iterable[Named]) -> tuple[tuple[str, ...], ...]:
    """The forms of names of one topic together, each group sorted, the groups sorted. Every form is in one group."""
    by_form = {each.form: each for each in names}
    return joined(_agreeing(by_form), by_form)


def joined(pairs: Iterable[tuple[int, str, str]], by_form: Mapping[str, Named]) -> tuple[tuple[str, ...], ...]:
    """What ``united`` makes of ``pairs`` that are the same: (rank of the reason, form, form), the forms in order.

    Names that no pairs connect, directly or through others, have nothing to do with each other.
    """
    group: dict[str, tuple[str, ...]] = {form: (form,) for form in by_form}
    for _, one, other in sorted(pairs):
        first, second = group[one], group[other]
        if first != second and _fit(first, second, by_form):
            both = tuple(sorted(first + second))
            group |= dict.fromkeys(both, both)
    return tuple(sorted(set(group.values())))


def surroundings(changed: Iterable[str], keyed: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The forms that ``changed`` may be united with, or whose groups they may change: the closure over shared keys.

    Args:
        keyed: ``keys`` of every name, by its form.
    """
    by_key = _blocks(keyed)
    found: set[str] = set()
    waiting = [form for form in changed if form in keyed]
    while waiting:
        form = waiting.pop()
        if form not in found:
            found.add(form)
            waiting.extend(near for key in keyed[form] for near in by_key[key] if near not in found)
    return frozenset(found)


def _agreeing(by_form: Mapping[str, Named]) -> list[tuple[int, str, str]]:
    """(rank of the reason, form, form) of the pairs that are the same, of those that share a key."""
    blocks = _blocks({form: keys(named) for form, named in by_form.items()})
    pairs = {
        pair for block in blocks.values() if 1 < len(block) <= MAX_BLOCK for pair in combinations(sorted(block), 2)
    }
    found = ((reason(by_form[one], by_form[other]), one, other) for one, other in pairs)
    return [(REASONS.index(why), one, other) for why, one, other in found if why is not None]


def _blocks(keyed: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    blocks: dict[str, list[str]] = defaultdict(list)
    for form in sorted(keyed):
        for key in keyed[form]:
            blocks[key].append(form)
    return blocks


def _fit(first: Sequence[str], second: Sequence[str], by_form: Mapping[str, Named]) -> bool:
    """Whether no name of one contradicts a name of the other: a chain of likenesses must not join what differs."""
    if len(first) + len(second) > MAX_NAMES:
        return False
    pairs = ((by_form[one], by_form[other]) for one in first for other in second)
    return not any(clash(a, b) and not same(a, b) for a, b in pairs)
