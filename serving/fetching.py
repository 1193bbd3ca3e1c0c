"""Fetches an image from an address that a stranger gave, without becoming that stranger's hands.

Only https (http by setting) and listed ports. Every hop of at most three redirects is checked anew: its name is looked
up once, each address is judged (``trendrag.addresses``), and the connection goes to the address that was judged, while
the Host header, SNI and the certificate's check stay with the name. Nothing is sent along that could tell who asks: no
cookie, no credential, no Referer; proxies named in the environment are not used, since a proxy looks names up itself.
Bytes are counted as they arrive, in the encoding in which they are asked for, which is none; what they are is told by
their beginning and never by a Content-Type. One deadline holds for connecting, one for each silence, one for all of it.

What an answer says of an address that is refused is the same for a name that does not exist and for one inside a
private network, so that answers draw no map of it. Knows nothing of HTTP routes: batch jobs fetch the same way.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import httpx2

from serving.image_headers import ENOUGH_TO_TELL, begins_like_an_image
from serving.images import check_size
from trendrag.addresses import Address, addresses_of, is_public
from trendrag.errors import AddressRefused, Busy, InvalidImage, RemoteImageError, RemoteImageTimeout, TrendragError
from trendrag.settings import FetchSettings, ImageSettings

MAX_REDIRECTS = 3
MAX_ADDRESSES = 4
"""How many addresses of one name are tried."""
HELD_IMAGES = 8
"""So many of the largest images may be held at once, over all fetches; beyond that they are refused as busy."""

LookUp = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → the addresses as numbers, best first. Raises OSError or UnicodeError where there are none."""

