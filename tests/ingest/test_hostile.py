"""Whole refreshes with one source whose server does its worst, beside healthy ones of several types.

Real HTTP against a loopback server; every address of a source leads there. For each fault: the others' news are stored
and the refresh ends, the source's state says in words what happened, and what it said before stays, with its date.
What the fetcher alone makes of each fault is in ``test_fetcher``, what parsers make of hostile bytes in
``test_all_sources``, and when a source is asked again in ``test_policy``.
"""

import asyncio
import contextlib
import gzip
import json
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import zstandard
from click.testing import CliRunner

from indexes.snapshot import open_newest
from ingest import addresses
from ingest.fetcher import Fetched, HttpFetcher
from ingest.policy import LONGEST, FetchState
from ingest.read import SourceReport
from ingest.refresh import RefreshReport, refresh
from ingest.source_commands import sources as sources_command
from ingest.source_report import state as in_words
from ingest.sources import parse_sources
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.fakes import HashEmbedder
from tests.ingest.fakes import HOUR, NOW, source
from tests.ingest.server import Handler, Server, serving
from trendrag.addresses import is_public
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
TLS = ssl.create_default_context()
ROOMY = IngestSettings(allow_private=True, host_delay_s=0)
MEMORY = 64 * 2**20
"""Bytes that Python may hold at most while a body of 200 MB, or a bomb, comes in."""


def kind(of: Source) -> str:
    return str(getattr(of, "type"))  # noqa: B009  (every entry has one; the protocol doesn't say so)


def good(of: Source, title: str, at: datetime = NOW) -> bytes:
    """A proper answer of the source's type, with one item."""
    date = format_datetime(at - HOUR, usegmt=True)
    match kind(of):
        case "rss":
            return f"<rss version='2.0'><channel>{item(title, date)}</channel></rss>".encode()
        case "mastodon":
            return json.dumps([{"name": title.replace(" ", ""), "history": [{"accounts": "50"}]}]).encode()
        case "google_trends":
            news = "<ht:news_item><ht:news_item_title>All about it</ht:news_item_title></ht:news_item>"
            shown = item(title, date, f"<ht:approx_traffic>2000+</ht:approx_traffic>{news}")
            namespace = "xmlns:ht='https://trends.google.com/trending/rss'"
            return f"<rss version='2.0' {namespace}><channel>{shown}</channel></rss>".encode()
        case "hackernews":
            return json.dumps({"hits": [{"title": title, "points": 90, "objectID": "7"}]}).encode()
        case _:
            day = {"year": "2026", "month": "11", "day": "19"}
            return json.dumps({"items": [day | {"articles": [{"article": title, "views": 9}]}]}).encode()


def item(title: str, date: str, more: str = "") -> str:
    return f"<item><title>{title}</title><guid>{title}</guid><pubDate>{date}</pubDate>{more}</item>"


class Rerouted:
    """``Fetcher`` that asks the test's server for every address, with a path for each, at the test's time."""

    def __init__(self, http: HttpFetcher, site: "Site", at: datetime) -> None:
        self._http, self._site, self._at = http, site, at

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        local = urlsplit(url).port is not None  # where a permanent redirect has led
        found = await self._http.get(url if local else self._site.local(url), headers=headers)
        return replace(found, fetched_at=self._at)


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"/{parts.hostname}{parts.path}?{parts.query}"


