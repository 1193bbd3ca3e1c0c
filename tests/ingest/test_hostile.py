"""Whole refreshes with one source whose server does its worst, beside healthy ones of several types.

Real HTTP against a loopback server; every address of a source leads there. For each fault: the others' news are stored
and the refresh ends, the source's state says in words what happened, and what it said before stays, with its date.
What the fetcher alone makes of each fault is in ``test_fetcher``, what parsers make of hostile bytes in
``test_all_sources``, and when a source is asked again in ``test_policy``.
"""

import asyncio
import gzip
import json
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import urlsplit

import pytest
import trustme
import zstandard
from click.testing import CliRunner

from indexes.snapshot import open_newest
from ingest.fetcher import Fetched, HttpFetcher
from ingest.policy import LONGEST, FetchState
from ingest.read import SourceReport
from ingest.refresh import RefreshReport, refresh
from ingest.source_commands import sources as sources_command
from ingest.source_report import state as in_words
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.fakes import HashEmbedder
from tests.ingest.fakes import HOUR, NOW, source
from tests.ingest.server import Handler, Server, serving
from trendrag.settings import IngestSettings, Settings
from trendrag.types import Trend

LATER = NOW + HOUR
FEED = source('id = "feed"\ntype = "rss"\nurl = "https://paper.example/feed"\npublisher = "Paper"')
TAGS = source('id = "tags"\ntype = "mastodon"\nhost = "m.example"')
SEARCHES = source('id = "searches"\ntype = "google_trends"\nregion = "US"\nlanguage = "en"')
VICTIMS = {each.id: each for each in (FEED, TAGS, SEARCHES)}
HEALTHY = (
    source('id = "other-feed"\ntype = "rss"\nurl = "https://gazette.example/atom"'),
    source('id = "other-tags"\ntype = "mastodon"\nhost = "n.example"'),
    source('id = "other-searches"\ntype = "google_trends"\nregion = "GB"'),
    source('id = "front-page"\ntype = "hackernews"'),
    source('id = "articles"\ntype = "wikimedia"\nproject = "en.wikipedia"'),
)
ROOMY = IngestSettings(allow_private=True, host_delay_s=0)
MEMORY = 64 * 2**20
"""Bytes that Python may hold at most while a body of 200 MB, or a bomb, comes in."""


def good(of: Source, title: str, at: datetime = NOW) -> bytes:
    """A proper answer of the source's type, with one item."""
    date = format_datetime(at - HOUR, usegmt=True)
    match of.id.removeprefix("other-"):
        case "feed":
            return f"<rss version='2.0'><channel>{item(title, date)}</channel></rss>".encode()
        case "tags":
            return json.dumps([{"name": title.replace(" ", ""), "history": [{"accounts": "50"}]}]).encode()
        case "searches":
            news = "<ht:news_item><ht:news_item_title>All about it</ht:news_item_title></ht:news_item>"
            shown = item(title, date, f"<ht:approx_traffic>2000+</ht:approx_traffic>{news}")
            namespace = "xmlns:ht='https://trends.google.com/trending/rss'"
            return f"<rss version='2.0' {namespace}><channel>{shown}</channel></rss>".encode()
        case "front-page":
            return json.dumps({"hits": [{"title": title, "points": 90, "objectID": "7"}]}).encode()
        case _:
            day = {"year": "2026", "month": "11", "day": "19"}
            return json.dumps({"items": [day | {"articles": [{"article": title, "views": 9}]}]}).encode()


def item(title: str, date: str, more: str = "") -> str:
    return f"<item><title>{title}</title><guid>{title}</guid><pubDate>{date}</pubDate>{more}</item>"


class Rerouted:
    """``Fetcher`` that asks the test's server for every address, with a path for each, at the test's time."""

    def __init__(
        self, http: HttpFetcher, server: Server, at: datetime, scheme: str = "http", host: str = "127.0.0.1"
    ) -> None:
        self._http, self._server, self._at = http, server, at
        self._base = f"{scheme}://{host}:{server.port}"

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        local = urlsplit(url).port == self._server.port  # where a permanent redirect has led
        found = await self._http.get(url if local else self._base + path_of(url), headers=headers)
        return replace(found, fetched_at=self._at)


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"/{parts.hostname}{parts.path}?{parts.query}"


