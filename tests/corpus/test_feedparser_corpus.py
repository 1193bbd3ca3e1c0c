"""Our RSS source over all feeds of feedparser's own tests: it fails in no new way and loses no entry.

Differences from feedparser that are meant, each found again independently here and counted in ``TOTALS``: an entry
without a title that has a letter or digit says nothing that a trend could be; one that is dated before 2000 or into the
future can't be placed in time; one whose id or link is another's is the same entry. (Most feeds of this corpus test one
other field and have no title. ``with_titles`` gives them one, so that their entries count too.)
"""

import ast
import io
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import feedparser
import pytest

from ingest.observation import CLOCK_SKEW, EARLIEST, MAX_ITEMS, Parsed, title_line
from ingest.sources.rss import entry_date
from tests.ingest.fakes import source
from tests.ingest.test_all_sources import keep_promises
from trendrag.errors import ParseError
from trendrag.text import normal_form

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
RSS = source('id = "corpus"\ntype = "rss"\nurl = "https://feeds.example.com/a.xml"')

FILES = 2_249
TOTALS = {
    "as they are": Counter({"kept": 128, "no usable title": 1080, "listed twice": 1, "refused files": 13}),
    "with titles": Counter({"kept": 1194, "no usable title": 14, "listed twice": 1, "refused files": 13}),
}
"""Refused are four compressed bodies (the fetcher inflates), two without a feed, and seven of CDF, an old format of
channels; feedparser finds no entry in any of them."""

BOMB = "runtests.py"
"""The test program itself, which holds an entity bomb among other pieces of feeds, and is refused."""

TITLES = 70
"""Titles that the tests demand as one literal, in plain ASCII feeds (others' encodings come from HTTP headers)."""

_EXPECTED_TITLE = re.compile(r"Expect:.*entries\[0\]\['title'\] == u?('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?! *\+)")


def read(payload: bytes) -> Parsed | None:
    try:
        parsed = RSS.parse(payload, NOW)
    except ParseError:
        return None
    keep_promises(parsed, NOW)
    return parsed


def entries(payload: bytes) -> list[Any]:
    """What feedparser finds by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return list(feedparser.parse(io.BytesIO(payload)).entries)


def fates(found: list[Any]) -> Counter[str]:
    """What has to become of feedparser's entries: "kept", or the reason why one is left out."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for entry in found:
        form = normal_form(title_line(entry.get("title")))
        date = entry_date(entry)
        identity = entry.get("id") or entry.get("link") or form
        if not form:
            counts["no usable title"] += 1
        elif date and date < EARLIEST:
            counts["date before 2000"] += 1
        elif date and date > NOW + CLOCK_SKEW:
            counts["date in the future"] += 1
        elif identity in seen:
            counts["listed twice"] += 1
        else:
            counts["kept"] += 1
            seen.add(identity)
    assert len(found) < MAX_ITEMS
    return counts


def with_titles(payload: bytes) -> bytes:
    numbers = iter(range(10_000))
    return re.sub(rb"<(item|entry)>", lambda tag: tag[0] + b"<title>Entry %d</title>" % next(numbers), payload)


@pytest.mark.parametrize("change", ["as they are", "with titles"])
def test_no_entry_is_lost_without_a_reason(corpus: Mapping[str, bytes], change: str) -> None:
    totals: Counter[str] = Counter()
    lost: dict[str, tuple[Counter[str], Counter[str]]] = {}
    with pytest.raises(ParseError, match="entity bomb"):
        RSS.parse(corpus[BOMB], NOW)
    for name, original in corpus.items():
        if name == BOMB:
            continue
        payload = with_titles(original) if change == "with titles" else original
        expected, parsed = fates(entries(payload)), read(payload)
        found: Counter[str] = Counter()
        if parsed is not None:
            # An address that can't be shown costs the address, not the entry.
            found = Counter({reason: count for reason, count in parsed.dropped.items() if reason != "unusable address"})
            found["kept"] = len(parsed.observations)
        if +found != expected:
            lost[name] = (expected, +found)
        totals += expected
        totals["refused files"] += parsed is None
    assert lost == {}
    assert len(corpus) == FILES
    assert totals == TOTALS[change]


def test_titles_are_what_feedparsers_tests_expect(corpus: Mapping[str, bytes]) -> None:
    """An oracle that is not feedparser's code: the titles that its tests demand, as one harmless line."""
    right, wrong = 0, {}
    for name, payload in corpus.items():
        expected = _EXPECTED_TITLE.search(payload.decode("ascii", "replace")) if payload.isascii() else None
        parsed = read(payload) if expected else None
        if expected and parsed:
            title = title_line(ast.literal_eval(expected[1]))
            found = parsed.observations[0].title if parsed.observations else ""
            right += found == title
            if found != title:
                wrong[name] = (title, found)
    assert wrong == {}
    assert right == TITLES


def test_every_feed_cut_in_half_is_read_or_refused(corpus: Mapping[str, bytes]) -> None:
    for payload in corpus.values():
        read(payload[: len(payload) // 2])
