"""What some bytes are: the source type whose parser reads them, or a web page and the feeds that it names. Pure.

It looks at shape only and never judges whether the content is any good; that is the parser's part. Everything here
comes from outside: nothing raises on hostile bytes but ``ParseError``, and no page is read beyond ``MAX_PAGE``.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from ingest.observation import checked_url, title_line
from ingest.sources.base import looks_like_html
from trendrag.errors import ParseError

TYPES = ("bluesky", "gdelt", "google_trends", "hackernews", "mastodon", "reddit", "rss", "wikimedia", "youtube")
"""The types that there are. Bluesky, GDELT, Reddit and YouTube are not told apart by their content."""

MAX_PAGE = 1 << 19
"""Bytes of a web page that are searched for feeds. They stand in its head."""

MAX_FEEDS = 20
_FEED_TYPES = {"application/rss+xml", "application/atom+xml"}
_FEED_ROOT = re.compile(rb"<(?:\w+:)?(?:rss|feed|rdf)\b", re.IGNORECASE)
_GOOGLE = re.compile(
    rb"xmlns:\w+\s*=\s*[\"']https?://(?:trends\.google\.com/trending/rss|www\.google\.com/trends/hottrends)",
    re.IGNORECASE,
)
_PROJECT = re.compile(r"[a-z-]{2,12}\.wikipedia")


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed that a page names. ``title`` is one harmless line, perhaps empty."""

    url: str
    title: str


def recognise(payload: bytes, url: str | None = None, kind: str | None = None) -> dict[str, str]:
    """The fields that an entry of the sources file would have for ``payload``, as far as it and its address show them.

    Args:
        url: where the payload came from; None for a saved one.
        kind: its type, where it is known.

    Raises:
        ParseError: it is a page, or nothing that any source type has.
    """
    data = _json(payload)
    kind = kind or _kind(payload, data, url)
    parts = urlsplit(url or "")
    fields = {"type": kind}
    if kind == "rss" and url:
        fields["url"] = url
    elif kind == "google_trends":
        region = parse_qs(parts.query).get("geo", [""])[0].upper()
        fields |= {"region": region} if re.fullmatch("[A-Z]{2}", region) else {}
    elif kind == "mastodon":
        fields |= {"host": parts.netloc} if parts.netloc else {}
        fields["what"] = _mastodon_what(data, parts.path)
    elif kind == "wikimedia":
        project = _wikimedia_project(data, parts.path)
        fields |= {"project": project} if project else {}
    return fields


def is_page(payload: bytes) -> bool:
    """True for HTML, also where a comment or an XML declaration comes first."""
    head = payload[:4096].lower()
    return looks_like_html(payload) or (b"<html" in head and not _FEED_ROOT.search(head))


def feeds_in(page: bytes, base: str) -> tuple[Feed, ...]:
    """The RSS and Atom feeds that a web page at ``base`` names in its ``<link rel="alternate">``, in its order."""
    finder = _FeedLinks(base)
    # html.parser gives up on some broken declarations; what it found before them stands. ``close`` is left out: at the
    # end of a cut page it would try each open "<!--" anew, which takes the square of the page's length.
    with contextlib.suppress(AssertionError, ValueError):
        finder.feed(page[:MAX_PAGE].decode("utf-8", "replace"))
    return tuple(finder.found.values())


class _FeedLinks(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__(convert_charrefs=True)
        self._base = base
        self.found: dict[str, Feed] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in reversed(attrs)}  # of an attribute given twice the first counts
        if tag == "base" and said.get("href"):
            self._base = _joined(self._base, said["href"]) or self._base
        if tag != "link" or "alternate" not in said.get("rel", "").lower().split():
            return
        if said.get("type", "").partition(";")[0].strip().lower() not in _FEED_TYPES or not said.get("href"):
            return
        url = _joined(self._base, said["href"])
        if url and len(self.found) < MAX_FEEDS:
            self.found.setdefault(url, Feed(url, title_line(said.get("title", ""))))


def _joined(base: str, href: str) -> str | None:
    try:
        return checked_url(urljoin(base, href.strip()))
    except ValueError:  # an unclosed [ in the host
        return None


def _json(payload: bytes) -> Any:
    """What the JSON in ``payload`` says, None where it is none."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _kind(payload: bytes, data: Any, url: str | None) -> str:
    head = payload[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not payload.strip():
        raise ParseError("the answer is empty")
    if is_page(payload):
        raise ParseError("the answer is a web page, not a feed")
    if data is not None:
        return _json_kind(data, url)
    if head[:1] in (b"{", b"["):
        raise ParseError("the answer is damaged or cut off")
    return "google_trends" if _GOOGLE.search(head) else "rss"


def _json_kind(data: Any, url: str | None) -> str:
    if isinstance(data, dict) and isinstance(data.get("hits"), list):
        return "hackernews"
    if isinstance(data, dict) and "articles" in _first(data.get("items")):
        return "wikimedia"
    if isinstance(data, list) and ("history" in _first(data) or "/api/v1/trends/" in urlsplit(url or "").path):
        return "mastodon"
    raise ParseError("the answer is JSON of a shape that no source type has")


def _mastodon_what(data: Any, path: str) -> str:
    if first := _first(data):
        return "links" if "title" in first else "tags"
    return "links" if path.rstrip("/").endswith("/links") else "tags"


def _wikimedia_project(data: Any, path: str) -> str | None:
    named = _first(data.get("items")).get("project") if isinstance(data, dict) else None
    found = _PROJECT.search(named if isinstance(named, str) else path)
    return found[0] if found else None


def _first(items: Any) -> dict[str, Any]:
    """The first object of a list, {} where there is none."""
    found = items if isinstance(items, list) else ()
    return next((item for item in found if isinstance(item, dict)), {})