_LOOK_UPS = 8  # threads of their own: a name server that never answers must not hold those of others
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # no zone (%), nothing percent-encoded
_INSTEAD = "Send the image itself instead."
_NOWHERE = f"The image's address leads nowhere on the public internet. {_INSTEAD}"
_HEADERS = {
    "User-Agent": f"TrendRAG/{version('trendrag')}",
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/avif",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: to connect (TLS included), between two pieces that arrive, and for the whole with its redirects."""

    total_s: float
    connect_s: float = 3.0
    silence_s: float = 5.0


class ImageFetcher:
    """Use as ``async with ImageFetcher.open(settings.fetch, settings.image) as fetcher``."""

    def __init__(
        self,
        settings: FetchSettings,
        images: ImageSettings,
        deadlines: Deadlines,
        look_up: LookUp,
        tls: Callable[[], ssl.SSLContext],
    ) -> None:
        self._settings = settings
        self._images = images
        self._deadlines = deadlines
        self._look_up = look_up
        self._tls = tls
        self._transport: httpx2.AsyncHTTPTransport | None = None
        self._held = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: FetchSettings,
        images: ImageSettings,
        *,
        deadlines: Deadlines | None = None,
        look_up: LookUp | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Self]:
        """A fetcher for as long as the context is open; images may have at most ``images.max_bytes`` bytes.

        ``look_up`` replaces the system's resolver, and ``tls`` the system's list of authorities.
        """
        names = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="look-up")

        async def ask_system(host: str, port: int) -> list[str]:
            def ask() -> list[str]:
                return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

            return await asyncio.get_running_loop().run_in_executor(names, ask)

        fetcher = cls(
            settings,
            images,
            deadlines or Deadlines(settings.timeout_s),
            look_up or ask_system,
            lambda: tls or httpx2.create_ssl_context(trust_env=False),
        )
        try:
            yield fetcher
        finally:
            names.shutdown(wait=False, cancel_futures=True)
            if fetcher._transport is not None:
                await fetcher._transport.aclose()

    async def fetch(self, url: str) -> bytes:
        """The image file at ``url``: it begins like one of a type that is taken, and is not decoded here.

        Raises:
            AddressRefused: an address that is not fetched, for its form or for where it leads.
            InvalidImage: what is there is no image, or the server says that nothing is (a status of 4xx).
            ImageTooLarge: it has more bytes than are taken.
            RemoteImageError: the server can't be reached, or its answer can't be used.
            RemoteImageTimeout: it took too long.
            Busy: too many bytes are being fetched at the moment.
        """
        try:
            async with asyncio.timeout(self._deadlines.total_s):
                current = self._allowed(url)
                for _ in range(MAX_REDIRECTS + 1):
                    found = await self._hop(current)
                    if isinstance(found, bytes):
                        return found
                    current = self._allowed(found)
        except TimeoutError as error:
            raise _too_slow() from error
        raise RemoteImageError(f"The image's address redirects more than {MAX_REDIRECTS} times. {_INSTEAD}")

    def _allowed(self, url: str | httpx2.URL) -> httpx2.URL:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise AddressRefused(f"The image's address is not a valid URL. {_INSTEAD}") from error
        schemes = ["https", "http"] if self._settings.allow_http else ["https"]
        if parsed.scheme not in schemes or not parsed.host:
            raise AddressRefused(f"Images are fetched from {' and '.join(schemes)} addresses only. {_INSTEAD}")
        if parsed.userinfo:
            raise AddressRefused(f"An image's address must not hold a user name or password. {_INSTEAD}")
        if (parsed.port or _PORTS[parsed.scheme]) not in self._settings.ports:
            raise AddressRefused(f"Images are not fetched from that port. {_INSTEAD}")
        if not _HOST.fullmatch(parsed.raw_host.decode("ascii")):
            raise AddressRefused(f"The host in the image's address is not a valid name. {_INSTEAD}")
        return parsed

    async def _hop(self, url: httpx2.URL) -> bytes | httpx2.URL:
        """One request: the image, or where it redirects to."""
        addresses = await self._resolve(url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        why: Exception | None = None
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._ask(url, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                why = error
            except httpx2.TimeoutException as error:
                raise _too_slow() from error
            except httpx2.HTTPError as error:
                raise RemoteImageError(f"The image's server broke off, or sent no proper HTTP. {_INSTEAD}") from error
        if isinstance(why, httpx2.ConnectTimeout):
            raise _too_slow() from why
        # The certificate is told apart: it is what the owner of a site can mend.
        fault = "has a certificate that is not trusted" if "CERTIFICATE" in str(why) else "can't be reached"
        raise RemoteImageError(f"The image's server {fault}. {_INSTEAD}") from why

    async def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            addresses = addresses_of(await self._look_up(host, port))
        except (OSError, UnicodeError) as error:
            raise AddressRefused(_NOWHERE) from error
        allowed = [each for each in addresses if self._settings.allow_private or is_public(each)]
        if not allowed:
            raise AddressRefused(_NOWHERE)
        return allowed

    async def _ask(self, url: httpx2.URL, address: Address) -> bytes | httpx2.URL:
        if self._transport is None:
            # Here and not at the start: reading the authorities takes tens of milliseconds, and many never fetch.
            # A bare transport and no client: a client would keep cookies. Connections are not kept either: they are
            # made to an address, and a kept one could serve another host without its certificate being checked.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
            self._transport = httpx2.AsyncHTTPTransport(verify=self._tls(), trust_env=False, limits=limits)
        timeout = httpx2.Timeout(self._deadlines.silence_s, connect=self._deadlines.connect_s)
        request = httpx2.Request(
            "GET",
            url.copy_with(host=str(address)),
            headers={**_HEADERS, "Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": timeout.as_dict()},
        )
        response = await self._transport.handle_async_request(request)
        try:
            return await self._read(url, response)
        finally:
            await response.aclose()

    async def _read(self, url: httpx2.URL, response: httpx2.Response) -> bytes | httpx2.URL:
        status, headers = response.status_code, response.headers
        if status in _REDIRECTS and "location" in headers:
            try:
                return url.join(headers["location"])
            except (httpx2.InvalidURL, ValueError) as error:
                raise RemoteImageError(f"The image's address redirects to one that is not valid. {_INSTEAD}") from error
        if 400 <= status < 500:
            raise InvalidImage(
                f"The image's server answers with status {status}: it does not give it out. {_INSTEAD}",
                retry_after=_later(headers) if status == 429 else None,
            )
        if status != 200:
            raise RemoteImageError(f"The image's server answers with status {status}. {_INSTEAD}")
        if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            # Not inflated, so that nothing can be larger than what was counted.
            raise RemoteImageError(f"The image's server packs what was to come unpacked. {_INSTEAD}")
        length = headers.get("content-length", "")
        if length.isdecimal():
            check_size(int(length[:20]), self._images)
        return await self._body(response)

    async def _body(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                if self._held + len(chunk) > HELD_IMAGES * self._images.max_bytes:
                    raise Busy("Too many images are being fetched. Try again in a moment.")
                self._held += len(chunk)
                told = len(body) >= ENOUGH_TO_TELL
                body += chunk
                check_size(len(body), self._images)
                if not told and len(body) >= ENOUGH_TO_TELL:
                    _check_beginning(body)
            _check_beginning(body)
            return bytes(body)
        finally:
            self._held -= len(body)


def _later(headers: httpx2.Headers) -> float:
    """Seconds after which a server that was asked too much may be asked again."""
    said = headers.get("retry-after", "").strip()
    return min(3600.0, float(said[:9])) if said.isdecimal() else 5.0


def _check_beginning(body: bytearray) -> None:
    if not begins_like_an_image(bytes(body[:ENOUGH_TO_TELL])):
        raise InvalidImage(
            "What is at the image's address is no JPEG, PNG, WebP, GIF or AVIF. Give the file's own one."
        )


def _too_slow() -> TrendragError:
    return RemoteImageTimeout(f"The image's server took too long. {_INSTEAD}")
