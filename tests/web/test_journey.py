"""What most people do, from the first look to the history, with the embedded engine and the bundled trends."""

from playwright.sync_api import Page, expect

from tests.web.desk import card, compose, finished, open_desk, said
from tests.web.looking import findings
from tests.web.servers import Server

NOTE = "Slow rainy morning, one espresso and nowhere to be"


def test_from_a_photo_to_the_history(page: Page, sample_server: Server) -> None:
    open_desk(page, sample_server.origin)
    compose(page, NOTE, count=3)
    for number in (1, 2, 3):
        assert said(finished(page, number))
    expect(page.get_by_text("Draft by the small built-in engine")).to_be_visible()
    expect(page.get_by_text("Sample trends of")).to_be_visible()
    assert findings(page) == []

    # Why this word: the trend, its sources, and back to where the focus was.
    lit = page.get_by_role("article").get_by_title("Why this word?").first
    lit.click()
    why = page.get_by_role("dialog")
    expect(why.get_by_role("heading", name="Where it was seen")).to_be_visible()
    expect(why.get_by_role("link").first).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(why.get_by_text("Sample trends: bundled, not live.")).to_be_visible()
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(why).to_be_hidden()
    expect(lit).to_be_focused()

    # Keep: copy, like, favourite, edit.
    first = card(page, 1)
    text = said(first)
    first.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") in text.replace("\n", "")
    for button in ("Good", "Favourite"):
        with page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
            first.get_by_role("button", name=button, exact=True).click()
        assert saved.value.ok
        expect(first.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-pressed", "true")
    second = card(page, 2)
    second.get_by_role("button", name="Edit").click()
    second.get_by_label("Your caption").fill("As I would say it.")
    with page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
        second.get_by_role("button", name="Save").click()
    assert saved.value.ok
    expect(second.get_by_text("edited by you")).to_be_visible()

    # All of that is in the history.
    page.get_by_role("link", name="History").click()
    entry = page.get_by_role("list", name="Your captions").get_by_role("article").first
    expect(entry.get_by_text(f"Note: {NOTE}")).to_be_visible()
    expect(entry.get_by_role("button", name="Favourite: caption 1")).to_have_attribute("aria-pressed", "true")
    expect(entry.get_by_text("As I would say it.")).to_be_visible()
    expect(entry.get_by_text("Liked")).to_be_visible()

    # And the captions are still there when the visitor comes back to them.
    page.get_by_role("link", name="Caption", exact=True).click()
    expect(second.get_by_text("As I would say it.")).to_be_visible()


def test_another_try_and_a_change_are_versions_of_the_card(page: Page, sample_server: Server) -> None:
    open_desk(page, sample_server.origin)
    compose(page, NOTE)
    first = said(finished(page))
    card(page).get_by_role("button", name="Write another").click()
    expect(card(page).get_by_text("2 of 2")).to_be_visible()
    assert said(finished(page)) != first
    card(page).get_by_text("Change it").click()
    card(page).get_by_label("What to change").fill("Shorter")
    card(page).get_by_role("button", name="Change the caption").click()
    expect(card(page).get_by_text("3 of 3")).to_be_visible()
    finished(page)
    card(page).get_by_role("button", name="Earlier version").click()
    card(page).get_by_role("button", name="Earlier version").click()
    assert said(card(page)) == first


def test_a_trend_that_is_not_wanted_is_left_out(page: Page, sample_server: Server) -> None:
    open_desk(page, sample_server.origin)
    compose(page, NOTE)
    finished(page)
    lit = page.get_by_role("article").get_by_title("Why this word?").first
    word = lit.inner_text()
    lit.click()
    phrase = page.get_by_role("dialog").get_by_role("heading", level=2).inner_text()
    page.get_by_role("button", name="Don’t use this trend").click()
    expect(page.get_by_role("button", name=f"Use {phrase} again")).to_be_visible()
    assert word.lower() not in said(finished(page)).lower()


def test_where_no_trend_fits_that_is_the_good_answer(page: Page, sample_server: Server) -> None:
    open_desk(page, sample_server.origin)
    compose(page, "Invoice number 4711 for the replacement of a gearbox seal")
    finished(page)
    expect(page.get_by_text("Written without trends.")).to_be_visible()
    expect(page.get_by_title("Why this word?")).to_have_count(0)


def test_the_sample_photo_makes_a_first_caption(page: Page, sample_server: Server) -> None:
    open_desk(page, sample_server.origin)
    page.get_by_role("button", name="No photo at hand?").click()
    expect(page.get_by_role("img", name="Your photo, sample.jpg")).to_be_visible()
    page.get_by_role("button", name="Write captions").click()
    finished(page)