class Site:
    """An installation and the server that all its sources are at."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self.settings, self.server = settings, server
        self.store = ObservationStore.at(settings.database_path)
        self.states = FetchStates(self.store.engine)

    def serve(self, of: Source, what: bytes | Handler, at: datetime = NOW) -> None:
        for url in of.urls(at):
            if isinstance(what, bytes):
                self.server.answer(path_of(url), what)
            else:
                self.server.handlers[path_of(url)] = what

    async def refresh(
        self, at: datetime, sources: Sequence[Source], ingest: IngestSettings = ROOMY, **reroute: str
    ) -> RefreshReport:
        async with HttpFetcher.open(ingest) as http:
            return await self.refresh_by(Rerouted(http, self.server, at, **reroute), at, sources)

    async def refresh_by(self, fetcher: Rerouted, at: datetime, sources: Sequence[Source]) -> RefreshReport:
        # Far above what any of this takes: where something hangs for good, the test fails and says where.
        async with asyncio.timeout(60):
            return await refresh(
                self.settings, sources=sources, fetcher=fetcher, store=self.store, states=self.states,
                everything=True, embedder=HashEmbedder(), now=at, jitter=lambda: 0.0,
            )  # fmt: skip

    @property
    def trends(self) -> dict[str, Trend]:
        return {trend.phrase: trend for trend in open_newest(self.settings.snapshots_dir, HashEmbedder()).trends}

    def titles(self, of: Source) -> set[str]:
        return {each.title for each in self.store.latest(NOW - 99 * HOUR) if each.source == of.id}

    def state(self, of: Source) -> FetchState:
        return self.states.load([of])[of.id]


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with serving() as server:
        server.handlers["/loop"] = status(302, "Location: /loop")
        made = Site(settings, server)
        yield made
        made.store.close()


async def strike(
    site: Site, victims: Sequence[Source], faults: Sequence[Handler], ingest: IngestSettings = ROOMY
) -> tuple[SourceReport, ...]:
    """A good refresh, then one in which the victims' servers do their worst, and what must be true of every such one.
    Gives the victims' reports."""
    everybody = [*victims, *HEALTHY]
    for each in victims:
        site.serve(each, good(each, "Roof Gardens"))
    for each in HEALTHY:
        site.serve(each, good(each, "Latte Art"))
    before = await site.refresh(NOW, everybody)
    assert [each.error for each in before.sources] == [None] * len(everybody)
    known = site.trends["Roof Gardens"]
    for each, fault in zip(victims, faults, strict=True):
        site.serve(each, fault)
    for each in HEALTHY:
        site.serve(each, good(each, "Rainy Day", LATER))
    report = await site.refresh(LATER, everybody, ingest)
    # The others' news are there,
    assert [each.error for each in report.sources[len(victims) :]] == [None] * len(HEALTHY)
    assert [each.id for each in HEALTHY if not site.titles(each) & {"Rainy Day", "#RainyDay"}] == []
    assert {"Latte Art", "Rainy Day"} <= set(site.trends)
    # and what was known before stays, with its dates.
    stays = site.trends["Roof Gardens"]
    assert (stays.first_seen, stays.last_seen) == (known.first_seen, known.last_seen)
    assert stays.evidence == known.evidence
    return report.sources[: len(victims)]


def has_failed(site: Site, victim: Source, report: SourceReport, says: str) -> None:
    """The report, the status and the state of a source say one thing, in words."""
    assert report.status == "failed"
    assert report.error is not None
    assert any(said in report.error for said in says.split("|")), report.error
    assert report.error.isprintable()
    told = site.store.statuses()[victim.id]
    assert in_words(told, LATER) == f"failed 0 s ago: {report.error} (1 items 60 min ago)"
    state = site.state(victim)
    assert (state.errors, state.last_attempt, state.last_success) == (1, LATER, NOW)
    assert site.titles(victim) == {"#RoofGardens" if victim.id == "tags" else "Roof Gardens"}


