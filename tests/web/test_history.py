"""The view of the visitor's own captions, written before through the API as the same visitor."""

import base64

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.looking import findings
from tests.web.servers import ROOT, Server

PHOTO = ROOT / "tests" / "photos" / "coffee.jpg"


def write(page: Page, server: Server, note: str, candidates: int = 1) -> str:
    """The id of captions about a photo, for the visitor that the page's browser is."""
    body = {"image": base64.b64encode(PHOTO.read_bytes()).decode(), "note": note, "candidates": candidates}
    answer = page.request.post(f"{server.origin}/api/v1/caption", data=body)
    assert answer.ok, answer.text()
    found = answer.json()["id"]
    assert isinstance(found, str)
    return found


@pytest.fixture
def history(page: Page, sample_server: Server) -> Page:
    """With two answers, the newer one about rain."""
    page.goto(sample_server.origin)
    write(page, sample_server, "A quiet espresso before work", candidates=2)
    write(page, sample_server, "Slow rainy morning, nowhere to be")
    page.goto(f"{sample_server.origin}/#/history")
    expect(entries(page)).to_have_count(2)
    return page


def entries(page: Page) -> Locator:
    return page.get_by_role("list", name="Your captions").get_by_role("article")


def test_the_newest_first_with_its_photo(history: Page) -> None:
    newest = entries(history).first
    expect(newest.get_by_text("Slow rainy morning, nowhere to be").first).to_be_visible()
    photo = newest.get_by_role("img", name="Your photo: Slow rainy morning")
    assert photo.evaluate("async (image) => { await image.decode(); return image.naturalWidth > 0; }")


def test_search_and_nothing_found(history: Page) -> None:
    history.get_by_label("Search captions and notes").fill("ESPRESSO")
    expect(entries(history)).to_have_count(1)
    history.get_by_label("Search captions and notes").fill("submarine")
    expect(history.get_by_text("Nothing of yours passes this search.")).to_be_visible()


def test_favourites_stay_and_can_be_asked_for_alone(history: Page) -> None:
    heart = entries(history).nth(1).get_by_role("button", name="Favourite: caption 2")
    with history.expect_response(lambda answer: answer.request.method == "PUT" and answer.status == 204):
        heart.click()
    expect(heart).to_have_attribute("aria-pressed", "true")
    history.reload()
    expect(entries(history)).to_have_count(2)
    history.get_by_label("Only favourites").check()
    expect(entries(history)).to_have_count(1)
    expect(entries(history).get_by_role("button", name="Favourite: caption 2")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_copied_is_the_text(history: Page) -> None:
    said = entries(history).first.locator(".kept-text bdi").inner_text()
    entries(history).first.get_by_role("button", name="Copy caption 1").click()
    expect(history.get_by_text("Copied.", exact=True)).to_be_visible()
    assert history.evaluate("navigator.clipboard.readText()") == said


def test_opened_again_it_has_its_text_and_closes_with_escape(history: Page) -> None:
    said = entries(history).first.locator(".kept-text bdi").inner_text()
    opener = entries(history).first.get_by_role("button", name="Open")
    opener.click()
    sheet = history.get_by_role("dialog")
    expect(sheet.get_by_text("Draft: the small built-in engine")).to_be_visible()
    assert said.split()[0] in sheet.inner_text()
    assert findings(history) == []
    history.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(opener).to_be_focused()


def test_deleting_asks_first_and_is_for_good(history: Page) -> None:
    newest = entries(history).first
    newest.get_by_role("button", name="Delete", exact=True).click()
    expect(newest.get_by_role("button", name="Keep")).to_be_focused()
    newest.get_by_role("button", name="Keep").click()
    newest.get_by_role("button", name="Delete", exact=True).click()
    newest.get_by_role("group", name="Delete these captions?").get_by_role("button", name="Delete").click()
    expect(entries(history)).to_have_count(1)
    history.reload()
    expect(entries(history)).to_have_count(1)
    history.get_by_role("button", name="Delete all").click()
    history.get_by_role("group").get_by_role("button", name="Delete all").click()
    expect(history.get_by_text("Nothing here yet.")).to_be_visible()


def test_others_see_nothing_of_it(history: Page, sample_server: Server) -> None:
    assert history.context.browser
    other = history.context.browser.new_context()
    try:
        page = other.new_page()
        page.goto(f"{sample_server.origin}/#/history")
        expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    finally:
        other.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(history: Page, scheme: str) -> None:
    history.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert findings(history) == []


def test_it_fits_a_phone(history: Page) -> None:
    history.set_viewport_size({"width": 360, "height": 740})
    assert history.evaluate("document.documentElement.scrollWidth") <= 360
