"""The guarded fetcher against a real server on loopback that misbehaves as told."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv6Address

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from serving import fetching
from serving.fetching import HELD_IMAGES, Deadlines, ImageFetcher, LookUp
from tests.ingest.server import Server, serving
from tests.serving.pictures import encoded, picture
from trendrag.addresses import Address, is_public
from trendrag.errors import (
    AddressRefused,
    Busy,
    ImageTooLarge,
    InvalidImage,
    RemoteImageError,
    RemoteImageTimeout,
    TrendragError,
)
from trendrag.settings import FetchSettings, ImageSettings

PHOTO = encoded(picture())
IMAGES = ImageSettings(max_bytes=4096)
PATIENT = Deadlines(30, 30, 30)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


def opened(
    port: int,
    look_up: LookUp | None = None,
    deadlines: Deadlines = PATIENT,
    tls: ssl.SSLContext | None = None,
    **settings: bool,
) -> AbstractAsyncContextManager[ImageFetcher]:
    chosen = FetchSettings.model_validate({"allow_http": True, "allow_private": True, "ports": (port,)} | settings)
    return ImageFetcher.open(chosen, IMAGES, deadlines=deadlines, look_up=look_up, tls=tls)


async def fetch(server: Server, path: str = "/") -> bytes:
    async with opened(server.port) as fetcher:
        return await fetcher.fetch(server.url(path))


async def test_an_image_arrives_and_nobody_is_told_who_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answer("/a?b=c", status="302 Found", Location="/d", Set_Cookie="id=1")
    server.answer("/d", PHOTO, Set_Cookie="id=2", Content_Type="text/html")
    async with opened(server.port) as fetcher:
        assert await fetcher.fetch(server.url("/a?b=c#part", "localhost")) == PHOTO
        assert await fetcher.fetch(server.url("/d", "localhost")) == PHOTO
    assert len(server.requests) == 3
    for request in server.requests:
        assert f"\r\nHost: localhost:{server.port}\r\n" in request
        assert "\r\nAccept-Encoding: identity\r\n" in request
        assert not any(header in request.lower() for header in ("\r\ncookie", "\r\nauthorization", "\r\nreferer"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "not a valid URL|only"),
        ("nonsense", "only"),
        ("file:///etc/passwd", "only"),
        ("ftp://x.example/1.jpg", "only"),
        ("gopher://x.example/1.jpg", "only"),
        ("data:image/png;base64,AAAA", "only"),
        ("http://x.example/1.jpg", "from https addresses only"),
        ("https://", "only"),
        ("https://[", "not a valid name"),
        ("https://0177.0.0.1/", "not a valid URL"),
        ("https://u:p@x.example/1.jpg", "user name"),
        ("https://x.example:22/1.jpg", "port"),
        ("https://x.example:6379/1.jpg", "port"),
        ("https://x.example:99999/1.jpg", "port"),
        ("https://[fe80::1%25eth0]/1.jpg", "not a valid name"),
        ("https://ex%61mple.com/1.jpg", "not a valid name"),
        ("https://a b/1.jpg", "not a valid name"),
        ("https://x\r\nHost: y/", "not a valid URL"),
        ("https://" + "a" * 70_000, "not a valid URL"),
        ("https://" + "a" * 300 + ".example/", "nowhere"),
        ("https://①②⑦.0.0.1/", "not a valid URL"),
    ],
    ids=range(21),
)
async def test_addresses_that_are_refused_by_their_form(url: str, words: str) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        host.encode("idna")  # as the system's does
        raise AssertionError(host)

    async with ImageFetcher.open(FetchSettings(), IMAGES, look_up=look_up) as fetcher:
        with pytest.raises(AddressRefused, match=words):
            await fetcher.fetch(url)


async def test_no_ports_no_fetching() -> None:
    async with ImageFetcher.open(FetchSettings(ports=()), IMAGES) as fetcher:
        with pytest.raises(AddressRefused, match="port"):
            await fetcher.fetch("https://x.example/")


# -- where addresses lead


def _spellings_4(address: IPv4Address) -> list[str]:
    a, b, c, d = address.packed
    return [
        str(address),
        str(int(address)),
        hex(int(address)),
        f"{a}.{b << 16 | c << 8 | d}",
        f"{a}.{b}.{c << 8 | d}",
        f"0x{a:x}.{b}.0X{c:02X}.{d}",
        f"0{a:o}.0x{b:x}.{c << 8 | d}",
        f"{a}.{b}.{c}.0x{d:02x}",
        f"{address}.",
    ]


def _spellings_6(address: IPv6Address) -> list[str]:
    dotted = f"{address.exploded[:30]}{IPv4Address(int(address) & 0xFFFFFFFF)}"
    return [f"[{each}]" for each in (address.compressed, address.exploded, address.exploded.upper(), dotted)]


PRIVATE_4 = st.sampled_from(
    ["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/8"]
)
IPV4 = PRIVATE_4.flatmap(lambda network: st.ip_addresses(network=network))
IPV6 = st.one_of(
    st.sampled_from(
        ["fc00::/7", "fe80::/10", "::/96", "::ffff:0:0/96", "2002:7f00::/24", "64:ff9b::a00:0/104"]
    ).flatmap(lambda network: st.ip_addresses(network=network)),
    st.just(IPv6Address("::1")),
)
SPELLED = st.one_of(
    IPV4.flatmap(lambda each: st.sampled_from(_spellings_4(IPv4Address(int(each))))),
    IPV6.flatmap(lambda each: st.sampled_from(_spellings_6(IPv6Address(int(each))))),
)


@given(SPELLED)
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    """Through the system's own resolver, which knows all of these forms."""
    async with ImageFetcher.open(FetchSettings(), IMAGES) as fetcher:
        with pytest.raises(AddressRefused):
            await fetcher.fetch(f"https://{host}/latest/meta-data")
        assert fetcher._transport is None, "nothing was even prepared to connect"


