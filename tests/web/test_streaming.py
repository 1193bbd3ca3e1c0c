"""Captions while they are written, and what becomes of them when something goes wrong, with a model that is told what
to say and when."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Dialog, Page, expect

from tests.fakes import make_trend
from tests.web.browsing import DESKTOP, PHONE
from tests.web.desk import PHOTO, ask, card, compose, finished, open_desk, said
from tests.web.looking import findings, shifts
from tests.web.servers import ROOT, ScriptedModel, Server, data_dir, running, scripted_model
from trendrag.types import Evidence, Trend

NOTE = "slow coffee on a rainy morning"
WORDS = ("Rain ", "and ", "slow coffee", " for ", "hours.")
LONG = tuple(f"word{number} " for number in range(40))


def now_trend(phrase: str, **fields: object) -> Trend:
    now = datetime.now(UTC)
    return make_trend(phrase, first_seen=now, last_seen=now, **fields)


@pytest.fixture(scope="module")
def shared_model() -> Iterator[ScriptedModel]:
    with scripted_model() as model:
        yield model


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, shared_model: ScriptedModel) -> Iterator[Server]:
    folder = data_dir(tmp_path_factory.mktemp("scripted") / "var", [now_trend("slow coffee")])
    with running(folder, **shared_model.settings) as server:
        look_first(server)
        yield server


@pytest.fixture
def own_desk(page: Page, tmp_path: Path, model: ScriptedModel) -> Iterator[Page]:
    """With a server of its own, for failures that would open the circuit for other tests."""
    with running(data_dir(tmp_path / "var"), **model.settings) as server:
        look_first(server)
        open_desk(page, server.origin)
        yield page


def look_first(server: Server) -> None:
    """Has the photo described, which is kept: what a test holds back later are captions alone."""
    with httpx2.Client(trust_env=False, timeout=60) as client, PHOTO.open("rb") as photo:
        client.post(f"{server.origin}/api/v1/caption", files={"image": photo}).raise_for_status()


@pytest.fixture
def desk(page: Page, shared_server: Server) -> Page:
    open_desk(page, shared_server.origin)
    return page


def test_words_come_one_by_one_and_trends_light_up_before_the_end(desk: Page, shared_model: ScriptedModel) -> None:
    shared_model.says(*WORDS, hold=True)
    compose(desk, NOTE, count=2)
    for number in (1, 2):
        expect(card(desk, number).get_by_text("Rain", exact=False)).to_be_visible()
        expect(card(desk, number)).to_have_attribute("aria-busy", "true")
    progress = desk.get_by_role("list", name="Progress")
    expect(progress.locator("[aria-current=step]")).to_have_text("Writing")
    expect(desk.get_by_role("button", name="Stop")).to_be_visible()
    assert findings(desk) == []
    shared_model.release()
    for number in (1, 2):
        assert said(finished(desk, number)) == "Rain and slow coffee for hours."
        expect(card(desk, number).get_by_title("Why this word?")).to_have_text("slow coffee")
    expect(desk.get_by_text("All captions are written.")).to_be_attached()


def test_stopped_what_is_there_stays(desk: Page, shared_model: ScriptedModel) -> None:
    shared_model.says(*WORDS, hold=True)
    compose(desk, NOTE)
    expect(card(desk).get_by_text("Rain")).to_be_visible()
    desk.get_by_role("button", name="Stop").click()
    expect(desk.get_by_text("Stopped. What was written so far is below.")).to_be_visible()
    expect(card(desk).get_by_text("Rain")).to_be_visible()
    expect(desk.get_by_role("button", name="Write a caption")).to_be_visible()


@pytest.mark.parametrize("fault", ["drop", "error_event", "late_reset"])
def test_a_model_that_fails_in_mid_stream_says_so_and_can_be_tried_again(
    own_desk: Page, model: ScriptedModel, fault: str
) -> None:
    model.says(*WORDS, fault=fault)  # type: ignore[arg-type]  # one of its Literal
    compose(own_desk, NOTE)
    alert = own_desk.get_by_role("alert")
    expect(alert.get_by_role("button", name="Try again")).to_be_visible()
    assert len(alert.inner_text()) > 30
    assert findings(own_desk) == []
    model.says(*WORDS)
    alert.get_by_role("button", name="Try again").click()
    assert said(finished(own_desk)) == "".join(WORDS)
    expect(own_desk.get_by_role("alert")).to_have_count(0)


def test_a_model_that_is_away_says_so(own_desk: Page, model: ScriptedModel) -> None:
    model.says(fault="status")
    compose(own_desk, NOTE)
    expect(own_desk.get_by_role("alert").get_by_role("button", name="Try again")).to_be_visible()


def test_what_streams_moves_nothing(desk: Page, shared_model: ScriptedModel) -> None:
    shared_model.says(*LONG, hold=True)
    compose(desk, NOTE, count=3)
    expect(card(desk, 3).get_by_text("word0")).to_be_visible()
    desk.wait_for_timeout(600)  # shifts within half a second of an input are left out
    before = shifts(desk)
    shared_model.release()
    for number in (1, 2, 3):
        finished(desk, number)
    # What Web Vitals calls good, for a whole visit, is 0.1; a card may grow a little once its text is finished.
    assert shifts(desk) - before < 0.05


def test_a_page_that_is_reloaded_goes_on_with_its_stream(desk: Page, shared_model: ScriptedModel) -> None:
    shared_model.says(*WORDS, hold=True)
    compose(desk, NOTE)
    expect(card(desk).get_by_text("Rain")).to_be_visible()
    desk.reload()
    shared_model.release()
    shared_model.says(*WORDS)
    assert said(finished(desk)) == "".join(WORDS)
    desk.get_by_role("link", name="History").click()
    expect(desk.get_by_role("list", name="Your captions").get_by_text("".join(WORDS)).first).to_be_visible()


# The first stream's answer comes whole from the server, and the page never hears of it.
_HOLD_BACK = """
const real = window.fetch;
window.fetch = async (...asked) => {
  const answer = await real(...asked);
  if (!String(asked[0]).includes("/caption/stream") || sessionStorage.getItem("held")) return answer;
  await answer.text();
  sessionStorage.setItem("held", "yes");
  document.documentElement.dataset.held = "yes";
  return new Promise(() => undefined);
};
"""


def test_an_answer_that_was_finished_behind_a_page_that_left_is_given_again_and_can_be_kept(
    desk: Page, shared_model: ScriptedModel
) -> None:
    desk.add_init_script(_HOLD_BACK)
    desk.reload()
    shared_model.says(*WORDS)
    compose(desk, NOTE)
    expect(desk.locator("html[data-held]")).to_be_attached()
    shared_model.says("Something ", "else.")
    with desk.expect_response(lambda answer: "/caption/stream" in answer.url and answer.ok) as again:
        desk.reload()
    assert again.value.headers["idempotency-replayed"] == "true"
    assert said(finished(desk)) == "".join(WORDS)
    for button in ("Good", "Favourite"):
        with desk.expect_response(lambda answer: answer.request.method == "PUT") as saved:
            card(desk).get_by_role("button", name=button, exact=True).click()
        assert saved.value.ok
    card(desk).get_by_role("button", name="Edit").click()
    card(desk).get_by_label("Your caption").fill("As I would say it.")
    with desk.expect_response(lambda answer: answer.request.method == "PUT") as saved:
        card(desk).get_by_role("button", name="Save").click()
    assert saved.value.ok
    desk.get_by_role("link", name="History").click()
    entry = desk.get_by_role("list", name="Your captions").get_by_role("article")
    expect(entry).to_have_count(1)
    expect(entry.get_by_text("As I would say it.")).to_be_visible()
    expect(entry.get_by_text("Liked")).to_be_visible()
    expect(entry.get_by_role("button", name="Favourite: caption 1")).to_have_attribute("aria-pressed", "true")


def test_with_the_keyboard_alone(desk: Page, shared_model: ScriptedModel) -> None:
    shared_model.says(*WORDS)
    desk.get_by_label("Choose a photo").set_input_files(PHOTO)  # the system's dialog is no page
    tab_to(desk, "Note")
    desk.keyboard.type(NOTE)
    tab_to(desk, "Write captions")
    desk.keyboard.press("Enter")
    finished(desk, 3)
    tab_to(desk, "slow coffee")
    desk.keyboard.press("Enter")
    expect(desk.get_by_role("dialog").get_by_role("heading", name="slow coffee")).to_be_visible()
    desk.keyboard.press("Escape")
    expect(desk.get_by_role("dialog")).to_be_hidden()
    tab_to(desk, "Favourite")
    desk.keyboard.press("Space")
    expect(desk.locator(":focus")).to_have_attribute("aria-pressed", "true")


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what is so named has the focus, and it can be seen that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "(() => { const at = document.activeElement; return [at.ariaLabel || at.labels?.[0]?.textContent || "
            "at.textContent, getComputedStyle(at).outlineStyle]; })()"
        )
        if name in here[0]:
            assert here[1] != "none", f"{name} has the focus, and nothing shows it"
            return
    raise AssertionError(f"Tab never comes to {name}")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_as_many_captions_as_the_api_writes(
    desk: Page, shared_model: ScriptedModel, size: dict[str, int], scheme: str
) -> None:
    offered = desk.get_by_role("group", name="Captions").get_by_role("radio")
    described = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
    most = described["components"]["schemas"]["CaptionBody"]["properties"]["candidates"]["maximum"]
    expect(offered).to_have_count(most)
    desk.set_viewport_size(size)  # type: ignore[arg-type]  # a TypedDict, which a plain dict fits
    desk.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert findings(desk) == []
    shared_model.says(*WORDS)
    compose(desk, NOTE, count=most)
    for number in range(1, most + 1):
        assert said(finished(desk, number)) == "".join(WORDS)
    assert desk.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert findings(desk) == []
    card(desk, most).get_by_title("Why this word?").click()
    expect(desk.get_by_role("dialog").get_by_role("heading", name="slow coffee")).to_be_visible()
    assert findings(desk) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_in_both_schemes(desk: Page, shared_model: ScriptedModel, scheme: str) -> None:
    desk.set_viewport_size({"width": 360, "height": 740})
    desk.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert findings(desk) == []
    shared_model.says(*WORDS)
    compose(desk, NOTE, count=2)
    finished(desk, 2)
    assert desk.evaluate("document.documentElement.scrollWidth") <= 360
    assert findings(desk) == []
    card(desk).get_by_title("Why this word?").click()
    expect(desk.get_by_role("dialog").get_by_role("heading", name="slow coffee")).to_be_visible()
    assert desk.evaluate("document.documentElement.scrollWidth") <= 360
    assert findings(desk) == []


def test_who_wants_no_motion_gets_none(desk: Page, shared_model: ScriptedModel) -> None:
    desk.emulate_media(reduced_motion="reduce")
    shared_model.says(*WORDS, hold=True)
    compose(desk, NOTE)
    expect(card(desk).get_by_text("Rain")).to_be_visible()
    assert desk.evaluate("document.getAnimations().length") == 0
    shared_model.release()
    finished(desk)
    assert desk.evaluate("document.getAnimations().length") == 0


MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
REVERSED = "\u202egnp.exe\u202c"
ENDLESS = "w" * 500


@pytest.mark.parametrize("text", [MARKUP, REVERSED, ENDLESS, "👩‍🚀 x"])
def test_hostile_words_of_the_model_stay_words(desk: Page, shared_model: ScriptedModel, text: str) -> None:
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    desk.on("dialog", note)
    desk.set_viewport_size({"width": 360, "height": 740})
    shared_model.says("slow coffee ", text[:250], " after")
    compose(desk, NOTE)
    shown = said(finished(desk))
    assert shown.startswith("slow coffee")
    assert desk.locator("article img, article script").count() == 0
    assert desk.evaluate("document.documentElement.scrollWidth") <= 360
    expect(card(desk).get_by_title("Why this word?")).to_have_text("slow coffee")
    assert dialogs == []


def test_hostile_trends_stay_text(page: Page, tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> None:
    evidence = (
        Evidence(source=MARKUP, title=MARKUP, url="javascript:alert(1)"),
        Evidence(source=REVERSED, title=ENDLESS, url="https://news.example/1"),
    )
    trend = now_trend("slow coffee", summary=MARKUP + ENDLESS, aliases=(REVERSED,), evidence=evidence)
    folder = data_dir(tmp_path_factory.mktemp("hostile") / "var", [trend])
    page.set_viewport_size({"width": 360, "height": 740})
    model.says(*WORDS)
    with running(folder, **model.settings) as server:
        open_desk(page, server.origin)
        compose(page, NOTE)
        finished(page).get_by_title("Why this word?").click()
        why = page.get_by_role("dialog")
        expect(why.get_by_text(MARKUP).first).to_be_visible()
        only_harmless(page)
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Trends").click()
        page.locator("summary", has_text="Seen in").click()
        expect(page.get_by_text(MARKUP).first).to_be_visible()
        only_harmless(page)


def only_harmless(page: Page) -> None:
    assert page.locator("[onerror]").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.locator("a[href='https://news.example/1']").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # Marks that turn the direction of text around stay within their own words.
    assert page.evaluate(
        """() => {
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          for (let node = walk.nextNode(); node; node = walk.nextNode())
            if (/[\\u202a-\\u202e\\u2066-\\u2069]/.test(node.data))
              if (!/isolate/.test(getComputedStyle(node.parentElement).unicodeBidi)) return false;
          return true;
        }"""
    )


def test_a_server_that_is_restarted(page: Page, tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> None:
    folder = data_dir(tmp_path_factory.mktemp("restarted") / "var")
    with running(folder, **model.settings) as server:
        look_first(server)
        open_desk(page, server.origin)
        model.says(*WORDS, hold=True)
        compose(page, NOTE)
        expect(card(page).get_by_text("Rain")).to_be_visible()
        server.kill()
        expect(page.get_by_text("Waiting for the server")).to_be_visible()
        model.release()
        model.says(*WORDS)
        server.start()
        expect(page.get_by_text("The server is there again.")).to_be_visible()
        page.get_by_role("button", name="Try again").click()
        assert said(finished(page)) == "".join(WORDS)


def test_files_that_are_no_photos_are_refused_in_words(desk: Page, shared_model: ScriptedModel) -> None:
    desk.get_by_role("button", name="Write captions").click()
    expect(desk.get_by_role("alert")).to_have_text("Choose a photo first.")
    choose = desk.get_by_label("Choose a photo")
    choose.set_input_files({"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"})
    expect(desk.get_by_role("alert")).to_contain_text("Choose a JPEG, PNG, WebP, GIF or AVIF file")
    choose.set_input_files({"name": "empty.jpg", "mimeType": "image/jpeg", "buffer": b""})
    expect(desk.get_by_role("alert")).to_contain_text("empty")
    # What only calls itself a photo is found out by the server.
    choose.set_input_files({"name": "not.jpg", "mimeType": "image/jpeg", "buffer": b"GIF? no. JPEG? no."})
    ask(desk)
    expect(desk.get_by_role("alert").filter(has_text="image")).to_be_visible()
    assert findings(desk) == []


def test_the_first_visit_is_small(page: Page, shared_server: Server) -> None:
    sizes: dict[str, int] = {}
    page.on(
        "requestfinished",
        lambda request: sizes.__setitem__(request.url, request.sizes()["responseBodySize"]),
    )
    open_desk(page, shared_server.origin)
    page.wait_for_load_state("networkidle")
    code = {url: size for url, size in sizes.items() if not url.endswith((".jpg", ".webp")) and "/api/" not in url}
    assert any(url.endswith(".js") for url in code)
    assert sum(code.values()) <= 150_000, code
