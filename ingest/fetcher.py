"""The one way in which ingest speaks HTTP.

Every request has a connect, a read and a total time limit, a byte limit that also counts after decompression, an
address check on every hop (``addresses``), a limit of redirects, at most two requests to one host at a time, and a
pause between the beginnings of two requests to one host.
Proxies named in the environment are not used: a proxy looks names up itself, so that the address check would check
nothing. (Where only a proxy leads out, run `trendrag refresh` on a machine that has the network.)

What the bytes mean is left to the sources; whom to ask when, and which news to ask for, to ``policy``.
"""

import asyncio
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol, Self

import httpx2

from ingest.addresses import resolve
from ingest.body import Body, TooLarge
from ingest.turns import Turns
from trendrag.addresses import Address
from trendrag.errors import FetchError
from trendrag.settings import IngestSettings
from trendrag.text import clean_line

MAX_REDIRECTS = 5
PER_HOST = 2
_PERMANENT = {301, 308}
_REDIRECTS = _PERMANENT | {302, 303, 307}
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """A good answer. ``url`` is where it came from in the end; ``headers`` are lower-case; ``body`` is decompressed.

    ``moved`` are the addresses that it was redirected to, in order, where every redirect was permanent (301, 308). One
    temporary redirect among them says that the first address is still the right one: then it is empty.
    """

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    url: str
    fetched_at: datetime
    moved: tuple[str, ...] = ()


class HttpStatus(FetchError):
    """The server answered, with another status than 200. ``headers`` and ``moved`` are as in ``Fetched``."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str], moved: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.moved = moved


class NotModified(HttpStatus):
    """304: what was there before still is. Only an answer to the headers of a conditional request."""


class Fetcher(Protocol):
    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        """The body at ``url``. A key in ``headers`` goes to that host only, not on to where it redirects.

        Raises:
            FetchError: no usable answer, for whatever reason; ``HttpStatus`` where the server gave another status,
                ``NotModified`` where that is 304.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes. ``total_s`` covers one ``get`` with all its redirects, but not the wait for one's turn."""

    connect_s: float
    read_s: float
    total_s: float
    max_bytes: int

    @classmethod
    def of(cls, settings: IngestSettings) -> "Limits":
        return cls(settings.connect_timeout_s, settings.read_timeout_s, settings.timeout_s, settings.max_bytes)


def user_agent(contact: str | None) -> str:
    """Whom a source's operator may write to when a refresh troubles them. Wikimedia asks for this by its policy."""
    said = clean_line(contact.replace("(", " ").replace(")", " "), 200) if contact else ""
    # clean_line takes addresses out, and a contact may be one; here it is the operator's own and only its form counts.
    if contact and contact.startswith(("http://", "https://")) and contact.isascii() and contact.isprintable():
        said = contact[:200]
    said = said.encode("ascii", "ignore").decode()
    return f"TrendRAG/{version('trendrag')} (+{said or 'no contact given'})"