async def test_answers_draw_no_map_of_the_private_network() -> None:
    names = {"intranet.example": ["10.0.0.7"], "host.example": ["127.0.0.1", "::1"], "none.example": []}

    async def look_up(host: str, port: int) -> list[str]:
        if not names.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[host]

    told = set()
    async with ImageFetcher.open(FetchSettings(), IMAGES, look_up=look_up) as fetcher:
        for host in (*names, "10.0.0.7", "[::1]"):
            with pytest.raises(AddressRefused) as refusal:
                await fetcher.fetch(f"https://{host}/")
            told.add((type(refusal.value), str(refusal.value)))
    assert len(told) == 1


@pytest.fixture
def only_the_test_server_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(address: Address) -> bool:
        return str(address) == "127.0.0.1" or is_public(address)

    monkeypatch.setattr(fetching, "is_public", judge)


@pytest.mark.usefixtures("only_the_test_server_is_public")
@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data", "//169.254.169.254/", "http://2852039166/", "http://[::1]/",
        "http://[fd00:ec2::254]/", "http://intranet.example/", "http://localhost:1/", "file:///etc/passwd",
        "http://u:p@127.0.0.1/", "https://127.0.0.1:22/", "gopher://127.0.0.1/", "http://[fe80::1%25lo]/",
    ],
)  # fmt: skip
async def test_a_redirect_is_checked_like_the_first_address(server: Server, place: str) -> None:
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "intranet.example":
            return ["10.0.0.7"]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]

    server.answer("/", status="302 Found", Location=place)
    chosen = FetchSettings(allow_http=True, ports=(80, server.port))
    async with ImageFetcher.open(chosen, IMAGES, look_up=look_up) as fetcher:
        with pytest.raises(AddressRefused):
            await fetcher.fetch(server.url("/"))
    assert len(server.requests) == 1
    assert asked[0] == "127.0.0.1"


