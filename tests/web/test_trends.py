"""The view of trends over the bundled sample."""

import pytest
from playwright.sync_api import Page, expect

from tests.web.looking import findings
from tests.web.servers import Server


@pytest.fixture
def trends(page: Page, sample_server: Server) -> Page:
    page.goto(f"{sample_server.origin}/#/trends")
    expect(page.get_by_role("heading", name="What people talk about now")).to_be_visible()
    expect(page.get_by_role("list", name="Trends").get_by_role("article").first).to_be_visible()
    return page


def test_what_is_rising_its_age_and_what_was_kept_back(trends: Page) -> None:
    expect(trends.get_by_text("Sample trends", exact=True)).to_be_visible()
    expect(trends.get_by_text("kept back by the safety rules")).to_be_visible()
    expect(trends.get_by_role("status").filter(has_text="the strongest first")).to_be_visible()
    sources = trends.get_by_role("region", name="Where they come from")
    expect(sources.get_by_role("rowheader", name="Hacker News")).to_be_visible()


def test_search_and_filters_and_back(trends: Page) -> None:
    cards = trends.get_by_role("list", name="Trends").get_by_role("article")
    trends.get_by_label("Search").fill("rocket")
    expect(trends.get_by_role("heading", name="night rocket launch")).to_be_visible()
    expect(trends.get_by_role("status").filter(has_text="trend")).not_to_contain_text("76")
    trends.get_by_label("Search").fill("no such words at all")
    expect(trends.get_by_text("No trend passes these filters.")).to_be_visible()
    expect(cards).to_have_count(0)
    trends.get_by_role("button", name="Show all trends").click()
    expect(cards.first).to_be_visible()
    trends.get_by_label("Subject").select_option("technology")
    expect(cards.first.get_by_text("technology", exact=True)).to_be_visible()
    trends.get_by_label("Stage").select_option("rising")
    expect(cards.first.get_by_text("Rising", exact=True)).to_be_visible()


def test_the_list_goes_on(trends: Page) -> None:
    cards = trends.get_by_role("list", name="Trends").get_by_role("article")
    expect(cards).to_have_count(24)
    trends.get_by_role("button", name="Show more").click()
    expect(cards).to_have_count(48)


def test_evidence_is_linked_and_tells_the_other_side_nothing(trends: Page) -> None:
    trends.get_by_label("Search").fill("rocket")
    card = trends.get_by_role("article").filter(has=trends.get_by_role("heading", name="night rocket launch"))
    card.get_by_text("Seen in").click()
    link = card.get_by_role("link").first
    expect(link).to_be_visible()
    address = link.get_attribute("href")
    assert address
    assert address.startswith(("https://", "http://"))
    assert set((link.get_attribute("rel") or "").split()) >= {"noopener", "noreferrer"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(trends: Page, scheme: str) -> None:
    trends.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    trends.get_by_text("Seen in").first.click()
    assert findings(trends) == []


def test_it_fits_a_phone(trends: Page) -> None:
    trends.set_viewport_size({"width": 360, "height": 740})
    assert trends.evaluate("document.documentElement.scrollWidth") <= 360
