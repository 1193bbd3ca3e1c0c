"""Each parser: its real format, and the ways in which that format fails."""

import contextlib
import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.sources import load_sources, parse_sources
from ingest.sources.base import SourceEntry
from ingest.sources.google_trends import traffic
from ingest.sources.mastodon import accounts
from tests.ingest.fakes import NOW, source
from trendrag.errors import ConfigurationError, ParseError
from trendrag.settings import IngestSettings

GOOGLE = source('id = "g"\ntype = "google_trends"\nregion = "US"')
TAGS = source('id = "t"\ntype = "mastodon"\nhost = "m.example"\nwhat = "tags"')
LINKS = source('id = "l"\ntype = "mastodon"\nhost = "m.example"\nwhat = "links"')
HN = source('id = "h"\ntype = "hackernews"')
WIKI = source('id = "w"\ntype = "wikimedia"\nproject = "en.wikipedia"')
RSS = source('id = "r"\ntype = "rss"\nurl = "https://feeds.example.com/a.xml"\npublisher = "The Feed"')
ALL = [GOOGLE, TAGS, LINKS, HN, WIKI, RSS]
JSON = [TAGS, LINKS, HN, WIKI]
IDS = ["google", "tags", "links", "hn", "wiki", "rss"]

BLOCK_PAGE = b"<!DOCTYPE html><html><head><title>Before you continue</title></head><body>consent</body></html>"


def trends_feed(items: str, namespace: str = "https://trends.google.com/trending/rss") -> bytes:
    return f'<rss xmlns:ht="{namespace}" version="2.0"><channel>{items}</channel></rss>'.encode()


def feed(items: str) -> bytes:
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>F</title>{items}</channel></rss>'.encode()


@pytest.mark.parametrize("each", ALL, ids=IDS)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"  \n",
        BLOCK_PAGE,
        b"\xef\xbb\xbf" + BLOCK_PAGE,
        b"Too many requests",
        b"\xff\xfe\x00",
        gzip.compress(b"{}", mtime=0),
        b"7",
    ],
)
def test_what_is_not_the_format_is_a_parse_error(each: object, payload: bytes) -> None:
    with pytest.raises(ParseError):
        each.parse(payload, NOW)  # type: ignore[attr-defined]  # a Source; parametrize can't say so


@pytest.mark.parametrize("each", JSON, ids=["tags", "links", "hn", "wiki"])
@pytest.mark.parametrize("payload", [b'{"error": "no"}', b'"x"', b"null", b'[{"name": "cut o', b"[" * 100_000])
def test_json_of_another_shape_or_cut_off(each: object, payload: bytes) -> None:
    with pytest.raises(ParseError):
        each.parse(payload, NOW)  # type: ignore[attr-defined]  # as above


def test_the_message_tells_a_block_page_from_damage() -> None:
    with pytest.raises(ParseError, match="web page"):
        HN.parse(BLOCK_PAGE, NOW)
    with pytest.raises(ParseError, match="cut off"):
        HN.parse(b'{"hits": [', NOW)
    with pytest.raises(ParseError, match="empty"):
        RSS.parse(b"", NOW)


@pytest.mark.parametrize("each", ALL, ids=IDS)
@given(payload=st.binary(max_size=300) | st.sampled_from([b"[", b'{"hits":[', b'{"items":[{"articles":[']).flatmap(
    lambda head: st.binary(max_size=60).map(lambda tail: head + tail)))  # fmt: skip
def test_no_bytes_raise_anything_else(each: object, payload: bytes) -> None:
    with contextlib.suppress(ParseError):
        each.parse(payload, NOW)  # type: ignore[attr-defined]  # as above


_SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_JSON = st.recursive(
    _SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=6
)
_FIELDS = [
    "title",
    "name",
    "url",
    "history",
    "objectID",
    "points",
    "created_at_i",
    "article",
    "views",
    "published_at",
    "language",
]