@pytest.mark.usefixtures("only_the_test_server_is_public")
async def test_a_name_with_another_answer_the_second_time(server: Server) -> None:
    """DNS rebinding: the address that was judged is the one connected to; the next hop is judged for itself."""
    answers = [["127.0.0.1"], ["10.0.0.7"]]

    async def look_up(host: str, port: int) -> list[str]:
        return answers.pop(0)

    server.answer("/", PHOTO)
    server.answer("/again", status="302 Found", Location="/")
    async with opened(server.port, look_up, allow_private=False) as fetcher:
        assert await fetcher.fetch(server.url("/", "public.example")) == PHOTO
        assert len(answers) == 1
        answers.insert(0, ["127.0.0.1"])
        with pytest.raises(AddressRefused):
            await fetcher.fetch(server.url("/again", "public.example"))
    assert len(server.requests) == 2


@pytest.mark.usefixtures("only_the_test_server_is_public")
async def test_of_several_addresses_private_ones_are_left_out_and_dead_ones_passed_over(server: Server) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        return ["10.0.0.7", "127.0.0.1"]

    server.answer("/", PHOTO)
    async with opened(server.port, look_up, allow_private=False) as fetcher:
        assert await fetcher.fetch(server.url("/", "x.example")) == PHOTO

    async def dead_first(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]

    async with opened(server.port, dead_first) as fetcher:
        assert await fetcher.fetch(server.url("/", "x.example")) == PHOTO


async def test_redirects_to_a_limit(server: Server) -> None:
    server.answer("/4", status="301 Moved", Location="3")
    server.answer("/3", status="302 Found", Location="/2")
    server.answer("/2", status="307 Found", Location=server.url("/1", "localhost"))
    server.answer("/1", status="308 Found", Location="/0")
    server.answer("/0", PHOTO)
    assert await fetch(server, "/3") == PHOTO
    with pytest.raises(RemoteImageError, match="more than 3 times"):
        await fetch(server, "/4")
    server.answer("/", status="302 Found", Location="http://x:y/")
    with pytest.raises(TrendragError, match="valid"):
        await fetch(server)


async def test_https_does_not_fall_back_to_http(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(tls[0]) as server:
        server.answer("/", status="302 Found", Location="http://localhost/")
        async with opened(server.port, tls=tls[1], allow_http=False) as fetcher:
            with pytest.raises(AddressRefused, match="from https addresses only"):
                await fetcher.fetch(f"https://localhost:{server.port}/")


# -- bad answers


@pytest.mark.parametrize(
    ("status", "error"),
    [(204, RemoteImageError), (206, RemoteImageError), (304, RemoteImageError), (500, RemoteImageError),
     (401, InvalidImage), (403, InvalidImage), (404, InvalidImage), (429, InvalidImage)],
)  # fmt: skip
async def test_other_statuses(server: Server, status: int, error: type[TrendragError]) -> None:
    server.answer("/", b"" if status in (204, 304) else PHOTO, status=f"{status} No")
    with pytest.raises(error, match=str(status)):
        await fetch(server)


@pytest.mark.parametrize(
    "body", [b"<!doctype html><p>hello, here is your picture", b"%PDF-1.7 and more", b"", b"\xff", b"RIFF1234WAVE"]
)
async def test_what_is_no_image_whatever_it_is_called(server: Server, body: bytes) -> None:
    server.answer("/", body, Content_Type="image/jpeg")
    with pytest.raises(InvalidImage):
        await fetch(server)


async def test_a_page_is_not_read_to_its_end(server: Server) -> None:
    async def page(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n<html>" + bytes(100))
        await writer.wait_closed()  # by the other side: there is no end

    server.handlers["/"] = page
    with pytest.raises(InvalidImage):
        await fetch(server)


async def test_bodies_are_counted_and_their_length_is_believed_only_against_them(server: Server) -> None:
    server.answer("/fits", PHOTO + bytes(4096 - len(PHOTO)))
    assert len(await fetch(server, "/fits")) == 4096

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + PHOTO[:1024].ljust(1024) + b"\r\n")
            await writer.drain()

    async def promised(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n")
        await writer.wait_closed()

    server.handlers |= {"/endless": endless, "/promised": promised}
    for path in ("/endless", "/promised"):
        with pytest.raises((ImageTooLarge, RemoteImageError)):
            await fetch(server, path)
    server.handlers["/promised"] = lambda writer: _write(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n")
    with pytest.raises(ImageTooLarge):
        await fetch(server, "/promised")


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.wait_closed()


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "x-unheard-of"])
async def test_nothing_is_inflated(server: Server, coding: str) -> None:
    server.answer("/", gzip.compress(PHOTO + bytes(5_000_000)), Content_Encoding=coding)
    with pytest.raises(RemoteImageError, match="unpacked"):
        await fetch(server)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + PHOTO,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n\xff\xd8\xff",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"",
    ],
    ids=["cut", "cut chunk", "huge header", "mail", "two lengths", "nothing"],
)
async def test_answers_that_are_cut_off_or_no_http(server: Server, answer: bytes) -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    server.handlers["/"] = write
    with pytest.raises(RemoteImageError, match="broke off"):
        await fetch(server)


