"""Which groups items belong to, where some items come or go: only what that touches is decided anew.

The rules are those of ``ingest.merge``; its docstrings say why. Each is followed from what changes to what depends on
it:

1. A form is *named* while any phrase, hashtag or article is of it. Where that changes, headlines that hold it are read
   anew: they join the names that they hold, and are *loose* where they surely hold none.
2. A span is *shared* while loose headlines of two families have it. Where that changes, loose headlines that have it
   choose anew: the longest shared span, else their own phrase, else nothing.

Nothing here touches a database: what is known of the items before is asked of a ``View``.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, Protocol

from ingest.book.entries import Entry, entry
from ingest.merge import NO_PHRASE, NOT_USABLE
from ingest.observation import Observation, joined_form
from ingest.offers import own_name


class Role(IntEnum):
    """As what an item is in a group: it names it; it is a headline that holds its name, surely or perhaps (which is
    context only), that has it as a name that others share, or as the phrase of its own."""

    NAMES = 0
    HOLDS = 1
    MAY_HOLD = 2
    SHARES = 3
    OWN = 4


class Place(NamedTuple):
    """An item in a group. ``name`` is the wording that a headline has for what it shares or has of its own."""

    role: Role
    name: str | None = None


Places = Mapping[str, Place]
"""The groups that an item is in, by form."""

_CHUNK = 2_000
"""Headlines whose mentions are in memory at a time: of the dozens of each, next to none are topics."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of an item from before."""

    named: str | None
    loose: bool
    places: Places


class View(Protocol):
    """What is known from before, of items by their number. What is asked for and not there is left out."""

    def stored(self, items: Collection[int]) -> Mapping[int, Stored]: ...

    def named(self, forms: Collection[str]) -> Mapping[str, int]:
        """How many items are of each form."""
        ...

    def holding(self, forms: Collection[str]) -> Collection[int]:
        """Headlines that may hold one of them; others among them do no harm."""
        ...

    def loose(self, spans: Collection[str]) -> Mapping[str, Mapping[int, str]]:
        """By span the loose headlines that have it, with their families."""
        ...

    def spans(self, items: Collection[int]) -> Mapping[int, Collection[str]]: ...

    def observations(self, items: Collection[int]) -> Mapping[int, Observation]: ...


@dataclass(slots=True)
class Changes:
    """``gone`` items are to be forgotten, ``come`` ones to be kept with what they offer; ``known`` ones are looked at
    anew, and what they offer is as before. ``loose`` and ``places`` say
    how items, new or known, stand now. ``touched`` are the forms of the groups that another item is in than before, or
    an item as something else."""

    gone: set[int] = field(default_factory=set)
    come: dict[int, Entry] = field(default_factory=dict)
    known: dict[int, Entry] = field(default_factory=dict)
    loose: dict[int, bool] = field(default_factory=dict)
    places: dict[int, Places] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)


def left_out(found: Entry, places: Places) -> str | None:
    """Why an item is in no group; None where it is in one."""
    if any(place.role is not Role.MAY_HOLD for place in places.values()):
        return None
    return NO_PHRASE if found.headline else NOT_USABLE


