"""Observations to topics: what several sources say of one thing, under one name. Pure, and independent of order.

Names whose normal forms agree without spaces are one group, so that "#worldcup" is "World Cup". Headlines join the
groups that they name; a headline that names none makes a group of its own only where it holds a phrase that a caption
could use (``headlines``), and is left out otherwise (counted). Groups in other wordings of one topic are then united
(``same`` says which, ``unite`` how). A topic keeps the id of the form that was seen first.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingest.observation import MAX_PHRASE_CHARS, Observation, joined_form
from ingest.offers import offer, own_name
from ingest.phrases import capitalised_after_first, headline_text, spelled_hashtag
from ingest.same import Named
from ingest.unite import united
from trendrag.text import clean_line, normal_form
from trendrag.types import Evidence

MAX_ALIASES = 6
MAX_CATEGORIES = 5
MAX_SUMMARY_CHARS = 160

NOT_USABLE = "not usable as a phrase"
NO_PHRASE = "headline without a phrase of its own"
"""Why an observation gives no topic."""


@dataclass(frozen=True, slots=True)
class Topic:
    """``evidence`` is all there is, the best first. ``context`` are headlines that may be about the topic: enough to be
    careful for, not enough to count. ``qualifiers`` are what an encyclopaedia calls it ("2021 film"). ``forms`` are the
    joined normal forms of all its names, ``form`` the one that was seen first, from which the id is made."""

    id: str
    phrase: str
    aliases: tuple[str, ...]
    summary: str
    language: str
    region: str | None
    categories: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    context: tuple[str, ...]
    qualifiers: tuple[str, ...]
    members: tuple[Observation, ...]
    form: str
    forms: tuple[str, ...]
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Merged:
    topics: tuple[Topic, ...]
    left_out: Counter[str]


@dataclass(slots=True)
class Group:
    names: Counter[str] = field(default_factory=Counter)
    qualifiers: set[str] = field(default_factory=set)
    members: list[Observation] = field(default_factory=list)
    context: list[str] = field(default_factory=list)


def merge(observations: Iterable[Observation], known_since: Mapping[str, datetime] | None = None) -> Merged:
    """Topics in the order of their ids.

    Args:
        known_since: when forms were first seen, where that was before the observations given. It keeps a topic's id
            when the observation that gave it is no longer among them.
    """
    ordered = sorted(observations, key=_order)
    groups: dict[str, Group] = defaultdict(Group)
    left_out: Counter[str] = Counter()
    headlines: list[Observation] = []
    for seen in ordered:
        if seen.kind == "headline":
            headlines.append(seen)
        elif not _add_named(groups, seen):
            left_out[NOT_USABLE] += 1
    for loose in _join(groups, headlines):
        left_out[NO_PHRASE] += not _add_named_by_itself(groups, loose)
    groups = {form: group for form, group in groups.items() if group.members}
    joined = united(named(form, group.names, group.members) for form, group in groups.items())
    topics = (topic_of(by_age(forms, groups, known_since or {}), groups) for forms in joined)
    return Merged(tuple(sorted(topics, key=lambda topic: topic.id)), +left_out)


def _order(seen: Observation) -> tuple[str, str, str, str, str, datetime, int]:
    return (seen.source, seen.key, seen.bucket, seen.title, seen.family, seen.at, seen.volume or 0)


def _add_named(groups: dict[str, Group], seen: Observation) -> bool:
    offered = offer(seen)
    if not offered.form:
        return False
    group = groups[offered.form]
    group.names[offered.name] += 1
    group.members.append(seen)
    if offered.qualifier:
        group.qualifiers.add(offered.qualifier)
    return True


def _join(groups: dict[str, Group], headlines: Sequence[Observation]) -> list[Observation]:
    """Puts headlines to the topics that they name, then to names that two publishers share; gives those left."""
    named = set(groups)
    loose: list[tuple[Observation, Mapping[str, str]]] = []
    for seen in headlines:
        offered = offer(seen)
        found = {form: sure for form, sure in offered.mentions.items() if form in named}
        for form, sure in found.items():
            if sure:
                groups[form].members.append(seen)
            else:
                groups[form].context.append(seen.title)
        if not any(found.values()):
            loose.append((seen, offered.spans))
    shared = _shared_spans(loose)
    rest: list[Observation] = []
    for seen, spans in loose:
        best = max((form for form in spans if form in shared), key=lambda f: (spans[f].count(" "), f), default=None)
        if best is None:
            rest.append(seen)
            continue
        groups[best].names[spans[best]] += 1
        groups[best].members.append(seen)
    return rest


def _add_named_by_itself(groups: dict[str, Group], seen: Observation) -> bool:
    name = own_name(seen)
    if name is None:
        return False
    group = groups[joined_form(name)]
    group.names[name] += 1
    group.members.append(seen)
    return True


def _shared_spans(headlines: Iterable[tuple[Observation, Mapping[str, str]]]) -> set[str]:
    """Forms of name spans that headlines of two or more families have."""
    families: dict[str, set[str]] = defaultdict(set)
    for seen, spans in headlines:
        for form in spans:
            families[form].add(seen.family)
    return {form for form, users in families.items() if len(users) > 1}


def named(form: str, names: Iterable[str], members: Sequence[Observation]) -> Named:
    """What ``unite`` needs to know of a group: it depends on that group alone."""
    return Named.of(form, names, titles(members), max(each.at for each in members).year)


def titles(members: Iterable[Observation]) -> set[str]:
    """The headlines among what was seen, and those that came with it."""
    own = {each.title for each in members if each.kind == "headline"}
    return own | {found.title for each in members for found in each.evidence}


def by_age(forms: Sequence[str], groups: Mapping[str, Group], known_since: Mapping[str, datetime]) -> tuple[str, ...]:
    """``forms``, the first seen first."""

    def age(form: str) -> tuple[datetime, str]:
        seen = _first_seen(groups[form].members)
        return min(seen, known_since.get(form, seen)), form

    return tuple(sorted(forms, key=age))


def _first_seen(members: Iterable[Observation]) -> datetime:
    return min(min(each.published_at or each.at, each.at) for each in members)


def topic_of(forms: Sequence[str], groups: Mapping[str, Group]) -> Topic:
    form = forms[0]
    group = _joined([groups[each] for each in forms])
    members = sorted(group.members, key=_order)
    phrase, aliases = _spellings(group.names, groups[form].names)
    evidence = _evidence(members)
    regions = {each.region for each in members}
    languages = {each.language for each in members} - {"und"}
    categories = sorted({category for each in members for category in each.categories})
    return Topic(
        id=hashlib.sha256(form.encode()).hexdigest()[:16],
        phrase=phrase,
        aliases=aliases,
        summary=_summary(phrase, evidence),
        language=languages.pop() if len(languages) == 1 else "und",
        # Seen in two countries, or by a source of no country: it is not of one country.
        region=regions.pop() if len(regions) == 1 else None,
        categories=tuple(categories[:MAX_CATEGORIES]),
        evidence=evidence,
        context=tuple(sorted(set(group.context))),
        qualifiers=tuple(sorted(group.qualifiers)),
        members=tuple(members),
        form=form,
        forms=tuple(sorted(forms)),
        first_seen=_first_seen(members),
        last_seen=max(each.at for each in members),
    )


def _joined(groups: Sequence[Group]) -> Group:
    """One group of all; a headline that named several is in it once."""
    if len(groups) == 1:
        return groups[0]
    both = Group()
    members: dict[tuple[str, str, str], Observation] = {}
    for group in groups:
        both.names.update(group.names)
        both.qualifiers |= group.qualifiers
        both.context += group.context
        members |= {(each.source, each.key, each.bucket): each for each in group.members}
    both.members = list(members.values())
    return both


def _spellings(names: Mapping[str, int], first: Container[str]) -> tuple[str, tuple[str, ...]]:
    """(the phrase, other spellings that were seen). Spelled out before hashtags, names with their capitals; of those as
    frequent one of the ``first`` seen, so that a new one does not rename the topic."""

    def rank(name: str) -> tuple[bool, int, int, bool, int, str]:
        said = name.removeprefix("#")
        return (name.startswith("#"), -capitalised_after_first(said), -names[name], name not in first, len(said), name)

    ordered = sorted(names, key=rank)
    phrase = clean_line(spelled_hashtag(ordered[0]) if ordered[0].startswith("#") else ordered[0], MAX_PHRASE_CHARS)
    aliases: dict[str, str] = {}
    for name in ordered:
        if name != phrase and name.casefold() != phrase.casefold():
            aliases.setdefault(name.casefold(), name)
    return phrase, tuple(list(aliases.values())[:MAX_ALIASES])


def _evidence(members: Sequence[Observation]) -> tuple[Evidence, ...]:
    """Each source's own line first, then the headlines; none twice."""
    own = [
        Evidence(source=each.name, title=each.title, url=each.url, published_at=each.published_at, volume=each.volume)
        for each in members
    ]
    news = [found for each in members for found in each.evidence]
    kept: dict[tuple[str, str], Evidence] = {}
    for found in [*own, *news]:
        kept.setdefault((found.source, normal_form(found.title)), found)
    return tuple(kept.values())


def _summary(phrase: str, evidence: Sequence[Evidence]) -> str:
    """The headline that tells most, without its section and publisher. Empty without one of a sentence's length.

    Best with the phrase in it, and neither a question nor short nor so long that it would be cut.
    """
    form = joined_form(phrase)
    said = {headline_text(each.title) for each in evidence}

    def rank(text: str) -> tuple[bool, bool, bool, int, str]:
        length = len(text.split())
        return (
            form not in joined_form(text),
            text.endswith("?"),
            len(text) > MAX_SUMMARY_CHARS,
            -min(length, 12),
            text,
        )

    best = min((text for text in said if len(text.split()) >= 4 and joined_form(text) != form), key=rank, default="")
    return clean_line(best, MAX_SUMMARY_CHARS)
