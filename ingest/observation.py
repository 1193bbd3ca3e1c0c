"""One thing that one source said at one time, cleaned at the border.

Everything here comes from outside. ``Intake`` is the only way in: text becomes one harmless line, addresses are http(s)
or nothing, numbers and dates are plausible or nothing, and what was refused is counted with its reason. What the text
means (topics, scores, safety) is left to the later stages.
"""

import hashlib
import html
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

from trendrag.text import clean_line, normal_form
from trendrag.types import Evidence

Kind = Literal["phrase", "hashtag", "headline", "article"]
"""``phrase``: people say or search it. ``hashtag``: likewise, with its ``#``. ``article``: an encyclopaedia's title.
``headline``: an editor's sentence, which is about something rather than being its name."""

MAX_TITLE_CHARS = 300
MAX_PHRASE_CHARS = 80
MAX_NAME_CHARS = 80
_MAX_RAW_TITLE = 8_000
_ENDLESS = re.compile(r"&#0*[0-9]{8,};?")
"""No character has such a number, and html.unescape raises an error at one of thousands of digits."""

_SCRIPT = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
MAX_URL_CHARS = 2_000
MAX_EVIDENCE = 8
MAX_ITEMS = 500
"""Items read of one payload. The largest list among the default sources has 1000, sorted by views."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=10)
"""A publisher's clock may be ahead of ours by this much; such a date counts as now, a later one is refused."""

