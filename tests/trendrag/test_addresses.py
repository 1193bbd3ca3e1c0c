from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendrag.addresses import addresses_of, is_public

SPECIAL_4 = [
    "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8",
    "192.88.99.1", "192.168.0.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
]  # fmt: skip
SPECIAL_6 = [
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:5ef5:79fb:8::1", "2001:db8::1", "2002:7f00:1::", "2002:5db8:d822::1", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1111%eth0", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = [
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:80e::200e",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", SPECIAL_4 + SPECIAL_6)
def test_addresses_of_no_public_network(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_nothing_passes_that_the_standard_library_calls_special(address: IPv4Address) -> None:
    """It errs on some (RFC 6890's newer entries), always by calling them global, so only this way round."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not is_public(address)


@given(st.ip_addresses(v=6))
def test_of_ipv6_only_what_is_given_out_passes(address: IPv6Address) -> None:
    if is_public(address) and not str(address).startswith("64:ff9b::"):
        assert address.is_global
        assert not (address.is_multicast or address.is_reserved or address.is_site_local)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_never_passes_where_it_would_not_itself(inner: IPv4Address) -> None:
    number = int(inner)
    holders = [
        IPv6Address(number),
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ]
    for holder in holders:
        assert is_public(inner) or not is_public(holder)


def test_what_a_resolver_answers() -> None:
    found = addresses_of(["10.0.0.1", "fe80::1%eth0", "10.0.0.1", "fe80::1"])
    assert [str(each) for each in found] == ["10.0.0.1", "fe80::1"]