async def test_nobody_there(server: Server) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        async with opened(port) as fetcher:
            with pytest.raises(RemoteImageError, match="can't be reached"):
                await fetcher.fetch(f"http://127.0.0.1:{port}/")


async def test_each_deadline_holds_by_itself(server: Server) -> None:
    never = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async def half(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + PHOTO[:100])
        await writer.drain()
        await never.wait()

    async def no_answer(host: str, port: int) -> list[str]:
        await never.wait()
        return []

    server.handlers |= {"/hang": hang, "/half": half}
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = int(listening.getsockname()[1])
    waiting = [socket.socket() for _ in range(4)]
    try:
        for each in waiting:  # nobody accepts: once the queue is full, a connection is neither made nor refused
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        for deadlines, port, path, look_up in [
            (Deadlines(30, 0.2, 30), full, "/", None),
            (Deadlines(30, 30, 0.2), server.port, "/hang", None),
            (Deadlines(30, 30, 0.2), server.port, "/half", None),
            (Deadlines(0.2, 30, 30), server.port, "/half", None),
            (Deadlines(0.2, 30, 30), server.port, "/", no_answer),
        ]:
            async with opened(port, look_up, deadlines) as fetcher:
                with pytest.raises(RemoteImageTimeout):
                    await fetcher.fetch(f"http://127.0.0.1:{port}{path}")
    finally:
        never.set()
        for each in (*waiting, listening):
            each.close()


async def test_what_is_held_at_once_is_bounded_and_given_back(server: Server) -> None:
    go = asyncio.Event()
    part = PHOTO.ljust(4000, b"\0")

    async def wait(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4001\r\n\r\n" + part)
        await writer.drain()
        await go.wait()
        writer.write(b"\0")

    server.handlers["/"] = wait
    async with opened(server.port) as fetcher, asyncio.timeout(60):
        fetches = [asyncio.create_task(fetcher.fetch(server.url("/"))) for _ in range(HELD_IMAGES + 1)]
        done, others = await asyncio.wait(fetches, return_when=asyncio.FIRST_COMPLETED)
        assert [type(each.exception()) for each in done] == [Busy]
        go.set()
        assert {len(body) for body in await asyncio.gather(*others)} == {4001}
        assert fetcher._held == 0


# -- TLS


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's context, a context that trusts it)"""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("pictures.example", "localhost").configure_cert(theirs)
    return theirs, ours


async def test_the_certificate_must_be_for_the_name_and_not_for_the_address(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    named: list[str | None] = []

    async def look_up(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    tls[0].sni_callback = lambda _socket, name, _context: named.append(name)
    async with serving(tls[0]) as server:
        server.answer("/", PHOTO)
        async with opened(server.port, look_up, tls=tls[1], allow_http=False) as fetcher:
            assert await fetcher.fetch(f"https://pictures.example:{server.port}/") == PHOTO
            for host in ("other.example", "127.0.0.1"):
                with pytest.raises(RemoteImageError, match="certificate"):
                    await fetcher.fetch(f"https://{host}:{server.port}/")
        async with opened(server.port, look_up, allow_http=False) as stranger:
            with pytest.raises(RemoteImageError, match="certificate"):
                await stranger.fetch(f"https://pictures.example:{server.port}/")
        assert len(server.requests) == 1
    assert named[:2] == ["pictures.example", "other.example"]
