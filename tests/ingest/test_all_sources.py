"""Every kind of source against everything that may come back: one suite, and no kind is left out of it.

``SAMPLES`` holds a proper answer of each kind. A kind that ``AnySource`` has and ``SAMPLES`` lacks fails the suite.
"""

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.observation import EARLIEST, MAX_ITEMS, MAX_TITLE_CHARS, MAX_URL_CHARS, MAX_VOLUME, Observation, Parsed
from ingest.sources import AnySource
from ingest.sources.base import Source, SourceEntry, language_tag
from tests.ingest.fakes import NOW, source
from trendrag.errors import ParseError
from trendrag.types import Evidence

OURS = Path(__file__).parent / "payloads"
SAMPLE = files("ingest.sample")


@dataclass(frozen=True)
class Sample:
    source: Source
    payload: bytes

    @property
    def kind(self) -> str:
        return str(getattr(self.source, "type"))  # noqa: B009  (every entry has one; the protocol doesn't say so)


def sample(entry: str, payload: bytes) -> Sample:
    return Sample(source(f'id = "s"\n{entry}'), payload)


SAMPLES = [
    sample('type = "bluesky"', (OURS / "bluesky.json").read_bytes()),
    sample('type = "gdelt"\nquery = "latte art"', (OURS / "gdelt.json").read_bytes()),
    sample('type = "google_trends"\nregion = "GB"', (SAMPLE / "google-trends-gb.xml").read_bytes()),
    sample('type = "hackernews"', (SAMPLE / "hackernews.json").read_bytes()),
    sample('type = "mastodon"\nhost = "m.example"', (SAMPLE / "toots-tags.json").read_bytes()),
    sample('type = "mastodon"\nhost = "m.example"\nwhat = "links"', (SAMPLE / "toots-links.json").read_bytes()),
    sample('type = "reddit"\nsubreddit = "food"', (OURS / "reddit.atom").read_bytes()),
    sample('type = "rss"\nurl = "https://f.example/rss"', (SAMPLE / "kuechenzettel.xml").read_bytes()),
    sample('type = "rss"\nurl = "https://f.example/atom"', (SAMPLE / "lanternpost.atom").read_bytes()),
    sample('type = "wikimedia"\nproject = "de.wikipedia"', (SAMPLE / "wikipedia-de.json").read_bytes()),
    sample('type = "youtube"\nregion = "US"', (OURS / "youtube.json").read_bytes()),
]
every = pytest.mark.parametrize("each", SAMPLES, ids=[f"{each.kind}-{n}" for n, each in enumerate(SAMPLES)])
few = settings(max_examples=60, deadline=None)


def kinds() -> set[str]:
    members: tuple[type[SourceEntry], ...] = get_args(get_args(AnySource)[0])
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def keep_promises(parsed: Parsed, observed_at: datetime = NOW) -> None:
    """What ``Observation`` and ``Intake`` say of whatever comes out of a parser."""
    assert len(parsed.observations) <= MAX_ITEMS
    assert len({(each.key, each.bucket) for each in parsed.observations}) == len(parsed.observations)
    assert all(count > 0 for count in parsed.dropped.values())
    for seen in parsed.observations:
        check(seen, observed_at)


def check(seen: Observation, observed_at: datetime) -> None:
    one_line(seen.title)
    assert seen.kind in ("phrase", "hashtag", "headline", "article")
    assert re.fullmatch(r"[0-9a-f]{24}", seen.key)
    assert 0 < len(seen.bucket) <= 32
    assert seen.observed_at == observed_at
    for moment in (seen.at, seen.published_at or seen.at):
        utc_until(moment, observed_at)
    web_address(seen.url)
    assert seen.volume is None or (type(seen.volume) is int and 0 <= seen.volume <= MAX_VOLUME)
    assert seen.usual is None or 0 <= seen.usual < float("inf")
    assert seen.region is None or re.fullmatch(r"[A-Z]{2}", seen.region)
    assert language_tag(seen.language) == seen.language
    assert seen.name
    assert all(each and len(each) <= 64 and each.isprintable() for each in seen.categories)
    for found in seen.evidence:
        one_line(found.title)
        assert found.source
        web_address(found.url)
        utc_until(found.published_at or observed_at, observed_at)
        Evidence.model_validate(found.model_dump())