class Site:
    """An installation and the server that all its sources are at."""

    def __init__(self, settings: Settings, server: Server, store: ObservationStore | None = None) -> None:
        self.settings, self.server = settings, server
        self.tls, self.base = TLS, "http://127.0.0.1"
        self.elsewhere: dict[str, Server] = {}
        self.store = store or ObservationStore.in_memory()
        self.states = FetchStates(self.store.engine)

    def server_of(self, url: str) -> Server:
        return self.elsewhere.get(urlsplit(url).hostname or "", self.server)

    def local(self, url: str) -> str:
        return f"{self.base}:{self.server_of(url).port}{path_of(url)}"

    def serve(self, of: Source, what: bytes | Handler) -> None:
        for url in of.urls(NOW):
            if isinstance(what, bytes):
                self.server_of(url).answer(path_of(url), what)
            else:
                self.server_of(url).handlers[path_of(url)] = what

    async def refresh(self, at: datetime, sources: Sequence[Source], ingest: IngestSettings = ROOMY) -> RefreshReport:
        # The time is far above what any of this takes: where something hangs for good, the test fails and says where.
        async with HttpFetcher.open(ingest, tls=self.tls) as http, asyncio.timeout(60):
            return await refresh(
                self.settings, sources=sources, fetcher=Rerouted(http, self, at), store=self.store, states=self.states,
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
    assert site.titles(victim) == {"#RoofGardens" if kind(victim) == "mastodon" else "Roof Gardens"}


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
    declared = f"<?xml version='1.0'?><!DOCTYPE rss [{doctype}]>"
    return f"{declared}<rss version='2.0'><channel>{item(title, '')}</channel></rss>".encode()


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


async def test_servers_that_hang_or_drip_end_with_their_time(site: Site) -> None:
    """One byte a tenth of a second would keep each read within its limit for hours."""
    gone = asyncio.Event()

    def dripping(*before: bytes) -> Handler:
        async def drip(writer: asyncio.StreamWriter) -> None:
            for piece in before:
                writer.write(piece)
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), 0.1)

        return drip

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await gone.wait()

    async def hang_in_body(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 5000\r\n\r\n<rss")
        await writer.drain()
        await gone.wait()

    drips = [dripping(), dripping(HEAD + b"X: "), dripping(HEAD + b"Content-Length: 5000\r\n\r\n")]
    faults = [hang, hang_in_body, *drips]
    victims = [source(f'id = "slow-{n}"\ntype = "rss"\nurl = "https://slow-{n}.example/feed"') for n in range(5)]
    limits = ROOMY.model_copy(update={"timeout_s": 4.0, "read_timeout_s": 1.0})
    reports = await strike(site, victims, faults, limits)
    gone.set()
    for victim, report in zip(victims, reports, strict=True):
        has_failed(site, victim, report, "it stopped sending|took longer than 4 s")
    assert "stopped sending" in str(reports[0].error)
    assert "took longer" in str(reports[4].error)


def endless(head: bytes, chunk: bytes, times: int) -> Handler:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + head + b"\r\n\r\n")
        for _ in range(times):
            writer.write(chunk)
            await writer.drain()

    return write


