"""Which network addresses may be connected to, and what a host name stands for.

A name in a feed, or in a redirect, may point at this machine or its neighbours (server-side request forgery). So names
are resolved here, once, each address is judged, and the caller connects to the very address that was judged: a second
look-up could give another answer (DNS rebinding).
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from trendrag.errors import FetchError

Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """True for an address of the public internet: not private, loopback, link-local, reserved, multicast, or an IPv6
    address that carries such an IPv4 address inside (mapped, 6to4, Teredo, NAT64)."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return True
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return all(is_public(each) for each in inner if each is not None)


async def resolve(host: str, port: int, *, allow_private: bool) -> list[Address]:
    """The addresses of ``host`` that may be connected to, in the system's order of preference.

    Raises:
        FetchError: the name is unknown, or none of its addresses is allowed.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host} can't be found (no such name, or no network)") from error
    # A zone ("%eth0") only ever follows link-local addresses, which are refused without it as well.
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    allowed = [address for address in dict.fromkeys(addresses) if allow_private or is_public(address)]
    if not allowed:
        raise FetchError(
            f"{host} is on a private network; sources there are refused unless TRENDRAG_INGEST__ALLOW_PRIVATE=true"
        )
    return allowed