def one_line(title: str) -> None:
    assert 0 < len(title) <= MAX_TITLE_CHARS
    assert title == title.strip()
    assert not set(title) & set("<>`{}")
    unwanted = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not [char for char in title if unicodedata.category(char) in unwanted and char not in "\u200c\u200d"]


def utc_until(moment: datetime, latest: datetime) -> None:
    assert moment.utcoffset() == timedelta(0)
    assert EARLIEST <= moment <= latest


def web_address(url: str | None) -> None:
    if url is not None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert not set(url) & set(" \"'<>`\\\n\r\t\0")
        # Escapes lengthen an address by up to three.
        assert len(url) <= 3 * MAX_URL_CHARS


def survives(each: Sample, payload: bytes, observed_at: datetime = NOW) -> Parsed | None:
    """What is parsed, with all promises checked, or None for a ParseError whose message may be shown."""
    try:
        parsed = each.source.parse(payload, observed_at)
    except ParseError as error:
        message = str(error)
        assert message.isprintable()
        assert 0 < len(message) < 300
        return None
    keep_promises(parsed, observed_at)
    return parsed


def test_every_kind_has_a_sample() -> None:
    assert {each.kind for each in SAMPLES} == kinds()


@every
def test_a_proper_answer_is_read_whole(each: Sample) -> None:
    parsed = survives(each, each.payload)
    assert parsed
    assert len(parsed.observations) >= 2
    assert each.source.parse(each.payload, NOW) == parsed
    assert {seen.source for seen in parsed.observations} == {each.source.id}
    assert {seen.source_type for seen in parsed.observations} == {each.kind}
    # GDELT only points at others: each of its articles is its own publisher's.
    families = {seen.family for seen in parsed.observations}
    assert families == {each.source.family} or (each.kind == "gdelt" and len(families) > 1)


@every
def test_addresses_are_https_and_differ(each: Sample) -> None:
    urls = each.source.urls(NOW)
    assert urls
    assert len(set(urls)) == len(urls)
    for url in urls:
        web_address(url)
        assert url.startswith("https://")
        assert url.isascii()


@every
@given(payload=st.binary(max_size=400))
@few
def test_random_bytes(each: Sample, payload: bytes) -> None:
    survives(each, payload)


@every
@given(data=st.data())
@few
def test_flipped_bits_and_lost_pieces(each: Sample, data: st.DataObject) -> None:
    payload = bytearray(each.payload)
    place = st.integers(0, len(payload) - 1)
    for at, bit in data.draw(st.lists(st.tuples(place, st.integers(0, 7)), max_size=8)):
        payload[at] ^= 1 << bit
    start, end = sorted(data.draw(st.tuples(place, place)))
    if data.draw(st.booleans()):
        del payload[start:end]
    survives(each, bytes(payload))


@every
def test_cut_off_at_any_place(each: Sample) -> None:
    # A draw of places: each parse of a feed takes milliseconds.
    for length in sorted(random.Random(7).sample(range(len(each.payload)), 80)):  # noqa: S311  (no secret)
        survives(each, each.payload[:length])


@every
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" \r\n\t",
        b"\xef\xbb\xbf",
        b"\x00" * 100,
        b"<!DOCTYPE html><html><head><title>Are you a robot?</title></head><body><p>Wait</p></body></html>",
        b"<html><body><h1>429 Too Many Requests</h1></body></html>",
        b"Too many requests. Come back later.",
        b"null",
        b"true",
        b"7",
        b'"x"',
        b"NaN",
        b'{"error": {"code": 403, "message": "no"}}',
        b'{"trends": 1, "articles": {}, "hits": "x", "items": null}',
        b'[{"error": "x"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
        b'<?xml version="1.0" encoding="no-such-encoding"?><rss/>',
    ],
    ids=lambda payload: repr(payload[:16]),
)
def test_what_is_no_answer_at_all_is_a_parse_error(each: Sample, payload: bytes) -> None:
    parsed = survives(each, payload)
    if payload.startswith(b"<?xml"):  # feedparser sees an empty feed in it
        assert parsed is None or parsed.observations == ()
    else:
        assert parsed is None