def raw(*pieces: bytes) -> Handler:
    async def write(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return write


def answered(body: bytes = b"", status: str = "200 OK", *headers: str) -> Handler:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return raw("\r\n".join(lines).encode("latin-1") + body)


def packed(body: bytes, coding: str = "gzip") -> Handler:
    return answered(body, "200 OK", f"Content-Encoding: {coding}")


def status(number: int, *headers: str) -> Handler:
    return answered(b"no", f"{number} No", *headers)


async def reset(writer: asyncio.StreamWriter) -> None:
    """The connection breaks within the body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n<rss")
    await writer.drain()
    writer.transport.abort()


HEAD = b"HTTP/1.1 200 OK\r\n"
PAGE = b"<!DOCTYPE html><html><head><title>Are you a robot?</title></head><body>Click here</body></html>"
LAUGHS = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))


def xml_with(doctype: str, title: str) -> bytes:
    return f"<?xml version='1.0'?><!DOCTYPE rss [{doctype}]><rss version='2.0'><channel>{item(title, '')}</channel></rss>".encode()


XML, JSON, ALL = ("feed", "searches"), ("tags",), ("feed", "tags", "searches")


@dataclass(frozen=True)
class Fault:
    """``says`` must be in the error. ``at`` are the victims that it is tried on."""

    handler: Handler
    says: str
    at: Sequence[str] = ALL


NOT_PROPER = "did not answer properly: "
FAULTS = {
    # -- no HTTP, or not all of it
    "closed at once": Fault(raw(), NOT_PROPER),
    "another protocol": Fault(raw(b"220 mail.example ESMTP\r\n"), NOT_PROPER),
    "reset in mid-body": Fault(reset, NOT_PROPER),
    "longer than it is": Fault(raw(HEAD + b"Content-Length: 5000\r\n\r\n<rss>"), NOT_PROPER),
    "a negative length": Fault(raw(HEAD + b"Content-Length: -5\r\n\r\n<rss>"), NOT_PROPER),
    "two lengths": Fault(raw(HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n<rss>"), NOT_PROPER),
    "chunks cut off": Fault(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n<rss>\r\n"), NOT_PROPER),
    "chunks of no length": Fault(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n<rss>\r\n"), NOT_PROPER),
    "a header of 1 MB": Fault(raw(HEAD + b"X: " + b"x" * 2**20 + b"\r\n\r\n"), NOT_PROPER),
    "100,000 headers": Fault(raw(HEAD + b"X: y\r\n" * 100_000 + b"\r\n"), NOT_PROPER),
    "a NUL in a header": Fault(raw(HEAD + b"Content-Length: 0\r\nETag: \"a\0b\"\r\n\r\n"), NOT_PROPER),
    # -- compressed
    "gzip cut off": Fault(packed(gzip.compress(b"<rss>" * 99)[:-9]), "damaged compressed data"),
    "no gzip at all": Fault(packed(PAGE), "damaged compressed data"),
    "gzip within gzip": Fault(packed(gzip.compress(gzip.compress(PAGE))), "not an RSS or Atom feed|damaged|another"),
    "gzip, gzip": Fault(packed(gzip.compress(gzip.compress(PAGE)), "gzip, gzip"), "not asked for"),
    "brotli": Fault(packed(b"\x0b\x02\x80<rss>\x03", "br"), "not asked for (br)"),
    "deflate": Fault(packed(zlib.compress(PAGE), "deflate"), "not asked for (deflate)"),
    "zstd": Fault(packed(zstandard.compress(PAGE), "zstd"), "not asked for (zstd)"),
    # -- another status
    **{f"status {n}": Fault(status(n), f"status {n}") for n in (204, 206, 400, 401, 403, 404, 451, 500, 502, 503, 599)},
    "a 304 out of the blue": Fault(status(304), "status 304", at=("feed",)),
    "418 with a good body": Fault(answered(b"[]", "418 Teapot"), "status 418"),
    # -- redirects
    "redirect loop": Fault(status(302, "Location: /loop"), "redirects more than 5 times"),
    "redirect to a file": Fault(status(302, "Location: file:///etc/passwd"), "Only http and https"),
    "redirect to nowhere": Fault(status(302, "Location: http://[::1"), "address"),
    "redirect with bytes": Fault(status(302, "Location: http://127.0.0.1:1/\xff\xfe%0d%0aX:%201"), "can't be reached"),
    "redirect with a login": Fault(status(302, "Location: http://u:p@x.example/"), "user name or password"),
    "redirect without a place": Fault(status(302), "status 302"),
    # -- a proper answer that holds something else
    "empty": Fault(answered(), "the answer is empty"),
    "blank": Fault(answered(b" \r\n\t \n"), "empty|damaged"),
    "block page": Fault(answered(PAGE, "200 OK", "Content-Type: text/xml"), "web page"),
    "JSON for XML": Fault(answered(b'[{"name": "x"}]'), "not an RSS or Atom feed|damaged", at=XML),
    "XML for JSON": Fault(answered(good(FEED, "x")), "another format", at=JSON),
    "JSON of another shape": Fault(answered(b'{"error": "x"}'), "not a list", at=JSON),
    "JSON cut off": Fault(answered(b'[{"name": "x", "his'), "damaged or cut off", at=JSON),
    "XML cut off": Fault(answered(good(SEARCHES, "x")[:-30]), "damaged or cut off", at=("searches",)),
    "shorter than it is": Fault(raw(HEAD + b"Content-Length: 5\r\n\r\n[{}, {}]"), "damaged", at=JSON),
    "nested without end": Fault(answered(b"[" * 200_000), "damaged|not an RSS"),
    "UTF-16 without a mark": Fault(answered("[{}]".encode("utf-16-le")[:-1]), "damaged|not an RSS|another format"),
    "no such charset": Fault(
        answered(b"<?xml version='1.0' encoding='x-klingon'?><rss><channel/></rss>"), "damaged", at=("searches",)
    ),
    # -- bombs of entities
    "billion laughs": Fault(answered(xml_with(LAUGHS, "&a9;")), "an entity bomb|XML declarations", at=XML),
    "laughs in UTF-16": Fault(
        answered(xml_with(LAUGHS, "&a9;").decode().encode("utf-16")), "an entity bomb|XML declarations", at=XML
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_costs_its_source_one_answer_and_the_others_nothing(site: Site, name: str) -> None:
    fault = FAULTS[name]
    victims = [VICTIMS[each] for each in fault.at]
    for victim, report in zip(victims, await strike(site, victims, [fault.handler] * len(victims)), strict=True):
        has_failed(site, victim, report, fault.says)
