"""Any RSS or Atom feed: headlines, each dated by its publisher.

feedparser reads what strict parsers refuse, and has faults that are met here: it is given a stream of bytes (it would
open a string, and even bytes, as a file name), it does not say when there was no feed at all, it lets scripts in titles
and ``javascript:`` links pass, and it accepts dates of the year 1783 and of 2099.
"""

import calendar
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import feedparser
from pydantic import AfterValidator, StringConstraints

from ingest.observation import MAX_NAME_CHARS, Intake, Parsed, checked_url
from ingest.sources.base import Interval, Region, SourceEntry, language_tag, looks_like_html
from trendrag.errors import ParseError

_ENDLESS = re.compile(rb"[0-9]{1000,}")
"""Python reads no number of thousands of digits, and feedparser would lose the whole feed over one."""

_NESTED = re.compile(
    rb"<!ENTITY\s{1,20}\S{1,200}\s{1,20}([\"'])(?:(?!\1).){0,2000}?&(?!#|amp;|lt;|gt;|quot;|apos;)\w", re.DOTALL
)
"""An XML entity made of others: no feed needs it, and a bomb is made of nothing else. The XML parser stops a bomb by
itself, but only after megabytes."""

LONGEST_PACE = timedelta(days=1)
_PERIODS = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=30),
    "yearly": timedelta(days=365),
}


def _is_url(value: str) -> str:
    url = checked_url(value)
    if url is None:
        raise ValueError("must be an http or https address")
    return url


class Rss(SourceEntry):
    """``publisher`` is the family: give feeds of one publisher the same one. By default it is the address's host."""

    type: Literal["rss"]
    url: Annotated[str, AfterValidator(_is_url)]
    publisher: Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)] | None = None
    region: Region | None = None

    every: Interval = timedelta(minutes=30)
    live: ClassVar[bool] = False

    @property
    def family(self) -> str:
        return self.publisher or (urlsplit(self.url).hostname or self.id).removeprefix("www.")

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return (self.url,)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        feed = read_feed(payload, self.id)
        intake = Intake(
            self._origin(
                observed_at, source_type=self.type, family=self.family, name=self.publisher or self.family,
                region=self.region,
            )
        )  # fmt: skip
        for entry in feed.entries:
            link = entry.get("link")
            intake.add(
                "headline",
                entry.get("title"),
                identity=entry.get("id") or link or None,
                url=link,
                published_at=entry_date(entry),
                live=False,
            )
        return intake.parsed(ttl=pace(feed.feed), language=language_tag(feed.feed.get("language")))


def read_feed(payload: bytes, name: str) -> Any:
    """feedparser's view of an RSS or Atom feed; ``name`` names the source in errors.

    Raises:
        ParseError: the payload is no feed.
    """
    if not payload.strip():
        raise ParseError(f"{name}: the answer is empty")
    if looks_like_html(payload):
        raise ParseError(f"{name}: the answer is a web page (a block or consent page?), not a feed")
    if _NESTED.search(payload.replace(b"\0", b"")):  # also where it is UTF-16
        raise ParseError(f"{name}: the feed has XML entities within each other (an entity bomb?), which is refused")
    try:
        # A stream, so that nothing in the bytes can be taken for a file name or an address.
        stream = io.BytesIO(_ENDLESS.sub(b"0", payload))
        feed = feedparser.parse(stream, resolve_relative_uris=False, sanitize_html=True)
    except Exception as error:  # feedparser raises whatever its parts raise on hostile bytes
        raise ParseError(f"{name}: the feed can't be read ({type(error).__name__})") from error
    # ``version`` is missing altogether where nothing was recognised; a cut-off feed still has one, and its items.
    if not feed.get("version") and not feed.entries:
        raise ParseError(f"{name}: the answer is not an RSS or Atom feed")
    return feed


def pace(about: Any) -> timedelta | None:
    """How long a feed asks to be left alone between two looks, at most ``LONGEST_PACE``: the longer of RSS' ``ttl``
    (minutes) and of the syndication module's ``updatePeriod`` (daily without it) divided by ``updateFrequency``
    (once without it). None where it asks for nothing that can be read."""
    ttl, frequency = _whole(about.get("ttl")), _whole(about.get("sy_updatefrequency"))
    found = [timedelta(minutes=ttl)] if ttl else []
    said = about.get("sy_updateperiod")
    period = _PERIODS.get(said.strip().lower()) if isinstance(said, str) else None
    if period or frequency:
        found.append((period or timedelta(days=1)) / (frequency or 1))
    return min(max(found), LONGEST_PACE) if found else None


def _whole(text: object) -> int | None:
    """A number of at least 1 in at most nine digits."""
    digits = text.strip() if isinstance(text, str) else ""
    return int(digits) or None if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def entry_date(entry: Any) -> datetime | None:
    """When the item was published. feedparser's parsed dates are UTC; ``mktime`` would read them as local time."""
    # feedparser's own ``get`` would answer one of the two with the other, and warn that it does.
    parsed = dict.get(entry, "published_parsed") or dict.get(entry, "updated_parsed")
    try:
        return datetime.fromtimestamp(calendar.timegm(parsed), UTC) if parsed else None
    except (ValueError, OverflowError, TypeError, OSError):
        return None