@every
def test_no_file_of_this_machine_is_read(each: Sample, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-the-disk")
    entity = f'<!DOCTYPE r [<!ENTITY a SYSTEM "{secret.as_uri()}">]>'
    for payload in (
        f"{entity}<rss version='2.0'><channel><item><title>x &a;</title></item></channel></rss>",
        f"{entity}<feed xmlns='http://www.w3.org/2005/Atom'><entry><title>x &a;</title></entry></feed>",
        str(secret),
        secret.as_uri(),
    ):
        assert "from-the-disk" not in repr(survives(each, payload.encode()))


HOSTILE: list[Any] = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//x.example>Soup",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "x" * 100_000,
    "<" * 100_000,
    "&lt;" * 25_000,
    "a" + "\u0301" * 50_000,
    "nul\x00byte \x1b[31m",
    "\ud800 half",
    "&#" + "9" * 6_000 + ";",
    "&#x" + "f" * 6_000 + ";",
    "{{7*7}} ${x} `rm`",
    "javascript:alert(1)",
    "https://x.example/\"onload='x'",
    "https://user:pass@x.example/",
    "https://[::1",
    "//evil.example/",
    "",
    "   ",
    "-1",
    "9" * 5_000,
    "1e999",
    "NaN",
    "0000-00-00T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2099-01-01T00:00:00Z",
    "99991231T235959Z",
    "Fri, 31 Feb 2026 99:99:99 +9999",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "２０２６",
]
HOSTILE_JSON: list[Any] = [
    *HOSTILE, None, True, -1, 10**300, -(10**300), 1e308, float("nan"), float("inf"), 0.5, [], {}, [[[]]], {"a": {}},
]  # fmt: skip


@every
@given(data=st.data())
@few
def test_hostile_values_in_any_place(each: Sample, data: st.DataObject) -> None:
    for payload in mutants(each.payload, data.draw):
        survives(each, payload)


@every
def test_one_hostile_item_does_not_cost_the_others(each: Sample) -> None:
    """Each hostile text once in the place of the first title."""
    whole = survives(each, each.payload)
    assert whole
    for hostile in HOSTILE:
        if each.payload.lstrip().startswith(b"<") and any(char < " " or char > "\ud7ff" for char in hostile):
            continue  # no XML can hold these, so that the document is damaged and not the item
        parsed = survives(each, with_first_title(each.payload, hostile))
        assert parsed, hostile[:40]
        assert len(parsed.observations) >= len(whole.observations) - 1, hostile[:40]


@every
def test_no_date_is_later_than_a_clock_that_is_decades_behind(each: Sample) -> None:
    assert survives(each, each.payload, datetime(2001, 1, 1, tzinfo=UTC))


def mutants(payload: bytes, draw: Callable[[Any], Any]) -> Iterator[bytes]:
    """``payload`` with hostile values in some of its places, still in its format."""
    if payload.lstrip().startswith(b"<"):
        texts = list(re.finditer(rb">([^<>]+)<", payload))
        for found in draw(st.lists(st.sampled_from(texts), min_size=1, max_size=2)):
            value = escaped(draw(st.sampled_from(HOSTILE)))
            yield payload[: found.start(1)] + value + payload[found.end(1) :]
        return
    data = json.loads(payload)
    places = list(leaves(data))
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        replace(data, place, deepcopy(draw(st.sampled_from(HOSTILE_JSON))))
    yield json.dumps(data).encode()


def escaped(text: str) -> bytes:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode("utf-8", "surrogatepass")


def with_first_title(payload: bytes, text: str) -> bytes:
    if payload.lstrip().startswith(b"<"):
        item = re.search(rb"<(item|entry)\b", payload)
        assert item
        found = re.compile(rb"<title[^>]*>(.*?)</title>", re.DOTALL).search(payload, item.start())
        assert found
        return payload[: found.start(1)] + escaped(text) + payload[found.end(1) :]
    data = json.loads(payload)
    title = next(place for place in leaves(data) if place[-1] in ("title", "displayName", "name", "article"))
    replace(data, title, text)
    return json.dumps(data).encode()


def leaves(data: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values within ``data``, containers among them."""
    if at:
        yield at
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield from leaves(value, (*at, key))


def replace(data: Any, place: tuple[str | int, ...], value: object) -> None:
    """Does nothing where an earlier replacement has taken the place away."""
    for key in place[:-1]:
        if not isinstance(data, dict | list) or (isinstance(data, dict) and key not in data):
            return
        if isinstance(data, list) and (not isinstance(key, int) or key >= len(data)):
            return
        data = data[key]  # type: ignore[index]  # checked just above
    if isinstance(data, dict | list) and data:
        with_key = place[-1]
        if isinstance(data, dict) == isinstance(with_key, str):
            data[with_key] = value  # type: ignore[index]  # as above
