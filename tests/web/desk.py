"""The view in which captions are written, as a visitor uses it: everything is found by role and accessible name."""

from playwright.sync_api import Locator, Page, expect

from tests.web.servers import ROOT

PHOTO = ROOT / "tests" / "photos" / "coffee.jpg"


def open_desk(page: Page, origin: str) -> None:
    page.goto(origin)
    expect(page.get_by_role("form", name="New captions")).to_be_visible()


def compose(page: Page, note: str = "", count: int = 1) -> None:
    """Fills the form, and asks."""
    page.get_by_label("Choose a photo").set_input_files(PHOTO)
    expect(page.get_by_role("img", name="Your photo, coffee.jpg")).to_be_visible()
    page.get_by_label("Note", exact=True).fill(note)
    page.get_by_role("group", name="Captions").get_by_text(str(count), exact=True).click()
    ask(page)


def ask(page: Page) -> None:
    page.get_by_role("button", name="Write").and_(page.locator("[type=submit]")).click()


def card(page: Page, number: int = 1) -> Locator:
    return page.get_by_role("article", name=f"Caption {number}", exact=True)


def finished(page: Page, number: int = 1) -> Locator:
    """The card, once its text is finished."""
    found = card(page, number)
    expect(found.get_by_role("button", name="Good", exact=True)).to_be_enabled()
    return found


def said(found: Locator) -> str:
    """The caption that a card shows."""
    return found.locator(".caption-text").inner_text()
