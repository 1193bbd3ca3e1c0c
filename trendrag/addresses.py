"""Which network addresses belong to the public internet: the rule behind every fetch of an address from outside.

A name in a feed, in a request, or in a redirect, may point at this machine or its neighbours (server-side request
forgery). So whoever fetches resolves a name once, judges every address here, and connects to the very address that was
judged: a second look-up could give another answer (DNS rebinding). Looking up and connecting are left to the fetchers.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# The special-purpose registries of the IANA (RFC 6890 and later), multicast, and what is reserved. Spelled out, because
# what the standard library takes for global differs between its releases.
_SPECIAL_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# Only 2000::/3 is given out as global unicast. Inside it: protocols (Teredo among them), documentation, 6to4.
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """True for an address of the public internet: not private, shared (CGNAT), loopback, link-local, multicast,
    reserved or for documentation. An IPv6 address that stands for an IPv4 address counts as that one where networks
    need it (NAT64's well-known prefix, RFC 6052) and is refused where nobody does (mapped, compatible, 6to4, Teredo).
    """
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _SPECIAL_4)
    if address.scope_id is not None:  # a zone ("%eth0") names an interface of this machine
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_6 and not any(address in block for block in _SPECIAL_6)


def addresses_of(numbers: Iterable[str]) -> list[Address]:
    """The addresses that a resolver answered with, in its order, each once. A zone is kept out: it only ever follows
    link-local addresses, which are not public without it either."""
    return [ip_address(number) for number in dict.fromkeys(each.partition("%")[0] for each in numbers)]
