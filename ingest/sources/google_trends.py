"""Google Trends: what is searched more than usual in a country, with the news that explains it.

An unofficial feed: no item has an id and all share one link, so that an item is its title and its start. Read with an
XML parser, not with feedparser: that keeps only the last of an item's news, and loses the traffic where the namespace
is written differently.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError as XmlError

# defusedxml ships no types, and its stubs are not among our packages.
from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from ingest.observation import Intake, Parsed
from ingest.sources.base import Region, SourceEntry, looks_like_html
from trendrag.errors import ParseError
from trendrag.text import normal_form
from trendrag.types import Evidence

_TRAFFIC = re.compile(r"^\s*([0-9][0-9.,]{0,15})\s*([KM]?)\s*\+?\s*$", re.IGNORECASE)
_UNITS = {"": 1, "K": 1_000, "M": 1_000_000}


class GoogleTrends(SourceEntry):
    type: Literal["google_trends"]
    region: Region

    @property
    def family(self) -> str:
        return "google"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return (f"https://trends.google.com/trending/rss?geo={self.region}",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        origin = self._origin(
            observed_at, source_type=self.type, family=self.family, name="Google Trends", region=self.region
        )
        intake = Intake(origin)
        for item in _items(payload):
            title = _text(item, "title")
            started = _date(_text(item, "pubDate"))
            intake.add(
                "phrase",
                title,
                identity=f"{normal_form(title[:300])}|{started.isoformat() if started else ''}",
                url=f"https://trends.google.com/trending?geo={self.region}",
                volume=traffic(_text(item, "approx_traffic")),
                published_at=started,
                evidence=_news(item, intake),
            )
        return intake.parsed()


def traffic(text: str) -> int | None:
    """Searches, from "2000+", "200,000+", "50K+" or "1.5M+". None where it is none of these."""
    found = _TRAFFIC.match(text)
    if not found:
        return None
    digits, unit = found[1], found[2].upper()
    try:
        # With a unit a point or comma is decimal ("1.5M+"), without one it groups thousands ("200,000+").
        number = float(digits.replace(",", ".")) if unit else float(re.sub(r"[.,]", "", digits))
    except ValueError:
        return None
    return int(number * _UNITS[unit])


def _items(payload: bytes) -> Iterable[Element]:
    if looks_like_html(payload):
        raise ParseError("Google Trends: the answer is a web page (a block or consent page?), not a feed")
    try:
        root: Element = fromstring(payload, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ParseError("Google Trends: the answer has XML declarations that are refused") from error
    except (XmlError, ValueError, LookupError) as error:  # LookupError: an encoding that Python doesn't know
        raise ParseError(
            f"Google Trends: the answer is {'damaged or cut off' if payload.strip() else 'empty'}"
        ) from error
    if _local(root) != "rss":
        raise ParseError("Google Trends: the answer is not an RSS feed")
    return [element for element in root.iter() if _local(element) == "item"]


def _news(item: Element, intake: Intake) -> Iterator[Evidence]:
    for news in item:
        if _local(news) == "news_item":
            title, url = _text(news, "news_item_title"), _text(news, "news_item_url")
            yield from intake.evidence(title, url=url, source=_text(news, "news_item_source"))


def _local(element: Element) -> str:
    """The tag without its namespace, which has been written in more than one way. Comments have none."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _text(parent: Element, name: str) -> str:
    return next(((child.text or "").strip() for child in parent if _local(child) == name), "")


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