@given(items=st.lists(st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6) | _JSON, max_size=4))
def test_bad_items_never_lose_the_good_one(items: list[object]) -> None:
    wiki_day = {"year": "2026", "month": "11", "day": "19"}
    for each, good, wrap in [
        (TAGS, {"name": "GoodOne"}, lambda x: x),
        (LINKS, {"title": "Good one", "url": "https://good.example/"}, lambda x: x),
        (HN, {"title": "Good one", "objectID": "1"}, lambda x: {"hits": x}),
        (WIKI, {"article": "Good_one", "views": 5}, lambda x: {"items": [wiki_day | {"articles": x}]}),
    ]:
        parsed = each.parse(json.dumps(wrap([*items, good])).encode(), NOW)  # type: ignore[no-untyped-call]  # a lambda
        assert any(found.title in ("Good one", "#GoodOne") for found in parsed.observations)


def test_google_trends_keeps_every_headline_of_an_item() -> None:
    items = """<item><title>latte art</title><ht:approx_traffic>200,000+</ht:approx_traffic>
      <pubDate>Fri, 20 Nov 2026 00:10:00 -0800</pubDate>
      <ht:news_item><ht:news_item_title>One</ht:news_item_title><ht:news_item_url>https://a.example/1</ht:news_item_url>
        <ht:news_item_source>Paper A</ht:news_item_source></ht:news_item>
      <ht:news_item><ht:news_item_title>Two</ht:news_item_title><ht:news_item_url>javascript:x</ht:news_item_url>
        </ht:news_item></item>"""
    for namespace in ("https://trends.google.com/trending/rss", "http://www.google.com/trends/hottrends"):
        (found,) = GOOGLE.parse(trends_feed(items, namespace), NOW).observations
        assert (found.title, found.kind, found.volume, found.region) == ("latte art", "phrase", 200_000, "US")
        assert found.published_at == datetime(2026, 11, 20, 8, 10, tzinfo=UTC)
        assert [(each.title, each.source, each.url) for each in found.evidence] == [
            ("One", "Paper A", "https://a.example/1"),
            ("Two", "Google Trends", None),
        ]


def test_google_trends_identity_is_title_and_start() -> None:
    def item(day: int) -> str:
        return f"<item><title>latte art</title><pubDate>{day} Nov 2026 01:00:00 +0000</pubDate></item>"

    assert len(GOOGLE.parse(trends_feed(item(19) + item(20) + item(20)), NOW).observations) == 2


def test_google_trends_refuses_entities_and_accepts_an_empty_list() -> None:
    item = b"<rss><channel><item><title>&b;</title></item></channel></rss>"
    bomb = b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + item
    with pytest.raises(ParseError, match="declarations"):
        GOOGLE.parse(bomb, NOW)
    assert GOOGLE.parse(trends_feed(""), NOW).observations == ()
    with pytest.raises(ParseError):
        GOOGLE.parse(trends_feed("<item><title>x</title></item>")[:-20], NOW)


@pytest.mark.parametrize(
    ("text", "searches"),
    [("2000+", 2000), ("200,000+", 200_000), ("50K+", 50_000), ("1.5M+", 1_500_000), ("2m", 2_000_000), ("", None),
     ("lots", None), ("1.2.3K+", None)],
)  # fmt: skip
def test_traffic(text: str, searches: int | None) -> None:
    assert traffic(text) == searches


def test_mastodon_tags() -> None:
    days = [{"day": "0", "uses": "30", "accounts": str(count)} for count in (2, 20, 4, 6)]
    payload = json.dumps(
        [{"name": "LatteArt", "url": "https://m.example/tags/latteart", "history": days}, {"name": "#"}, 3]
    )
    parsed = TAGS.parse(payload.encode(), NOW)
    (found,) = parsed.observations
    assert (found.title, found.kind, found.volume, found.usual) == ("#LatteArt", "hashtag", 20, 5.0)
    assert parsed.dropped == {"no usable title": 1, "not an item": 1}
    assert TAGS.parse(b"[]", NOW).observations == ()


