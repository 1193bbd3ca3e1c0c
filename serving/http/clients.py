"""Where a request comes from, as far as that can be believed.

Headers that a proxy adds are believed from the proxies that are configured, and from nobody else: anyone can send them.
What is behind ``TrustedProxies`` need not think of it: ``request.client`` is the client and ``request.url.scheme`` is
that of its own connection.
"""

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

SOMEBODY = "0.0.0.0"  # noqa: S104  (nothing is bound to it)
"""The address of those for whom a proxy speaks without saying believably who they are. Whoever it is, it is not this
machine, and must not have its rights: nobody who comes through a proxy is local."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HOPS = 20
_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip")


class TrustedProxies:
    """Puts the client's address and scheme in the place of the proxy's, for proxies at ``trusted`` (addresses or
    networks). Outermost."""

    def __init__(self, app: ASGIApp, trusted: Iterable[str] = ()) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(each) for each in trusted]
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = _parsed(scope["client"][0]) if scope.get("client") else None
        if scope["type"] == "http" and peer is not None:
            headers = Headers(scope=scope)
            if self._trusts(peer):
                scope["client"] = self._client(peer, headers), 0
                if scheme := headers.get("x-forwarded-proto", ""):
                    # Each proxy adds at the end what it saw: the last word is that of our own.
                    scope["scheme"] = "https" if scheme.rpartition(",")[2].strip().lower() == "https" else "http"
            elif peer.is_loopback and any(name in headers for name in _FORWARDING):
                scope["client"] = SOMEBODY, 0
                if not self._warned:
                    self._warned = True
                    log.warning(
                        "requests come through a proxy on this machine: name it in TRENDRAG_SERVER__TRUSTED_PROXIES, "
                        "or all who come through it are one caller"
                    )
        await self._app(scope, receive, send)

    def _client(self, peer: _Address, headers: Headers) -> str:
        """The last address in the list that is no proxy of ours; what stands before it is the client's own word."""
        told = headers.getlist("x-forwarded-for")
        for hop in reversed(_forwarded_for(told)):
            known = _parsed(hop)
            if known is None:
                return SOMEBODY
            peer = known
            if not self._trusts(peer):
                break
        return SOMEBODY if told and peer.is_loopback else str(peer)

    def _trusts(self, address: _Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def is_local(scope: Scope) -> bool:
    """True for a program of this machine. Behind ``TrustedProxies``."""
    peer = _parsed(scope["client"][0]) if scope.get("client") else None
    return peer is not None and peer.is_loopback


def counted_as(scope: Scope) -> str:
    """What requests are counted by: the client's IPv4 address, or the /64 of its IPv6 address (one subscriber's, as a
    rule); "unknown" without a peer, as on a Unix socket. Behind ``TrustedProxies``."""
    peer = _parsed(scope["client"][0]) if scope.get("client") else None
    if isinstance(peer, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((peer, 64), strict=False))
    return str(peer) if peer else "unknown"


def _forwarded_for(headers: Sequence[str]) -> list[str]:
    if not headers:
        return []
    return ",".join(headers).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]


@lru_cache(maxsize=4_096)  # the same few addresses at every request
def _parsed(text: str) -> _Address | None:
    """An address with or without a port, brackets or a zone; None for anything else."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
