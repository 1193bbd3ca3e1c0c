import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import addresses
from ingest.body import Body, TooLarge
from ingest.fetcher import HttpFetcher, HttpStatus, NotModified, user_agent
from ingest.turns import Turns
from tests.ingest.server import Server, serving
from trendrag.errors import FetchError
from trendrag.settings import IngestSettings

LIMITED = IngestSettings(allow_private=True, timeout_s=0.4, max_bytes=2048, host_delay_s=0)
PATIENT = IngestSettings(allow_private=True, max_bytes=2048, host_delay_s=0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


async def fetch(url: str, settings: IngestSettings = PATIENT) -> bytes:
    async with HttpFetcher.open(settings) as fetcher:
        return (await fetcher.get(url)).body


async def test_a_good_answer(server: Server) -> None:
    server.answer("/feed?a=b", b"hello", ETag='"1"')
    async with HttpFetcher.open(IngestSettings(allow_private=True, contact="ops@example.org")) as fetcher:
        found = await fetcher.get(server.url("/feed?a=b", "localhost"), headers={"If-None-Match": '"0"'})
    assert (found.body, found.headers["etag"], found.url) == (b"hello", '"1"', server.url("/feed?a=b", "localhost"))
    assert found.fetched_at.utcoffset() is not None
    # The connection is to the checked address, the request in the name of the host.
    assert f"Host: localhost:{server.port}\r\n" in server.requests[0]
    assert "(+ops@example.org)" in server.requests[0]
    assert 'If-None-Match: "0"' in server.requests[0]


@pytest.mark.parametrize("status", [304, 403, 404, 429, 500])
async def test_another_status_is_an_error_that_carries_it(server: Server, status: int) -> None:
    server.answer("/", status=f"{status} No", Retry_After="7")
    with pytest.raises(HttpStatus, match=str(status)) as raised:
        await fetch(server.url("/"))
    assert raised.value.status == status
    assert raised.value.headers["retry-after"] == "7"


async def test_silence_and_drip_end_at_the_deadline(server: Server) -> None:
    never = asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
        while not writer.is_closing():  # each byte comes well within the read timeout
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    server.handlers |= {"/hang": hang, "/drip": drip}
    try:
        for path in ("/hang", "/drip"):
            with pytest.raises(FetchError, match=r"took longer|stopped sending"):
                await fetch(server.url(path), LIMITED)
    finally:
        never.set()


async def test_each_of_the_three_time_limits_holds_by_itself(server: Server) -> None:
    never = asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await never.wait()

    server.handlers["/"] = hang
    patient = {"connect_timeout_s": 60.0, "read_timeout_s": 60.0, "timeout_s": 60.0}
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    # Nobody accepts: once the queue is full, a connection is not made and not refused either.
    waiting = [socket.socket() for _ in range(4)]
    try:
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        for limit, url, said in [
            ("connect_timeout_s", full, "no connection in time"),
            ("read_timeout_s", server.url("/"), "stopped sending"),
            ("timeout_s", server.url("/"), r"took longer than 0\.2 s"),
        ]:
            with pytest.raises(FetchError, match=said):
                await fetch(url, PATIENT.model_copy(update=patient | {limit: 0.2}))
    finally:
        never.set()
        for each in (*waiting, listening):
            each.close()


async def test_bodies_are_capped_as_sent_and_inflated(server: Server) -> None:
    server.answer("/fits", gzip.compress(b"a" * 2048), Content_Encoding="gzip")
    server.answer("/big", b"a" * 2049)
    server.answer("/bomb", gzip.compress(b"\0" * 5_000_000), Content_Encoding="gzip")
    assert await fetch(server.url("/fits")) == b"a" * 2048
    for path in ("/big", "/bomb"):
        with pytest.raises(FetchError, match="more than"):
            await fetch(server.url(path))


async def test_damaged_or_unknown_encodings(server: Server) -> None:
    packed = gzip.compress(b"hello hello hello")
    server.answer("/cut", packed[:-6], Content_Encoding="gzip")
    server.answer("/noise", b"not gzip at all", Content_Encoding="gzip")
    server.answer("/other", b"...", Content_Encoding="br")
    for path, complaint in [("/cut", "damaged"), ("/noise", "damaged"), ("/other", "not asked for")]:
        with pytest.raises(FetchError, match=complaint):
            await fetch(server.url(path))


async def test_an_answer_that_is_cut_off_or_no_http(server: Server) -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async def noise(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")

    server.handlers |= {"/cut": cut, "/noise": noise}
    for path in ("/cut", "/noise"):
        with pytest.raises(FetchError, match="did not answer properly"):
            await fetch(server.url(path))


async def test_redirects_are_followed_to_a_limit(server: Server) -> None:
    server.answer("/a", status="302 Found", Location="/b")
    server.answer("/b", status="301 Moved", Location=server.url("/c", "localhost"))
    server.answer("/c", b"here")
    server.answer("/loop", status="302 Found", Location="/loop")
    assert await fetch(server.url("/a")) == b"here"
    with pytest.raises(FetchError, match="more than 5 times"):
        await fetch(server.url("/loop"))


async def test_a_key_does_not_follow_a_redirect_to_another_host(server: Server) -> None:
    server.answer("/here", status="302 Found", Location="/there")
    server.answer("/there", status="302 Found", Location=server.url("/elsewhere", "localhost"))
    server.answer("/elsewhere", b"x")
    async with HttpFetcher.open(PATIENT) as fetcher:
        await fetcher.get(server.url("/here"), headers={"X-Goog-Api-Key": "s3cret", "If-None-Match": '"0"'})
    assert ["s3cret" in request for request in server.requests] == [True, True, False]
    assert all('"0"' in request for request in server.requests)


@pytest.mark.parametrize(
    ("path", "moved"),
    [("/here", []), ("/once", ["/here"]), ("/twice", ["/once", "/here"]), ("/mixed", []), ("/temporary", [])],
)
async def test_only_redirects_that_are_permanent_all_the_way_are_a_move(
    server: Server, path: str, moved: list[str]
) -> None:
    server.answer("/here", b"here")
    server.answer("/once", status="301 Moved", Location="/here")
    server.answer("/twice", status="308 Moved", Location="/once")
    server.answer("/temporary", status="302 Found", Location="/here")
    server.answer("/mixed", status="301 Moved", Location="/temporary")
    async with HttpFetcher.open(PATIENT) as fetcher:
        assert (await fetcher.get(server.url(path))).moved == tuple(server.url(each) for each in moved)
        server.answer("/here", status="304 Not Modified")
        with pytest.raises(NotModified) as raised:
            await fetcher.get(server.url(path))
    assert raised.value.moved == tuple(server.url(each) for each in moved)


async def test_requests_to_one_host_are_spread_also_those_of_a_redirect(server: Server) -> None:
    """Time passes only where the fetcher waits for it; such waits don't count against the deadline."""
    seconds, waits = 100.0, list[float]()

    async def sleep(duration: float) -> None:
        nonlocal seconds
        waits.append(duration)
        seconds += duration

    server.answer("/a", status="302 Found", Location="/b")
    server.answer("/b", b"here")
    settings = IngestSettings(allow_private=True, timeout_s=2)
    async with HttpFetcher.open(settings, turns=Turns(3, lambda: seconds), sleep=sleep) as fetcher:
        await fetcher.get(server.url("/a"))
        assert waits == [3]
        await fetcher.get(server.url("/b", "localhost"))  # another host
        assert waits == [3]
        seconds += 1
        await fetcher.get(server.url("/b"))
        assert waits == [3, 2]


def test_turns_are_taken_in_order() -> None:
    seconds = 0.0
    turns = Turns(2, lambda: seconds)
    assert [turns.take(host) for host in ("a", "a", "b", "a")] == [0, 2, 0, 4]
    seconds = 5.5
    assert [turns.take("a"), turns.take("a"), turns.take("b")] == [0.5, 2.5, 0]


def test_hosts_that_are_known_to_want_it_are_asked_at_their_pace() -> None:
    turns = Turns(2, lambda: 0.0)
    assert [turns.take(host) for host in ("www.reddit.com", "www.reddit.com", "api.gdeltproject.org")] == [0, 60, 0]
    assert [turns.take(host) for host in ("api.gdeltproject.org", "www.reddit.com")] == [5, 120]
    assert Turns(100, lambda: 0.0).take("www.reddit.com") == 0


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://x.example/", "gopher://x.example/", "http://u:p@x.example/"]
)
async def test_redirects_only_lead_to_http(server: Server, place: str) -> None:
    server.answer("/", status="302 Found", Location=place)
    with pytest.raises(FetchError, match=r"Only http|user name"):
        await fetch(server.url("/"))


async def test_private_addresses_are_refused_and_never_connected_to(server: Server) -> None:
    server.answer("/", b"secret")
    for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
        with pytest.raises(FetchError, match="private network"):
            await fetch(server.url("/", host), IngestSettings())
    assert server.requests == []


async def test_each_hop_is_judged_and_the_judged_address_is_the_one_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with another answer on a second look-up (DNS rebinding), and a redirect to a neighbour."""
    server.answer("/", b"pinned")
    server.answer("/away", status="302 Found", Location="http://intranet.example/")
    names = {"public.example": ["127.0.0.1"], "intranet.example": ["10.0.0.7"]}
    asked: list[str] = []

    async def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, 0, 0, "", (found, port)) for found in names[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    # Only the test's server counts as public here; the neighbour stays private.
    monkeypatch.setattr(addresses, "is_public", lambda address: str(address) == "127.0.0.1")
    assert await fetch(server.url("/", "public.example"), IngestSettings()) == b"pinned"
    assert asked[0] == "public.example"
    assert asked.count("public.example") == 1  # the client did not look it up again
    with pytest.raises(FetchError, match=r"intranet\.example is on a private network"):
        await fetch(server.url("/away", "public.example"), IngestSettings())


async def test_the_environments_proxy_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answer("/", b"direct")
    assert await fetch(server.url("/")) == b"direct"


async def test_unreachable_and_unknown_hosts(unused_port: int) -> None:
    with pytest.raises(FetchError, match="can't be reached"):
        await fetch(f"http://127.0.0.1:{unused_port}/")
    for url in ("nonsense", "http://", "http://[", "ftp://x.example/"):
        with pytest.raises(FetchError):
            await fetch(url)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_at_most_two_requests_to_a_host_at_a_time(server: Server) -> None:
    two, go = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        if server.busy == 2:
            two.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    server.handlers["/"] = wait
    async with HttpFetcher.open(PATIENT) as fetcher, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(fetcher.get(server.url("/")))
        await two.wait()
        go.set()
    assert (len(server.requests), server.most_busy) == (5, 2)


@given(data=st.binary(max_size=4000), size=st.integers(1, 900), members=st.integers(1, 3), cap=st.integers(0, 5000))
def test_a_body_is_what_was_sent_or_too_large(data: bytes, size: int, members: int, cap: int) -> None:
    packed = gzip.compress(data) * members
    body = Body(cap, compressed=True)
    try:
        for start in range(0, len(packed), size):
            body.feed(packed[start : start + size])
        assert body.finish() == data * members
    except TooLarge:
        assert max(len(packed), len(data) * members) > cap


def test_a_cut_member_is_damage() -> None:
    body = Body(100, compressed=True)
    body.feed(gzip.compress(b"abc")[:-1])
    with pytest.raises(zlib.error):
        body.finish()


@pytest.mark.parametrize(
    ("contact", "said"),
    [
        (None, "no contact given"),
        ("ops@example.org", "ops@example.org"),
        ("https://example.org/us", "https://example.org/us"),
        ("a\r\nX-Evil: 1", "a X-Evil: 1"),
        ("https://x.example/\r\nX: 1", "X: 1"),
    ],
)
def test_the_user_agent_names_the_operator_and_nothing_else(contact: str | None, said: str) -> None:
    assert user_agent(contact).endswith(f"(+{said})")
    assert user_agent(contact).startswith("TrendRAG/")
