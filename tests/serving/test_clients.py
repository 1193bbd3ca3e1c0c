"""Whose address a request has: what proxies say is believed from those that are trusted."""

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from serving.http.clients import SOMEBODY, TrustedProxies, counted_as, is_local

TRUSTED = ("10.0.0.0/8", "::1", "127.0.0.1")


def seen(asked: Scope, trusted: Sequence[str] = TRUSTED) -> Scope:
    """A request's scope as the application gets it."""
    behind: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        behind.append(scope)

    async def nothing(*_: object) -> Any: ...

    asyncio.run(TrustedProxies(app, trusted)(asked, nothing, nothing))
    return behind[0]


def address(asked: Scope) -> str:
    return counted_as(seen(asked))


def scope(peer: str | None, scheme: str = "http", **headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "client": (peer, 1) if peer else None, "scheme": scheme, "headers": named}


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # anyone can send the header
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # what the client itself sent stands further left
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 10.2.3.4", "10.9.9.9"),
        ("10.0.0.1", "198.51.100.1, rubbish", SOMEBODY),
        ("10.0.0.1", "", SOMEBODY),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "127.0.0.1", SOMEBODY),  # a proxy that hands on what it was sent
        ("10.0.0.1", "198.51.100.1:5000", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64"),
        ("10.0.0.1", '"[2001:db8:1:2:3::4]"', "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", None, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", None, "fe80::/64"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        (None, "198.51.100.1", "unknown"),
    ],
)
def test_the_address(peer: str | None, forwarded: str | None, counted: str) -> None:
    headers = {} if forwarded is None else {"x_forwarded_for": forwarded}
    assert address(scope(peer, **headers)) == counted


def test_several_headers_are_one_list() -> None:
    asked = scope("10.0.0.1")
    asked["headers"] = [(b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-for", b"10.1.1.1")]
    assert address(asked) == "198.51.100.1"


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_gives_an_address(forwarded: str) -> None:
    found = address(scope("10.0.0.1", x_forwarded_for=forwarded))
    assert ipaddress.ip_network(found)


@given(st.lists(st.ip_addresses().map(str)), st.ip_addresses(v=4))
def test_no_client_can_choose_its_address(sent: list[str], client: ipaddress.IPv4Address) -> None:
    """Whatever a client sends along, our proxy adds its address at the end."""
    if client not in ipaddress.ip_network("10.0.0.0/8") and not client.is_loopback:
        header = ", ".join([*sent, str(client)])
        assert address(scope("10.0.0.1", x_forwarded_for=header)) == str(client)


@pytest.mark.parametrize(
    ("trusted", "peer", "headers", "local"),
    [
        ([], "127.0.0.1", {}, True),
        ([], "::1", {}, True),
        ([], "::ffff:127.0.0.1", {}, True),
        ([], "203.0.113.9", {}, False),
        ([], "127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, False),  # a proxy that nobody told us of
        ([], "127.0.0.1", {"x_real_ip": "127.0.0.1"}, False),
        ([], "127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
        (["127.0.0.1"], "127.0.0.1", {"x_forwarded_for": "198.51.100.1"}, False),
        (["127.0.0.1"], "127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, False),
        (["127.0.0.1"], "127.0.0.1", {"x_forwarded_for": "rubbish"}, False),
        (["127.0.0.1", "::1"], "127.0.0.1", {"x_forwarded_for": "::1, 127.0.0.1"}, False),
        ([], None, {}, False),
    ],
)
def test_local_is_a_program_here_and_no_proxy_for_others(
    trusted: list[str], peer: str | None, headers: dict[str, str], local: bool
) -> None:
    assert is_local(seen(scope(peer, **headers), trusted)) is local


@pytest.mark.parametrize(
    ("peer", "scheme", "headers", "secure"),
    [
        ("203.0.113.9", "https", {}, True),
        ("203.0.113.9", "http", {}, False),
        ("203.0.113.9", "http", {"x_forwarded_proto": "https"}, False),
        ("127.0.0.1", "https", {"x_forwarded_proto": "http"}, False),
        ("10.0.0.1", "http", {"x_forwarded_proto": "https"}, True),
        ("10.0.0.1", "http", {"x_forwarded_proto": "https, http"}, False),  # the last one is our own proxy's word
        ("10.0.0.1", "http", {}, False),
    ],
)
def test_tls_is_known_from_the_connection_or_a_trusted_proxy(
    peer: str, scheme: str, headers: dict[str, str], secure: bool
) -> None:
    assert (seen(scope(peer, scheme, **headers))["scheme"] == "https") is secure


def test_the_operator_is_told_once_of_a_proxy_that_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "serving.http.clients")

    async def run() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        async def nothing(*_: object) -> Any: ...

        door = TrustedProxies(app)
        for _ in range(3):
            await door(scope("127.0.0.1", x_forwarded_for="198.51.100.1"), nothing, nothing)
        await door(scope("203.0.113.9", x_forwarded_for="198.51.100.1"), nothing, nothing)

    asyncio.run(run())
    (message,) = caplog.messages
    assert "TRENDRAG_SERVER__TRUSTED_PROXIES" in message