def reassign(view: View, gone: Collection[int], come: Mapping[int, Observation]) -> Changes:
    """What changes where the items ``gone`` leave and those of ``come`` (of other numbers) arrive."""
    changes = Changes(set(gone))
    changes.come = {item: entry(seen) for item, seen in come.items() if seen.kind != "headline"}
    before = dict(view.stored(gone))
    named = _named_now(view, before.values(), changes.come.values())
    known = view.observations([item for item in view.holding(named.turned) if item not in changes.gone])

    entries: dict[int, Entry] = {}
    held: dict[int, Mapping[str, bool]] = {}
    readers = [(item, seen) for item, seen in (*known.items(), *come.items()) if seen.kind == "headline"]
    for start in range(0, len(readers), _CHUNK):
        part = {item: entry(seen) for item, seen in readers[start : start + _CHUNK]}
        part = {
            item: found for item, found in part.items() if item in come or named.turned & found.offer.mentions.keys()
        }
        named.learn(view, {form for found in part.values() for form in found.offer.mentions})
        for item, found in part.items():
            held[item] = {form: sure for form, sure in found.offer.mentions.items() if named.has(form)}
            entries[item] = replace(found, offer=replace(found.offer, mentions=held[item]))
            changes.loose[item] = not any(held[item].values())
    before |= view.stored([item for item in held if item not in come])
    for item, found in changes.come.items():
        changes.loose[item] = False
        changes.places[item] = {found.offer.form: Place(Role.NAMES)} if found.offer.form else {}
    changes.come |= {item: entries[item] for item in held if item in come}

    users = _Users(view)
    was_loose = {item for item, stored in before.items() if stored.loose}
    is_loose = {item for item, loose in changes.loose.items() if loose}
    flipped = users.move(view.spans(was_loose - is_loose), {item: entries[item] for item in is_loose - was_loose})
    choosers = is_loose | {item for span in flipped for item in users.of(span)}
    entries |= {item: entry(seen) for item, seen in view.observations(choosers - entries.keys()).items()}
    before |= view.stored(choosers - before.keys() - changes.come.keys())
    users.learn({span for item in choosers for span in entries[item].offer.spans})
    for item in choosers | held.keys():
        places: dict[str, Place] = {}
        if item in held:
            places |= {form: Place(Role.HOLDS if sure else Role.MAY_HOLD) for form, sure in held[item].items()}
        else:
            places |= {form: place for form, place in before[item].places.items() if place.role is Role.MAY_HOLD}
        if item in choosers and (choice := _choice(entries[item], users)):
            places[choice[0]] = choice[1]
        changes.places[item] = places

    changes.known = {item: entries[item] for item in changes.places if item not in changes.come}
    for item in changes.gone | changes.places.keys():
        old = dict(before[item].places) if item in before else {}
        new = changes.places.get(item, {})
        changes.touched |= {form for form in old.keys() | new.keys() if old.get(form) != new.get(form)}
    return changes


def _choice(found: Entry, users: "_Users") -> tuple[str, Place] | None:
    shared = [form for form in found.offer.spans if users.shared(form)]
    if shared:
        best = max(shared, key=lambda form: (found.offer.spans[form].count(" "), form))
        return best, Place(Role.SHARES, found.offer.spans[best])
    own = own_name(found.seen)
    return (joined_form(own), Place(Role.OWN, own)) if own else None


class _Named:
    """Which forms are named now; ``turned`` are those that were not before, or are no longer."""

    def __init__(self, counts: Counter[str], turned: set[str]) -> None:
        self._counts = counts
        self.turned = turned

    def learn(self, view: View, forms: Iterable[str]) -> None:
        self._counts.update(view.named(set(forms) - self._counts.keys()))

    def has(self, form: str) -> bool:
        return self._counts[form] > 0


def _named_now(view: View, gone: Iterable[Stored], come: Iterable[Entry]) -> _Named:
    less = Counter(each.named for each in gone if each.named is not None)
    more = Counter(each.offer.form for each in come if each.offer.form)
    forms = less.keys() | more.keys()
    then = view.named(forms)
    counts = Counter({form: then.get(form, 0) + more[form] - less[form] for form in forms})
    return _Named(counts, {form for form in forms if (then.get(form, 0) > 0) != (counts[form] > 0)})


class _Users:
    """The loose headlines by the spans that they have, as they are now."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._users: dict[str, dict[int, str]] = {}
        self._less: dict[str, set[int]] = defaultdict(set)
        self._more: dict[str, dict[int, str]] = defaultdict(dict)

    def move(self, less: Mapping[int, Iterable[str]], more: Mapping[int, Entry]) -> set[str]:
        """Takes some (with their spans) away and adds others; the spans that are shared since or no longer."""
        for item, spans in less.items():
            for span in spans:
                self._less[span].add(item)
        for item, found in more.items():
            for span in found.offer.spans:
                self._more[span][item] = found.seen.family
        moved = self._less.keys() | self._more.keys()
        then = self._view.loose(moved)
        self.learn(moved, then)
        return {span for span in moved if _agree(then.get(span, {})) != self.shared(span)}

    def learn(self, spans: Iterable[str], then: Mapping[str, Mapping[int, str]] | None = None) -> None:
        unknown = set(spans) - self._users.keys()
        then = self._view.loose(unknown) if then is None else then
        for span in unknown:
            stay = {item: family for item, family in then.get(span, {}).items() if item not in self._less.get(span, ())}
            self._users[span] = stay | self._more.get(span, {})

    def of(self, span: str) -> Collection[int]:
        return self._users[span].keys()

    def shared(self, span: str) -> bool:
        return _agree(self._users[span])


def _agree(users: Mapping[int, str]) -> bool:
    return len(set(users.values())) > 1
