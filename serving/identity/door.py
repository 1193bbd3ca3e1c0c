"""Who is asked for a key: everybody, those who come from elsewhere, or nobody."""

import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving.identity.keyring import Keyring
from serving.identity.quota import Quota
from serving.identity.store import KeyStore
from serving.identity.visitors import Visitors, visitor_secrets
from serving.store.database import Database
from trendrag.errors import ConfigurationError
from trendrag.settings import ServerSettings, Settings

AskedOf = Literal["everybody", "others", "nobody"]


@dataclass(frozen=True, slots=True)
class Door:
    """``visitors_welcome``: the page's visitors may come in without a key where one is asked for."""

    asked_of: AskedOf
    visitors_welcome: bool
    keyring: Keyring
    quota: Quota
    visitors: Visitors

    def asks(self, client: str | None) -> bool:
        """Whether a client at that address needs a key. None and what is no address (a Unix socket) is this machine.

        The address is the one that a proxy vouches for, where the server trusts the proxy: so a server on loopback asks
        those who come through one that says from where.
        """
        if self.asked_of == "others":
            return client is not None and _is_address(client) and not is_loopback(client)
        return self.asked_of == "everybody"

    def knows_visitors(self, client: str | None) -> bool:
        """Whether a cookie is of any use to a client at that address."""
        return self.visitors_welcome or not self.asks(client)


@asynccontextmanager
async def open_door(settings: Settings, database: Database, now: Callable[[], datetime]) -> AsyncIterator[Door]:
    """For as long as the context is open. The database is not asked before the first key is.

    Raises:
        ConfigurationError: the secrets of the visitors' cookies can't be used.
    """
    store = KeyStore(database)
    keyring = Keyring(store, now)
    welcome = settings.server.visitors
    try:
        yield Door(asked_of(settings.server), welcome, keyring, Quota(store, now), Visitors(visitor_secrets(settings)))
    finally:
        await keyring.aclose()


def asked_of(settings: ServerSettings) -> AskedOf:
    match settings.keys:
        case "required":
            return "everybody"
        case "off":
            return "nobody"
        case "auto":
            return "others" if is_loopback(settings.host) else "everybody"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches that address. A name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


async def refuse_without_keys(settings: Settings, store: KeyStore, now: datetime) -> None:
    """Before an address is listened on.

    Raises:
        ConfigurationError: everybody will be asked for a key, and there is none.
        StorageError: nobody can say now whether there is one.
    """
    if asked_of(settings.server) == "everybody" and not await store.any_good(now):
        reach = "is reached from beyond this machine" if not is_loopback(settings.server.host) else "asks for keys"
        raise ConfigurationError(
            f"A server on {settings.server.host} {reach}, and there is no API key yet. Create one with "
            "`trendrag keys create NAME`. (TRENDRAG_SERVER__KEYS=off asks nobody for one: only behind something that "
            "has authentication.)"
        )
