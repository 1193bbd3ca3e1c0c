"""Bytes are told apart by their shape, and pages name their feeds, whatever else they hold."""

import contextlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import get_args
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import source_commands
from ingest.recognise import MAX_FEEDS, MAX_PAGE, TYPES, Feed, feeds_in, is_page, recognise
from ingest.sources import AnySource
from trendrag.errors import ParseError

PAGE = "https://example.org/blog/"


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("google-trends-us.xml", {"type": "google_trends"}),
        ("daybook.xml", {"type": "rss"}),
        ("lanternpost.atom", {"type": "rss"}),
        ("hackernews.json", {"type": "hackernews"}),
        ("mastodon-tags.json", {"type": "mastodon", "what": "tags"}),
        ("toots-links.json", {"type": "mastodon", "what": "links"}),
        ("wikipedia-de.json", {"type": "wikimedia", "project": "de.wikipedia"}),
    ],
)
def test_each_format_is_known_by_its_content(file: str, fields: Mapping[str, str]) -> None:
    assert recognise((files("ingest.sample") / file).read_bytes()) == fields


@pytest.mark.parametrize(
    ("payload", "url", "fields"),
    [
        (b"<rss/>", "https://x.example/f", {"type": "rss", "url": "https://x.example/f"}),
        (b"[]", "https://m.example/api/v1/trends/links?limit=9", {"type": "mastodon", "host": "m.example",
                                                                 "what": "links"}),
        (b"<rss xmlns:ht='https://trends.google.com/trending/rss'/>", "https://trends.google.com/trending/rss?geo=de",
         {"type": "google_trends", "region": "DE"}),
    ],
)  # fmt: skip
def test_the_address_says_what_the_content_does_not(payload: bytes, url: str, fields: Mapping[str, str]) -> None:
    assert recognise(payload, url) == fields


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b" \n", "empty"),
        (b"<!-- hi --><!doctype html><html>", "web page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">', "web page"),
        (b'{"hits": [', "cut off"),
        (b'{"error": "no"}', "shape"),
        (b"[]", "shape"),
    ],
)
def test_what_no_parser_reads_is_named(payload: bytes, complaint: str) -> None:
    with pytest.raises(ParseError, match=complaint):
        recognise(payload)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner)
    | st.dictionaries(st.sampled_from(["hits", "items", "articles", "history", "project"]), inner),
    max_leaves=8).map(lambda data: json.dumps(data).encode()))  # fmt: skip
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    for kind in (None, *TYPES):
        with contextlib.suppress(ParseError):
            assert recognise(payload, "https://x.example/a", kind)["type"] in TYPES


def test_a_feed_that_quotes_a_page_is_a_feed() -> None:
    assert not is_page(b'<?xml version="1.0"?><rss><channel><description>&lt;html> <html></description>')


def test_a_page_names_its_feeds() -> None:
    page = b"""<!doctype html><head><link rel=stylesheet type=text/css href=/s.css>
      <link rel="home ALTERNATE" type="application/rss+xml; charset=utf-8" title="Posts &amp; more" href="../feed">
      <link rel="alternate" type="application/atom+xml" href="//other.example/a.atom"/>
      <link rel="alternate" type="application/atom+xml" href="//other.example/a.atom" title="the same again">
      <link rel="alternate" hreflang="de" href="/de"> <link rel="alternate" type="application/rss+xml">
      <link rel="alternate" type="application/rss+xml" href="javascript:alert(1)">
      <link rel="alternate" type="application/rss+xml" href="http://[broken">
      <script>'<link rel="alternate" type="application/rss+xml" href="/script">'</script>"""
    assert feeds_in(page, PAGE) == (
        Feed("https://example.org/feed", "Posts & more"),
        Feed("https://other.example/a.atom", ""),
    )


def test_a_page_may_move_its_base() -> None:
    page = b'<base href="/en/"><link rel="alternate" type="application/rss+xml" href="feed">'
    assert [feed.url for feed in feeds_in(page, PAGE)] == ["https://example.org/en/feed"]


def test_a_page_is_searched_within_bounds() -> None:
    def link(number: int) -> bytes:
        return b'<link rel="alternate" type="application/rss+xml" href="/%d">' % number

    assert len(feeds_in(b"".join(map(link, range(MAX_FEEDS + 5))), PAGE)) == MAX_FEEDS
    assert feeds_in(b" " * MAX_PAGE + link(1), PAGE) == ()


_PIECES = [
    b"<link rel=alternate type=application/rss+xml href=",
    b"<base href=",
    b"<![",
    b"<!--",
    b"<?",
    b">",
    b"'",
    b"x",
]


@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=8), max_size=12).map(b"".join))
def test_whatever_a_page_holds_only_web_addresses_come_of_it(page: bytes) -> None:
    for feed in feeds_in(page, PAGE):
        assert urlsplit(feed.url).scheme in ("http", "https")
        assert feed.title.isprintable()


def test_every_type_can_be_asked_for() -> None:
    assert source_commands.TYPES == TYPES
    known = {get_args(member.model_fields["type"].annotation)[0] for member in get_args(get_args(AnySource)[0])}
    assert set(TYPES) <= known
