"""Observations to topics: what several sources say of one thing, under one name. Pure, and independent of order.

Two names are one topic where their normal forms agree without spaces, so that "#worldcup" is "World Cup". Headlines
join the topics that they name; a headline that names none gives its own topic only where it holds a phrase that a
caption could use, and is left out otherwise (counted). Near-duplicates in other words are not looked for here.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingest.observation import MAX_PHRASE_CHARS, Observation, joined_form
from ingest.phrases import (
    capitalised_after_first,
    headline_text,
    name_spans,
    quoted_title,
    spelled_hashtag,
    usable_name,
    whole_headline,
    without_qualifier,
)
from trendrag.text import clean_line, normal_form
from trendrag.types import Evidence

MAX_ALIASES = 6
MAX_CATEGORIES = 5
MAX_SUMMARY_CHARS = 160
_MIN_CONTAINED = 4
"""Letters that a name must have before its mere appearance in a headline counts."""

_MAX_CONTAINED_WORDS = 6


@dataclass(frozen=True, slots=True)
class Topic:
    """``evidence`` is all there is, the best first. ``context`` are headlines that may be about the topic: enough to be
    careful for, not enough to count. ``qualifiers`` are what an encyclopaedia calls it ("2021 film")."""

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
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Merged:
    topics: tuple[Topic, ...]
    left_out: Counter[str]


@dataclass(slots=True)
class _Group:
    names: Counter[str] = field(default_factory=Counter)
    qualifiers: set[str] = field(default_factory=set)
    members: list[Observation] = field(default_factory=list)
    context: list[str] = field(default_factory=list)


def merge(observations: Iterable[Observation]) -> Merged:
    """Topics in the order of their ids."""
    ordered = sorted(observations, key=_order)
    groups: dict[str, _Group] = defaultdict(_Group)
    left_out: Counter[str] = Counter()
    headlines: list[Observation] = []
    for seen in ordered:
        if seen.kind == "headline":
            headlines.append(seen)
        elif not _add_named(groups, seen):
            left_out["not usable as a phrase"] += 1
    for loose in _join(groups, headlines):
        left_out["headline without a phrase of its own"] += not _add_named_by_itself(groups, loose)
    topics = (_topic(form, group) for form, group in groups.items() if group.members)
    return Merged(tuple(sorted(topics, key=lambda topic: topic.id)), +left_out)


def _order(seen: Observation) -> tuple[str, str, str, str, str, datetime, int]:
    return (seen.source, seen.key, seen.bucket, seen.title, seen.family, seen.at, seen.volume or 0)


def _add_named(groups: dict[str, _Group], seen: Observation) -> bool:
    name, qualifier = without_qualifier(seen.title) if seen.kind == "article" else (seen.title, None)
    form = joined_form(name)
    if not form or not usable_name(name):
        return False
    group = groups[form]
    group.names[name] += 1
    group.members.append(seen)
    if qualifier:
        group.qualifiers.add(qualifier)
    return True


def _join(groups: dict[str, _Group], headlines: Sequence[Observation]) -> list[Observation]:
    """Puts headlines to the topics that they name, then to names that two publishers share; gives those left."""
    named = set(groups)
    loose: list[Observation] = []
    for seen in headlines:
        found = _named_in(seen.title, named)
        for form, proper in found.items():
            if proper:
                groups[form].members.append(seen)
            else:
                groups[form].context.append(seen.title)
        if not any(found.values()):
            loose.append(seen)
    shared = _shared_spans(loose)
    rest: list[Observation] = []
    for seen in loose:
        spans = {joined_form(span): span for span in name_spans(headline_text(seen.title))}
        best = max((form for form in spans if form in shared), key=lambda f: (spans[f].count(" "), f), default=None)
        if best is None:
            rest.append(seen)
            continue
        groups[best].names[spans[best]] += 1
        groups[best].members.append(seen)
    return rest


def _add_named_by_itself(groups: dict[str, _Group], seen: Observation) -> bool:
    text = headline_text(seen.title)
    name = text if whole_headline(text) else quoted_title(text)
    if name is None or not joined_form(name):
        return False
    group = groups[joined_form(name)]
    group.names[name] += 1
    group.members.append(seen)
    return True


def _named_in(title: str, forms: set[str]) -> dict[str, bool]:
    """Forms among ``forms`` that the headline contains as whole words; True where it surely means that topic.

    Names of several words do. A single word only does as a proper name: capitalised, not first, and in a headline
    that doesn't capitalise everything. (#music is not the topic of every headline about music.) Where a single word is
    capitalised for another reason it may still be a name, and is given as False.
    """
    words = title.split()
    tokens = [(joined_form(word), word.lstrip("\"'“‘«(#")[:1].isupper()) for word in words]
    tokens = [(form, upper) for form, upper in tokens if form]
    title_case = sum(upper for _, upper in tokens[1:]) > len(tokens) / 2
    found: dict[str, bool] = {}
    for start, (_, upper) in enumerate(tokens):
        form = ""
        for length, (part, _) in enumerate(tokens[start : start + _MAX_CONTAINED_WORDS], 1):
            form += part
            if len(form) < _MIN_CONTAINED or form not in forms:
                continue
            proper = length > 1 or (upper and start > 0 and not title_case)
            if proper or upper:
                found[form] = proper or found.get(form, False)
    return found


def _shared_spans(headlines: Sequence[Observation]) -> set[str]:
    """Forms of name spans that headlines of two or more families have."""
    families: dict[str, set[str]] = defaultdict(set)
    for seen in headlines:
        for span in name_spans(headline_text(seen.title)):
            families[joined_form(span)].add(seen.family)
    return {form for form, users in families.items() if len(users) > 1}


def _topic(form: str, group: _Group) -> Topic:
    members = sorted(group.members, key=_order)
    phrase, aliases = _spellings(group.names)
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
        first_seen=min(min(each.published_at or each.at, each.at) for each in members),
        last_seen=max(each.at for each in members),
    )


def _spellings(names: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
    """(the phrase, other spellings that were seen). Spelled out before hashtags, names with their capitals."""

    def rank(name: str) -> tuple[bool, int, int, int, str]:
        said = name.removeprefix("#")
        return (name.startswith("#"), -capitalised_after_first(said), -names[name], len(said), name)

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
    """The headline that tells most: one of a sentence's length, best with the phrase in it. Empty without one."""
    form = joined_form(phrase)
    titles = {each.title: each for each in evidence if len(each.title.split()) >= 4}

    def rank(title: str) -> tuple[bool, bool, str]:
        inside = joined_form(title)
        return (inside == form, form not in inside, title)

    best = min((title for title in titles if joined_form(title) != form), key=rank, default="")
    return clean_line(best, MAX_SUMMARY_CHARS)
