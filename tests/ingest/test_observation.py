from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.observation import Intake, Origin, checked_url, title_line
from tests.ingest.fakes import NOW


def intake() -> Intake:
    return Intake(Origin("s", "test", "family", "Source", NOW))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Latte <b>art</b>", "Latte art"),
        ("<script>steal()</script>Soup swaps", "Soup swaps"),
        ("Soup <script>steal()", "Soup"),
        ("Cats &#39;n&#39; hats &amp; coats", "Cats 'n' hats & coats"),
        ("Hat \u202eswap\u202c day", "Hat swap day"),
        ("see https://x.example/now", "see"),
        ("a\x1b[31mb", "a [31mb"),
        (None, ""),
        (7, ""),
    ],
)
def test_titles_become_one_harmless_line(raw: object, clean: str) -> None:
    assert title_line(raw) == clean


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://x.example/",
        "//x.example/a",
        "https://",
        "https://user:secret@x.example/",
        "https://x.example/a b",
        "https://x.example/\u202e",
        "https://[::1",
        "https://x.example/" + "a" * 3000,
    ],
)
def test_addresses_that_may_not_become_links(url: str) -> None:
    assert checked_url(url) is None


def test_a_link_cannot_leave_an_attribute() -> None:
    assert checked_url("https://x.example/?q=\"><b>'") == "https://x.example/?q=%22%3E%3Cb%3E%27"


@pytest.mark.parametrize(
    ("volume", "kept"),
    [
        (12, 12),
        ("12", 12),
        (0, 0),
        (3.7, 3),
        (-1, None),
        (10**11, None),
        ("many", None),
        (True, None),
        (float("nan"), None),
    ],
)
def test_volumes(volume: object, kept: int | None) -> None:
    assert intake().volume(volume) == kept


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        (NOW - timedelta(days=3), NOW - timedelta(days=3)),
        (NOW + timedelta(minutes=5), NOW),
        (NOW + timedelta(hours=1), None),
        (datetime(1783, 5, 1, tzinfo=UTC), None),
        (datetime(2099, 1, 1, tzinfo=UTC), None),
    ],
)
def test_dates(moment: datetime, kept: datetime | None) -> None:
    assert intake().date(moment) == kept


def test_what_is_refused_is_counted_and_does_not_stop_the_rest() -> None:
    border = intake()
    border.add("headline", "Tomorrow", published_at=NOW + timedelta(days=1), live=False)
    border.add("phrase", "!!!")
    border.add("phrase", "latte art", volume=-5, url="javascript:x")
    border.add("phrase", "Latte Art")
    parsed = border.parsed()
    assert [each.title for each in parsed.observations] == ["latte art"]
    assert parsed.dropped == {
        "date in the future": 1,
        "no usable title": 1,
        "absurd volume": 1,
        "unusable address": 1,
        "listed twice": 1,
    }


def test_a_dated_item_keeps_its_own_time_and_a_live_one_has_the_lists() -> None:
    border = intake()
    old = NOW - timedelta(days=2)
    border.add("headline", "An old story", published_at=old, live=False)
    border.add("phrase", "still searched", published_at=old)
    story, search = border.parsed().observations
    assert (story.at, story.bucket) == (old, "once")
    assert (search.at, search.published_at) == (NOW, old)


@given(st.text(max_size=400))
def test_no_title_brings_markup_or_controls_in(text: str) -> None:
    line = title_line(text)
    assert len(line) <= 300
    assert not set(line) & set("<>`\n\r\x1b\u202e")