def bomb(compressed_for: int) -> bytes:
    """So many MB of zeros, packed some hundredfold."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(compressed_for)) + packer.flush()


LARGE: dict[str, tuple[Callable[[], Handler], str]] = {
    "200 MB, as it says": (
        lambda: endless(b"Content-Length: 209715200", b"x" * 2**20, 200),
        "sent more than 5.0 MiB",
    ),
    "200 MB, in chunks": (
        lambda: endless(b"Transfer-Encoding: chunked", b"100000\r\n" + b"x" * 2**20 + b"\r\n", 200),
        "sent more than 5.0 MiB",
    ),
    "gzip bomb of 200 MB": (lambda: packed(bomb(200)), "sent more than 5.0 MiB"),
    "many small gzip bombs": (lambda: packed(bomb(4) * 50), "sent more than 5.0 MiB"),
    "an item of 5 MB": (
        lambda: answered(b"<rss version='2.0'><channel><item><title>" + b"x" * 5_000_000 + b"</title></item>"),
        "",
    ),
    "an entity 10,000 times": (
        lambda: answered(xml_with(f'<!ENTITY q "{"A" * 50_000}">', "&q;" * 10_000)),
        "",
    ),
}


@pytest.mark.parametrize("name", LARGE)
async def test_the_memory_that_a_large_answer_takes_is_bounded(site: Site, name: str) -> None:
    made, says = LARGE[name]
    fault = made()
    # Once before: what a first refresh loads is not the answer's.
    await strike(site, [FEED], [answered(PAGE)])
    site.serve(FEED, fault)
    tracemalloc.start()
    try:
        report = (await site.refresh(LATER + HOUR, [FEED, *HEALTHY])).sources[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert says in (report.error or "")
    assert peak < MEMORY
    assert "Roof Gardens" in site.trends


# -- answers that can be used, with care


def dated(*dates: str) -> bytes:
    items = "".join(item(f"Story {number}", date) for number, date in enumerate(dates))
    return f"<rss version='2.0'><channel>{items}</channel></rss>".encode()


def in_charset(declared: str, real: str, mark: bytes = b"") -> Handler:
    said = f"<?xml version='1.0' encoding='{declared}'?><rss version='2.0'><channel>{item('Crème Brûlée', '')}"
    return answered(mark + f"{said}</channel></rss>".encode(real), "200 OK", "Content-Type: text/xml; charset=ascii")


EXTERNAL = "<!ENTITY e SYSTEM '{}'>"


async def with_the_servers_address(writer: asyncio.StreamWriter) -> None:
    secret = f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}/secret"
    await answered(xml_with(EXTERNAL.format(secret), "Tea &e; time"))(writer)


USABLE: dict[str, tuple[Handler, set[str], Mapping[str, int]]] = {
    "dates of 1783 and 2099": (
        answered(
            dated(
                "Tue, 23 Dec 1783 12:00:00 GMT",
                "Thu, 01 Jan 2099 00:00:00 GMT",
                format_datetime(LATER + HOUR, usegmt=True),
                format_datetime(LATER - HOUR, usegmt=True),
            )
        ),
        {"Story 3"},
        {"date before 2000": 1, "date in the future": 2},
    ),
    "a server whose clock is in 1999": (
        answered(
            dated(format_datetime(LATER - HOUR, usegmt=True)),
            "200 OK",
            "Date: Fri, 31 Dec 1999 23:59:59 GMT",
            "Expires: Sat, 01 Jan 2000 00:59:59 GMT",
            "Age: 99999999999999999999",
            "Last-Modified: Thu, 01 Jan 2099 00:00:00 GMT",
        ),
        {"Story 0"},
        {},
    ),
    "cut off within an item": (answered(dated("", "")[:-40]), {"Story 0", "Story 1"}, {}),
    "UTF-16 with a mark": (in_charset("utf-16", "utf-16"), {"Crème Brûlée"}, {}),
    "UTF-16 said to be UTF-8": (in_charset("utf-8", "utf-16-le", b"\xff\xfe"), {"Crème Brûlée"}, {}),
    "Latin-1 said to be UTF-8": (in_charset("utf-8", "latin-1"), {"Crème Brûlée"}, {}),
    "UTF-7": (in_charset("utf-7", "utf-7"), {"Crème Brûlée"}, {}),
    "no such charset": (in_charset("x-klingon", "utf-8"), {"Crème Brûlée"}, {}),
    "a file as an entity": (
        answered(xml_with(EXTERNAL.format("file:///etc/passwd"), "Tea &e; time")),
        {"Tea time", "Tea &e; time"},
        {},
    ),
    "an address as an entity": (
        with_the_servers_address,
        {"Tea time", "Tea &e; time"},
        {},
    ),
    "validators that can not be sent back": (
        answered(dated(""), "200 OK", "ETag: \xff\xfe\x80", f"Last-Modified: {'x' * 9_000}"),
        {"Story 0"},
        {},
    ),
}


@pytest.mark.parametrize("name", USABLE)
async def test_what_can_be_used_of_an_odd_answer_is_used_and_the_rest_counted(site: Site, name: str) -> None:
    fault, titles, dropped = USABLE[name]
    site.server.answer("/secret", b"from the inside")
    (report,) = await strike(site, [FEED], [fault])
    assert (report.status, report.error) == ("ok", None)
    found = site.titles(FEED) - {"Roof Gardens"}
    assert found
    assert found <= titles
    assert {reason: count for reason, count in report.dropped.items() if reason != "unusable address"} == dropped
    assert not any("/secret" in request for request in site.server.requests)
    state = site.state(FEED)
    assert (state.errors, state.etag, state.last_success) == (0, None, LATER)
    assert state.next_due is not None
    assert timedelta(minutes=5) <= state.next_due - LATER <= LONGEST
    again = (await site.refresh(LATER + HOUR, [FEED, *HEALTHY])).sources[0]
    assert again.status == "unchanged"


# -- what servers ask for


@pytest.mark.parametrize(
    ("header", "minutes", "told"),
    [
        ("Retry-After: 3600", 60, True),
        (f"Retry-After: {format_datetime(LATER + 2 * HOUR, usegmt=True)}", 120, True),
        ("Retry-After: Thu, 20 Nov 2036 09:00:00 GMT", 24 * 60, True),
        ("Retry-After: 315360000", 24 * 60, True),
        ("Retry-After: -5", 5, False),
        ("Retry-After: in a while\x00", 5, False),
        ("X: y", 5, False),
    ],
)
async def test_too_many_requests(site: Site, header: str, minutes: int, told: bool) -> None:
    date = f"Date: {format_datetime(LATER, usegmt=True)}"
    fault = status(429, date, header.replace("\x00", " \xe9"))
    for victim, report in zip([FEED, TAGS], await strike(site, [FEED, TAGS], [fault, fault]), strict=True):
        has_failed(site, victim, report, "status 429 (too many requests)")
        state = site.state(victim)
        assert (state.next_due, state.told_to_wait) == (LATER + timedelta(minutes=minutes), told)
    next_one = await site.refresh(LATER + timedelta(minutes=4), [FEED, TAGS])  # with --all
    assert [each.status == "waiting" for each in next_one.sources] == [told, told]


async def test_what_is_gone_is_muted_and_its_trends_fade_by_themselves(site: Site) -> None:
    (report,) = await strike(site, [FEED], [status(410)])
    assert report.says == "muted: 410 (gone for good); change or remove its entry in the sources file"
    assert "status 410 (gone)" in str(site.store.statuses()["feed"].last_error)
    later = await site.refresh(LATER + HOUR, [FEED, *HEALTHY])
    assert later.sources[0].status == "muted"


async def test_a_chain_of_permanent_redirects_is_adopted_once_it_was_seen_five_times(site: Site) -> None:
    for path, to in [("/one", "/two"), ("/two", "/three")]:
        site.server.answer(path, status="308 Moved", Location=to)
    site.server.answer("/three", good(FEED, "Roof Gardens"))
    # https is never left for http, which is what the test's server speaks.
    moving = source('id = "moving"\ntype = "rss"\nurl = "http://moving.example/feed"')
    (report,) = await strike(site, [moving], [status(301, "Location: /one")])
    assert (report.status, report.items) == ("unchanged", 0)  # the same bytes as before, from elsewhere
    for hour in range(2, 7):
        assert (await site.refresh(NOW + hour * HOUR, [moving, *HEALTHY])).sources[0].error is None
    moves = (path_of(moving.urls(NOW)[0]), "/one", "/two", "/three")
    asked = [path for path in (request.split(" ")[1] for request in site.server.requests) if path in moves]
    assert asked[-5:] == [*moves, "/three"]
    # A captured target is worth one error; then the entry's own address counts again.
    site.server.answer("/three", PAGE)
    assert (await site.refresh(NOW + 7 * HOUR, [moving, *HEALTHY])).sources[0].status == "failed"
    site.serve(moving, good(moving, "Roof Gardens"))
    assert (await site.refresh(NOW + 8 * HOUR, [moving, *HEALTHY])).sources[0].error is None
    assert "Roof Gardens" in site.trends


@pytest.mark.parametrize(
    "place",
    [
        "10.0.0.7", "167772167", "0x0a000007", "10.7", "[::ffff:10.0.0.7]", "[64:ff9b::a00:7]", "[fe80::1]", "0",
        "169.254.169.254", "[fd00:ec2::254]", "intranet.example",
    ],
)  # fmt: skip
async def test_a_redirect_to_a_private_address_is_not_followed(
    site: Site, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The server itself counts as public here; all else is judged as ever."""
    judge, look_up = is_public, asyncio.get_running_loop().getaddrinfo

    async def named(host: str, port: int, **more: Any) -> Any:
        return await look_up("192.168.7.7" if host == "intranet.example" else host, port, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", named)
    monkeypatch.setattr(addresses, "is_public", lambda each: str(each) == "127.0.0.1" or judge(each))
    strict = ROOMY.model_copy(update={"allow_private": False})
    (report,) = await strike(site, [FEED], [status(301, f"Location: http://{place}/latest/meta-data")], strict)
    has_failed(site, FEED, report, "is on a private network")
    assert "TRENDRAG_INGEST__ALLOW_PRIVATE" in str(report.error)
    assert site.state(FEED).moved_to is None


# -- TLS


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("good", None),
        ("by nobody known", "its TLS certificate is refused: unable to get local issuer certificate"),
        ("of another host", "its TLS certificate is refused: Hostname mismatch"),
        ("expired", "its TLS certificate is refused: certificate has expired"),
        ("no TLS at all", "can't be reached: no connection"),
    ],
)
async def test_a_certificate_that_is_wrong(settings: Settings, name: str, says: str | None) -> None:
    """Real TLS with certificates made on the spot. The others are at a server of their own, with a good one."""
    authority, stranger = trustme.CA(), trustme.CA()
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    made = {
        "by nobody known": lambda: stranger.issue_cert("localhost"),
        "of another host": lambda: authority.issue_cert("elsewhere.example"),
        "expired": lambda: authority.issue_cert("localhost", not_before=long_ago, not_after=long_ago + HOUR),
    }.get(name, lambda: authority.issue_cert("localhost"))()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.configure_cert(theirs)
    proper = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(proper)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    hasty = ROOMY.model_copy(update={"connect_timeout_s": 1.0})  # a server without TLS says nothing at all
    async with serving(proper) as good_server, serving(None if name == "no TLS at all" else theirs) as bad_server:
        site = Site(settings, good_server)
        site.tls, site.elsewhere = trusting, {"paper.example": bad_server}
        site.base = "https://localhost"
        site.serve(FEED, good(FEED, "Roof Gardens"))
        site.serve(HEALTHY[1], good(HEALTHY[1], "Latte Art"))
        struck, other = (await site.refresh(NOW, [FEED, HEALTHY[1]], hasty)).sources
        assert other.error is None
        assert "Latte Art" in site.trends
        if says is None:
            assert struck.error is None
        else:
            assert says in str(struck.error)
            assert str(site.store.statuses()["feed"].last_error) == struck.error
            assert bad_server.requests == []  # nothing was asked of whom we do not know
        site.store.close()


# -- all at once


async def test_everything_at_once_and_what_the_operator_is_told(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        f'[[source]]\nid = "fault-{n}"\ntype = "rss"\nurl = "https://fault-{n}.example/feed"\n'
        for n in range(len(FAULTS))
    ]
    site = Site(settings, site.server, ObservationStore.at(settings.database_path))  # where the command looks
    victims = parse_sources("\n".join(entries), "the test's sources")
    reports = await strike(site, victims, [fault.handler for fault in FAULTS.values()])
    file = settings.data_dir / "sources.toml"
    file.write_text("\n".join(entries))
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(settings.data_dir))
    shown = CliRunner().invoke(sources_command, ["list"])
    assert shown.exit_code == 0
    for (name, fault), victim, report in zip(FAULTS.items(), victims, reports, strict=True):
        if "feed" in fault.at:
            has_failed(site, victim, report, fault.says)
            assert str(report.error) in shown.output, name
    site.store.close()
    rows = json.loads(CliRunner().invoke(sources_command, ["list", "--json"]).stdout)["sources"]
    assert [row["last_error"] for row in rows] == [report.error for report in reports]