@pytest.mark.parametrize("history", [None, [], "x", [{}], [{"accounts": "a lot"}], [{"accounts": -3}]])
def test_a_history_that_cannot_be_read_is_unknown(history: object) -> None:
    assert accounts(history) == (None, None)


def test_mastodon_links() -> None:
    link = {"url": "https://p.example/1", "title": "A cat café in a lighthouse", "language": "en"}
    link |= {"published_at": "2026-11-19T10:00:00.000Z", "history": [{"accounts": "9"}]}  # type: ignore[dict-item]  # JSON
    (found,) = LINKS.parse(json.dumps([link]).encode(), NOW).observations
    assert (found.kind, found.volume, found.language) == ("headline", 9, "en")
    assert found.published_at == datetime(2026, 11, 19, 10, tzinfo=UTC)


def test_hacker_news() -> None:
    hits = [
        {"objectID": "41", "title": "A chess clock for cats", "url": None, "points": 12, "created_at_i": 1795150000},
        {"objectID": "42", "title": "<script>x</script>", "url": "https://x.example", "points": 1},
    ]
    parsed = HN.parse(json.dumps({"hits": hits}).encode(), NOW)
    (found,) = parsed.observations
    assert (found.url, found.volume) == ("https://news.ycombinator.com/item?id=41", 12)
    assert parsed.dropped == {"no usable title": 1}


def test_wikimedia_drops_what_is_no_article_and_looks_a_day_further_back() -> None:
    assert WIKI.urls(NOW)[0].endswith("/en.wikipedia/all-access/2026/11/19")
    assert WIKI.urls(datetime(2026, 3, 1, 1, tzinfo=UTC))[1].endswith("/2026/02/27")
    names = ["Main_Page", "Special:Search", "Latte_art", "Portal:Current_events", "AC/DC", "-"]
    articles = [{"article": name, "views": 100 - rank, "rank": rank} for rank, name in enumerate(names, 1)]
    payload = json.dumps({"items": [{"year": "2026", "month": "11", "day": "18", "articles": articles}]}).encode()
    parsed = WIKI.parse(payload, NOW)
    assert [(each.title, each.volume) for each in parsed.observations] == [("Latte art", 97), ("AC/DC", 95)]
    assert parsed.observations[1].url == "https://en.wikipedia.org/wiki/AC%2FDC"
    # Of its day, not of the day on which it was fetched.
    assert parsed.observations[0].at == datetime(2026, 11, 19, tzinfo=UTC)
    assert parsed.dropped == {"not an article": 4}


def test_rss_and_atom() -> None:
    atom = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>F</title><entry><title>Roof gardens</title><id>1</id>
      <link href="https://x.example/1"/><updated>2026-11-19T22:00:00+02:00</updated></entry></feed>"""
    rss = feed("<item><title>Roof gardens</title><link>https://x.example/1</link>"
               "<pubDate>Thu, 19 Nov 2026 20:00:00 GMT</pubDate></item>")  # fmt: skip
    for payload in (atom, rss):
        (found,) = RSS.parse(payload, NOW).observations
        assert (found.title, found.url, found.family) == ("Roof gardens", "https://x.example/1", "The Feed")
        assert found.at == datetime(2026, 11, 19, 20, tzinfo=UTC)


def test_rss_faults_cost_only_themselves() -> None:
    items = """
      <item><title>&lt;script&gt;steal()&lt;/script&gt;Soup swaps</title><link>javascript:alert(1)</link></item>
      <item><title>Ancient</title><link>https://x.example/2</link><pubDate>1 Jan 1783 00:00:00 GMT</pubDate></item>
      <item><title>Future</title><link>https://x.example/3</link><pubDate>1 Jan 2099 00:00:00 GMT</pubDate></item>
      <item><title>No such day</title><link>https://x.example/4</link><pubDate>31 Feb 2026</pubDate></item>
      <item><link>https://x.example/5</link></item>"""
    parsed = RSS.parse(feed(items), NOW)
    assert [(each.title, each.url) for each in parsed.observations] == [
        ("Soup swaps", None),
        ("No such day", "https://x.example/4"),
    ]
    assert parsed.dropped["date in the future"] == 1
    assert parsed.dropped["no usable title"] == 1