class HttpFetcher:
    """``Fetcher`` over the network. Use as ``async with HttpFetcher.open(settings.ingest) as fetcher``."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        limits: Limits,
        *,
        allow_private: bool,
        turns: Turns,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._limits = limits
        self._allow_private = allow_private
        self._turns = turns
        self._clock = clock
        self._sleep = sleep
        self._slots: dict[str, asyncio.Semaphore] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: IngestSettings,
        *,
        turns: Turns | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Self]:
        """``turns`` and ``sleep`` are for tests, which don't wait, and ``tls`` is for those that trust a certificate of
        their own."""
        limits = Limits.of(settings)
        async with httpx2.AsyncClient(
            verify=tls or True,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(limits.read_s, connect=limits.connect_s),
            # Connections are not kept: they are made to an address, and a kept one could serve another host that has
            # the same address, without that host's certificate ever being checked.
            limits=httpx2.Limits(max_keepalive_connections=0),
            headers={
                "User-Agent": user_agent(settings.contact),
                "Accept-Encoding": "gzip",
                "Accept": "application/json, application/rss+xml, application/atom+xml, application/xml, */*;q=0.5",
            },
        ) as client:
            turns = turns or Turns(settings.host_delay_s)
            yield cls(client, limits, allow_private=settings.allow_private, turns=turns, sleep=sleep)

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        first = current = _checked(url)
        async with self._turn(current) as wait:
            moved: tuple[str, ...] | None = ()
            for _hop in range(MAX_REDIRECTS + 1):
                await wait(current)
                answer = await self._hop(_Request("GET", current, _for_hop(headers or {}, first, current)), moved or ())
                if isinstance(answer, Fetched):
                    return answer
                moved = (*moved, str(answer.to)) if answer.permanent and moved is not None else None
                current = answer.to
        raise FetchError(f"{first.host} redirects more than {MAX_REDIRECTS} times")

    async def call(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None = None) -> Fetched:
        """One request to an interface, under the limits of ``get``. A redirect is not followed, since what is sent is
        meant for this host alone.

        Raises:
            FetchError: as in ``get``; a redirect is an ``HttpStatus``.
        """
        at = _checked(url)
        async with self._turn(at) as wait:
            await wait(at)
            answer = await self._hop(_Request(method, at, headers, content), ())
        if isinstance(answer, Fetched):
            return answer
        raise HttpStatus(f"{at.host} redirects elsewhere ({answer.status})", answer.status, {})

    @asynccontextmanager
    async def _turn(self, url: httpx2.URL) -> AsyncIterator[Callable[[httpx2.URL], Awaitable[None]]]:
        """A place at the host and the time limit; what it yields waits for the turn of each hop, beside that limit."""
        last = url
        async with self._slots.setdefault(url.host, asyncio.Semaphore(PER_HOST)):
            try:
                async with asyncio.timeout(self._limits.total_s) as deadline:

                    async def wait(hop: httpx2.URL) -> None:
                        nonlocal last
                        last = hop
                        if pause := self._turns.take(hop.host):
                            deadline.reschedule((deadline.when() or 0) + pause)
                            await self._sleep(pause)

                    yield wait
            except TimeoutError as error:
                raise FetchError(f"{last.host} took longer than {self._limits.total_s:g} s") from error

    async def _hop(self, request: "_Request", moved: tuple[str, ...]) -> "Fetched | _Redirect":
        """One request: its answer, or where it redirects to."""
        url = request.url
        host = url.raw_host.decode("ascii")
        addresses = await resolve(host, url.port or _PORTS[url.scheme], allow_private=self._allow_private)
        for number, address in enumerate(addresses, 1):
            try:
                return await self._ask(request, address, moved)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if number == len(addresses):
                    raise FetchError(f"{url.host} can't be reached: {_why(error)}") from error
            except httpx2.HTTPError as error:
                raise FetchError(f"{url.host} did not answer properly: {_why(error)}") from error
            except httpx2.InvalidURL as error:
                raise FetchError(f"{url.host} redirects to an address that is none") from error
        raise AssertionError("resolve gives at least one address")

    async def _ask(self, asked: "_Request", address: Address, moved: tuple[str, ...]) -> "Fetched | _Redirect":
        url = asked.url
        # To the checked address, in the name of the host: the Host header and, for TLS, the name that the certificate
        # must be for stay the host's.
        pinned = url.copy_with(host=str(address))
        request = self._client.build_request(
            asked.method,
            pinned,
            headers={**asked.headers, "Host": url.netloc.decode("ascii")},
            content=asked.content,
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        response = await self._client.send(request, stream=True)
        try:
            said = {name.lower(): value for name, value in response.headers.items()}
            if response.status_code in _REDIRECTS and "location" in said:
                return _Redirect(_checked(str(url.join(said["location"]))), response.status_code)
            if response.status_code == 304:
                raise NotModified(f"{url.host} answered with status 304 (nothing new)", 304, said, moved)
            if response.status_code != 200:
                what = {403: " (refused)", 404: " (not there)", 410: " (gone)", 429: " (too many requests)"}
                status = f"{response.status_code}{what.get(response.status_code, '')}"
                raise HttpStatus(f"{url.host} answered with status {status}", response.status_code, said, moved)
            body = await self._read(response, url.host)
        finally:
            await response.aclose()
        return Fetched(body, said, str(url), self._clock(), moved)

    async def _read(self, response: httpx2.Response, host: str) -> bytes:
        """The body, decompressed by hand: the client's decoder would inflate a whole chunk before one could count."""
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "", "gzip", "x-gzip"):
            raise FetchError(f"{host} answers in an encoding that was not asked for ({clean_line(coding, 20)})")
        body = Body(self._limits.max_bytes, compressed=coding not in ("identity", ""))
        try:
            async for chunk in response.aiter_raw(_CHUNK):
                body.feed(chunk)
            return body.finish()
        except zlib.error as error:
            raise FetchError(f"{host} sent damaged compressed data") from error
        except TooLarge as error:
            raise FetchError(f"{host} sent more than {self._limits.max_bytes / 2**20:.1f} MiB") from error


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: httpx2.URL
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Redirect:
    to: httpx2.URL
    status: int

    @property
    def permanent(self) -> bool:
        return self.status in _PERMANENT


def _for_hop(headers: Mapping[str, str], first: httpx2.URL, current: httpx2.URL) -> Mapping[str, str]:
    """All headers for the origin that was asked, elsewhere only those of a conditional request: never a key."""
    if (first.scheme, first.netloc) == (current.scheme, current.netloc):
        return headers
    return {name: value for name, value in headers.items() if name.lower() in _ANYWHERE}


_ANYWHERE = {"if-none-match", "if-modified-since"}
_REFUSED = re.compile(r"certificate verify failed: (.*?)(?: \(_ssl\.c:\d+\))?\]?$")
_PORTS = {"http": 80, "https": 443}


def _checked(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise FetchError("An address to fetch is not a valid URL") from error
    if parsed.scheme not in _PORTS or not parsed.host:
        raise FetchError(f"Only http and https addresses are fetched, not {clean_line(parsed.scheme, 20) or 'this'}")
    if parsed.userinfo:
        raise FetchError(f"Addresses with a user name or password are not fetched ({parsed.host})")
    return parsed


def _why(error: Exception) -> str:
    kinds: list[tuple[type[Exception], str]] = [
        (httpx2.ConnectTimeout, "no connection in time"),
        (httpx2.TimeoutException, "it stopped sending"),
        (httpx2.ConnectError, "no connection"),
        (httpx2.ProtocolError, "not proper HTTP, or cut off"),
        (httpx2.NetworkError, "the connection broke"),
    ]
    if isinstance(error, httpx2.ConnectError) and (fault := _REFUSED.search(str(error))):
        return f"its TLS certificate is refused: {clean_line(fault[1], 120)}"
    why = next((said for kind, said in kinds if isinstance(error, kind)), type(error).__name__)
    detail = clean_line(str(error), 120)
    return f"{why} ({detail})" if detail else why