MAX_VOLUME = 10**10
"""More people than there are: such a number is a fault of the source, and is treated as unknown."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a source said.

    ``source`` is the id from the sources file, ``name`` how people are told of it, ``family`` the publisher behind it:
    two feeds of one publisher, or two Mastodon servers, are one family. ``title`` is as the source has it, cleaned.
    ``volume`` is in the source's own unit; ``usual`` is what the source itself reports as this item's volume on an
    earlier day, where it does.
    ``at`` is the time the observation speaks of: when a list of "now" was fetched, else when the item was published.
    ``key`` identifies the item within its source over time, ``bucket`` the stretch of time within which seeing it again
    says nothing new. Datetimes are aware UTC.
    """

    source: str
    source_type: str
    family: str
    name: str
    kind: Kind
    title: str
    key: str
    bucket: str
    at: datetime
    observed_at: datetime
    published_at: datetime | None = None
    url: str | None = None
    volume: int | None = None
    usual: float | None = None
    region: str | None = None
    language: str = "und"
    categories: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """One payload's observations, and how many items or fields were refused, by reason.

    What a feed says of itself: ``ttl`` is the pause between two looks that it asks for, ``language`` the one it is in.
    """

    observations: tuple[Observation, ...] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    ttl: timedelta | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What all observations of one payload have in common. ``name`` is how people are told of the source."""

    source: str
    source_type: str
    family: str
    name: str
    observed_at: datetime
    region: str | None = None
    language: str = "und"
    categories: tuple[str, ...] = ()


class Intake:
    """Takes the items of one payload in, one by one. A bad item or field is counted and never stops the others."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._observations: dict[tuple[str, str], Observation] = {}
        self._dropped: Counter[str] = Counter()

    def add(
        self,
        kind: Kind,
        title: object,
        *,
        identity: str | None = None,
        url: object = None,
        volume: object = None,
        usual: float | None = None,
        published_at: datetime | None = None,
        live: bool = True,
        bucket: str | None = None,
        evidence: Iterable[Evidence] = (),
        language: str | None = None,
        region: str | None = None,
        categories: Iterable[str] = (),
        name: str | None = None,
        family: str | None = None,
    ) -> None:
        """One item as the source has it.

        Args:
            identity: what makes the item itself within its source; by default its title's normal form.
            live: True for lists of what is going on now (the item is as fresh as the list), False for dated things.
            bucket: as in ``Observation``. By default the hour for a live list; a dated item is new once.
            language, region, name, family: the item's own, where the source tells; by default the origin's.
            categories: those that the source puts the item in, besides the origin's.
        """
        origin = self._origin
        if len(self._observations) >= MAX_ITEMS:
            self._dropped["more items than are read"] += 1
            return
        text = title_line(title)
        form = normal_form(text)
        if not form:
            self._dropped["no usable title"] += 1
            return
        published = self.date(published_at)
        if published is None and published_at is not None and not live:
            # A dated item with an impossible date can't be placed in time; calling it new would be a lie.
            return
        at = origin.observed_at if live else published or origin.observed_at
        observation = Observation(
            source=origin.source,
            source_type=origin.source_type,
            family=clean_line(family or "", MAX_NAME_CHARS) or origin.family,
            name=clean_line(name or "", MAX_NAME_CHARS) or origin.name,
            kind=kind,
            title=text,
            key=hashlib.sha256((identity or form).encode("utf-8", "replace")).hexdigest()[:24],
            bucket=bucket or (f"{origin.observed_at:%Y-%m-%dT%H}" if live else "once"),
            at=at,
            observed_at=origin.observed_at,
            published_at=published,
            url=self.url(url),
            volume=self.volume(volume),
            usual=usual if usual is not None and math.isfinite(usual) and usual >= 0 else None,
            region=region or origin.region,
            language=language or origin.language,
            categories=tuple(dict.fromkeys((*origin.categories, *categories))),
            evidence=tuple(evidence)[:MAX_EVIDENCE],
        )
        if (observation.key, observation.bucket) in self._observations:
            self._dropped["listed twice"] += 1
            return
        self._observations[observation.key, observation.bucket] = observation

    def evidence(
        self, title: object, *, url: object = None, source: object = None, published_at: datetime | None = None
    ) -> tuple[Evidence, ...]:
        """A headline that came with an item; empty where it has no usable title."""
        text = title_line(title)
        if not normal_form(text):
            return ()
        name = clean_line(source, MAX_NAME_CHARS) if isinstance(source, str) else ""
        date = self.date(published_at)
        return (Evidence(source=name or self._origin.name, title=text, url=self.url(url), published_at=date),)

    def drop(self, reason: str) -> None:
        """Counts an item that the parser itself leaves out."""
        self._dropped[reason] += 1

    def url(self, value: object) -> str | None:
        """``value`` where it is an http(s) address of a host, else None."""
        if not isinstance(value, str) or not value.strip():
            return None
        url = checked_url(value)
        if url is None:
            self._dropped["unusable address"] += 1
        return url

    def volume(self, value: object) -> int | None:
        """``value`` as a whole number from 0 to ``MAX_VOLUME``, else None. Digits in a string count as a number."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if isinstance(value, float) and math.isfinite(value):
            value = int(value)
        if not isinstance(value, int) or not 0 <= value <= MAX_VOLUME:
            self._dropped["absurd volume"] += 1
            return None
        return value

    def date(self, moment: datetime | None) -> datetime | None:
        """``moment`` where it lies between 2000 and now; up to ten minutes ahead becomes now; else None."""
        if moment is None:
            return None
        now = self._origin.observed_at
        if EARLIEST <= moment <= now + CLOCK_SKEW:
            return min(moment.astimezone(UTC), now)
        self._dropped["date in the future" if moment > now else "date before 2000"] += 1
        return None

    def parsed(self, *, ttl: timedelta | None = None, language: str | None = None) -> Parsed:
        return Parsed(tuple(self._observations.values()), self._dropped, ttl, language)


def title_line(value: object) -> str:
    """A title as one harmless line, "" where it is none. Sources escape twice ("&amp;#39;") and put markup in it."""
    if not isinstance(value, str):
        return ""
    return clean_line(_SCRIPT.sub(" ", html.unescape(_ENDLESS.sub(" ", value[:_MAX_RAW_TITLE]))), MAX_TITLE_CHARS)


def joined_form(title: str) -> str:
    """The normal form without its spaces: under it "#worldcup", "World Cup" and "world-cup" are the same."""
    return normal_form(title).replace(" ", "")


def checked_url(value: str) -> str | None:
    """An address that may be shown as a link: http or https, with a host, no spaces or controls, not too long."""
    value = value.strip()
    if len(value) > MAX_URL_CHARS or any(char.isspace() or not char.isprintable() for char in value):
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # an unclosed [ in the host
        return None
    return value.translate(_ESCAPES) if usable else None


# Harmless in an address as %XX, and unable to leave an attribute or a Markdown link.
_ESCAPES = str.maketrans({'"': "%22", "<": "%3C", ">": "%3E", "`": "%60", "\\": "%5C", "'": "%27"})