def test_a_truncated_feed_keeps_its_items_and_an_encoding_is_honoured() -> None:
    head = '<?xml version="1.0" encoding="ISO-8859-1"?><rss version="2.0"><channel>'
    whole = head + "<item><title>Bratäpfel</title></item><item><title>Win"
    titles = [each.title for each in RSS.parse(whole.encode("latin-1"), NOW).observations]
    assert titles[0] == "Bratäpfel"


def test_bytes_are_never_taken_for_a_file_name(tmp_path: Path) -> None:
    secret = tmp_path / "feed.xml"
    secret.write_bytes(feed("<item><title>From the disk</title></item>"))
    with pytest.raises(ParseError):
        RSS.parse(str(secret).encode(), NOW)


def test_an_empty_feed_is_fine() -> None:
    assert RSS.parse(feed(""), NOW).observations == ()


def test_the_built_in_sources_need_no_key_and_have_several_families() -> None:
    sources = load_sources(None)
    assert len({each.family for each in sources}) >= 8
    assert all(url.startswith("https://") for each in sources for url in each.urls(NOW))
    for each in sources:
        assert each.headers(IngestSettings()) == {}


def test_the_built_in_sources_are_of_many_regions_languages_and_subjects() -> None:
    said = [each.model_dump() for each in load_sources(None) if isinstance(each, SourceEntry)]
    assert len({each.get("region") for each in said} - {None}) >= 8
    assert len({each["language"] for each in said} - {"und"}) >= 6
    subjects = {category for each in said for category in each["categories"]}
    assert subjects >= {
        "news", "entertainment", "art", "photography", "food", "fashion", "travel", "sport", "film", "music", "gaming",
        "science", "technology",
    }  # fmt: skip
    # Each subject that a feed is about has a second publisher, for agreement counts between publishers.
    publishers = {
        (category, each["publisher"]) for each in said if each["type"] == "rss" for category in each["categories"]
    }
    alone = {subject for subject in subjects if sum(of == subject for of, _ in publishers) < 2}
    assert alone <= {"art", "design", "lifestyle"}
    urls = [each["url"] for each in said if each["type"] == "rss"]
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lists no source"),
        ("x = 1", "unknown part 'x'"),
        ("[[source]\n", "not valid TOML"),
        ('[[source]]\nid = "a"\ntype = "telepathy"', r"entry 1 \(a\).*type"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\ncolour = "red"', r"entry 1 \(a\): colour: unknown field"),
        ('[[source]]\nid = "a"\ntype = "rss"\nurl = "file:///etc/passwd"', r"entry 1 \(a\): url"),
        ('[[source]]\nid = "a"\ntype = "mastodon"\nhost = "x.example/path"', r"entry 1 \(a\): host"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = "1m"', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = "25h"', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = "often"', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = 15', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = "15 min"', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\nevery = ""', r"entry 1 \(a\): every: .*5m"),
        ('[[source]]\nid = "a"\ntype = "hackernews"\n' * 2, r"entry 2 \(a\).*taken"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_sources(text, "sources.toml")


def test_how_often_is_said_by_the_entry_else_by_its_type() -> None:
    def every(line: str, kind: str = "hackernews") -> timedelta:
        return source(f'id = "a"\ntype = "{kind}"\n{line}').every

    assert every("") == every('every = "15m"') == timedelta(minutes=15)
    assert every('every = "24h"') == timedelta(days=1)
    assert every('project = "en.wikipedia"', "wikimedia") == timedelta(hours=3)
    assert every('project = "en.wikipedia"\nevery = "90m"', "wikimedia") == timedelta(minutes=90)


def test_an_interval_of_its_own_is_a_change_of_the_entry_and_an_older_entry_is_none() -> None:
    often = source('id = "h"\ntype = "hackernews"\nevery = "5m"')
    assert HN.fingerprint != often.fingerprint
    # Of a version before entries had intervals: what was learned of a source outlives an upgrade.
    assert HN.fingerprint == hashlib.sha256(b'{"id":"h","type":"hackernews"}').hexdigest()


def test_a_sources_file_replaces_the_built_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[source]]\nid = "hn"\ntype = "hackernews"\n')
    assert [each.id for each in load_sources(file)] == ["hn"]
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_sources(tmp_path / "missing.toml")


def test_a_list_of_a_day_to_come_is_not_dated_into_the_future() -> None:
    late = NOW + timedelta(days=400)
    payload = {
        "items": [{"year": late.year, "month": late.month, "day": late.day, "articles": [{"article": "Latte_art"}]}]
    }
    (found,) = WIKI.parse(json.dumps(payload).encode(), NOW).observations
    assert found.at <= NOW


@pytest.mark.parametrize(
    ("said", "minutes"),
    [
        ("", None),
        ("<ttl>90</ttl>", 90),
        ("<ttl> 5 </ttl>", 5),
        ("<ttl>0</ttl>", None),
        ("<ttl>-60</ttl>", None),
        ("<ttl>soon</ttl>", None),
        ("<ttl>999999999999999999</ttl>", None),
        ("<ttl>99999</ttl>", 24 * 60),
        ("<sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>1</sy:updateFrequency>", 60),
        ("<sy:updatePeriod>\n\tHourly\t</sy:updatePeriod><sy:updateFrequency>\n2\n</sy:updateFrequency>", 30),
        ("<sy:updatePeriod>weekly</sy:updatePeriod><sy:updateFrequency>14</sy:updateFrequency>", 12 * 60),
        ("<sy:updatePeriod>yearly</sy:updatePeriod>", 24 * 60),
        ("<sy:updateFrequency>4</sy:updateFrequency>", 6 * 60),
        ("<sy:updatePeriod>fortnightly</sy:updatePeriod>", None),
        ("<ttl>30</ttl><sy:updatePeriod>hourly</sy:updatePeriod>", 60),
    ],
)
def test_a_feed_names_the_pause_between_two_looks(said: str, minutes: int | None) -> None:
    namespace = 'xmlns:sy="http://purl.org/rss/1.0/modules/syndication/"'
    feed = f"<rss version='2.0' {namespace}><channel>{said}<item><title>Latte</title></item></channel></rss>"
    ttl = source('id = "s"\ntype = "rss"\nurl = "https://x.example/"').parse(feed.encode(), NOW).ttl
    assert ttl == (None if minutes is None else timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("declared", "refused"),
    [
        ('<!ENTITY a "Tom"> <!ENTITY b "&a;&a;">', True),
        ("<!ENTITY a 'Tom'> <!ENTITY b\n'x &a;'>", True),
        ('<!ENTITY a "Tom &amp; &#74;erry">', False),
        ('<!ENTITY a "Tom"> <!ENTITY b SYSTEM "https://x.example/?a=1&b=2">', False),
    ],
)
def test_entities_made_of_others_are_refused_and_plain_ones_are_not(declared: str, refused: bool) -> None:
    payload = f"<!DOCTYPE rss [{declared}]><rss version='2.0'><channel><item><title>Tea</title></item></channel></rss>"
    if not refused:
        assert [each.title for each in RSS.parse(payload.encode(), NOW).observations] == ["Tea"]
        return
    for encoded in (payload.encode(), payload.encode("utf-16")):
        with pytest.raises(ParseError, match="entity bomb"):
            RSS.parse(encoded, NOW)
