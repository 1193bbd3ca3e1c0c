"""What a host name of a source stands for, and which of that may be connected to (``trendrag.addresses``)."""

import asyncio
import socket

from trendrag.addresses import Address, addresses_of, is_public
from trendrag.errors import FetchError


async def resolve(host: str, port: int, *, allow_private: bool) -> list[Address]:
    """The addresses of ``host`` that may be connected to, in the system's order of preference.

    Raises:
        FetchError: the name is unknown, or none of its addresses is allowed.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host} can't be found (no such name, or no network)") from error
    addresses = addresses_of(str(entry[4][0]) for entry in found)
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if not allowed:
        raise FetchError(
            f"{host} is on a private network; sources there are refused unless TRENDRAG_INGEST__ALLOW_PRIVATE=true"
        )
    return allowed
