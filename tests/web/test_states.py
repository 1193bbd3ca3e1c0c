"""What the page says where something is missing, old or away, and what it takes for good news."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from indexes.embedder import open_minilm
from indexes.publishing import publish
from tests.fakes import make_trend
from tests.web.browsing import DESKTOP, PHONE
from tests.web.desk import compose, finished, open_desk
from tests.web.looking import findings
from tests.web.servers import ScriptedModel, Server, data_dir, running

NOTE = "slow coffee on a rainy morning"
GONE = {"MODEL__PROVIDER": "openai", "MODEL__BASE_URL": "http://127.0.0.1:9/v1", "MODEL__NAME": "gone"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return data_dir(tmp_path / "var")


@contextmanager
def written(page: Page, folder: Path, **settings: object) -> Iterator[Server]:
    """With one caption for a photo."""
    with running(folder, **settings) as server:
        open_desk(page, server.origin)
        compose(page, NOTE)
        finished(page)
        yield server


def notice(page: Page, text: str) -> Locator:
    return page.locator(".notice:visible", has_text=text)


def everywhere(page: Page) -> None:
    """It fits, and everybody can read it: on a desk and a phone, in light and dark."""
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]  # a TypedDict, which a plain dict fits
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            assert findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def age_trends(folder: Path, days: int) -> None:
    """One trend, last seen so long ago."""
    now = datetime.now(UTC)
    seen = now - timedelta(days=days)
    trend = make_trend("slow coffee", first_seen=seen, last_seen=seen)
    snapshots = folder / "snapshots"
    publish(snapshots, [trend], open_minilm(folder / "models"), origin="live", recorded_at=seen, now=now, keep=1)


def damage_trends(folder: Path) -> None:
    age_trends(folder, days=0)
    for file in (folder / "snapshots").rglob("*.vectors"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damaged", [False, True], ids=["none", "damaged"])
def test_without_trends_captions_are_written_and_the_operator_is_told(
    page: Page, folder: Path, model: ScriptedModel, damaged: bool
) -> None:
    if damaged:
        damage_trends(folder)
    with written(page, folder, **model.settings) as server:
        warning = notice(page, "Written without trends.")
        expect(warning).to_have_class("notice notice-warning")
        expect(warning).to_contain_text("trendrag refresh")
        expect(warning).not_to_contain_text("better with none")
        everywhere(page)
        page.goto(f"{server.origin}/#/trends")
        expect(notice(page, "trendrag refresh")).to_be_visible()
        everywhere(page)


def test_old_trends_are_a_warning_and_not_good_news(page: Page, folder: Path, model: ScriptedModel) -> None:
    age_trends(folder, days=12)
    with written(page, folder, **model.settings) as server:
        expect(notice(page, "All trends are older than 72 hours.")).to_have_class("notice notice-warning")
        expect(page.get_by_text("Trends of 12 days ago")).to_be_visible()
        everywhere(page)
        page.goto(f"{server.origin}/#/trends")
        expect(notice(page, "Nothing new was seen for more than three days")).to_be_visible()
        everywhere(page)


def test_trends_that_do_not_fit_are_good_news(page: Page, folder: Path, model: ScriptedModel) -> None:
    now = datetime.now(UTC)
    trend = make_trend("world cricket final", first_seen=now, last_seen=now)
    snapshots = folder / "snapshots"
    publish(snapshots, [trend], open_minilm(folder / "models"), origin="live", recorded_at=now, now=now, keep=1)
    with written(page, folder, **model.settings):
        good = notice(page, "Written without trends.")
        expect(good).to_have_class("notice notice-good")
        expect(good).to_contain_text("No trend fits this photo. A caption is better with none than with one")
        everywhere(page)
        # Who wants none is not told that there are none.
        page.get_by_text("Tone, language, trends").click()
        page.get_by_label("Trends", exact=True).uncheck()
        page.get_by_role("button", name="Write a caption").click()
        expect(good).to_have_count(0)
        finished(page)
        expect(good).to_have_count(0)


def test_a_model_that_is_away_says_what_to_do(page: Page, folder: Path) -> None:
    with running(folder, **GONE) as server:
        open_desk(page, server.origin)
        compose(page, NOTE, count=3)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("can't be reached. Is it running?")
        expect(alert.get_by_role("button", name="Try again")).to_be_enabled()
        expect(page.get_by_role("article")).to_have_count(0)
        everywhere(page)


def test_drafts_in_the_place_of_a_model_that_is_away_are_called_drafts(page: Page, folder: Path) -> None:
    with written(page, folder, **GONE, MODEL__FALLBACK="embedded"):
        expect(notice(page, "so a small draft engine wrote this")).to_be_visible()
        expect(page.get_by_role("article").get_by_text("draft", exact=True)).to_be_visible()
        everywhere(page)
