"""The page of a server that asks for API keys."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.desk import card, compose, finished, said
from tests.web.looking import findings
from tests.web.servers import ScriptedModel, Server, data_dir, environment, running, scripted_model

WORDS = ("Rain ", "for ", "hours.")


@dataclass
class Guarded:
    server: Server
    folder: Path

    def keys(self, *arguments: str) -> str:
        """What `trendrag keys` says."""
        command = [sys.executable, "-P", "-m", "trendrag", "keys", *arguments]
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, env=environment(self.folder), cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout

    def new_key(self, name: str) -> str:
        (key,) = [word for word in self.keys("create", name).split() if word.startswith("tr_")]
        return key


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = data_dir(tmp_path_factory.mktemp("guarded") / "var")
    with scripted_model() as model:
        model.says(*WORDS)
        made = Guarded(Server(folder, SERVER__KEYS="required", **model.settings), folder)
        made.new_key("first")  # without one the server does not start
        made.server.start()
        try:
            yield made
        finally:
            made.server.stop()


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="API key")


def enter(page: Page, key: str) -> None:
    field(page).fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_tried_used_and_forgotten(page: Page, guarded: Guarded) -> None:
    key = guarded.new_key("page")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(guarded.server.origin)
    expect(page.get_by_role("heading", name="This server asks for an API key")).to_be_visible()
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_attribute("type", "password")
    assert findings(page) == []

    enter(page, key[:-1] + ("0" if key[-1] != "0" else "1"))
    expect(page.get_by_role("alert")).to_contain_text("This API key is not known here.")
    enter(page, key)
    expect(field(page)).to_be_hidden()
    compose(page, "Rain")
    assert said(finished(page)) == "".join(WORDS)
    with page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
        card(page).get_by_role("button", name="Favourite").click()
    assert saved.value.ok

    # After a reload it is still there, and what was written for it, its small picture too.
    page.reload()
    page.get_by_role("link", name="History").click()
    photo = page.get_by_role("list", name="Your captions").get_by_role("img")
    expect(photo).to_be_visible()
    assert photo.evaluate("async (image) => { await image.decode(); return image.naturalWidth > 0; }")
    page.get_by_role("link", name="Trends").click()
    expect(page.get_by_text("There are no trends yet.")).to_be_visible()
    expect(field(page)).to_be_hidden()

    # It is in this tab, and nowhere else.
    assert key in page.evaluate("JSON.stringify({ ...sessionStorage })")
    assert key not in page.evaluate("JSON.stringify({ ...localStorage }) + document.cookie")
    assert not [address for address in addresses if key in address]
    assert key not in (guarded.folder / "server.log").read_text("utf-8")
    other = page.context.new_page()
    other.goto(f"{guarded.server.origin}/#/history")
    expect(field(other)).to_be_visible()
    other.close()

    page.get_by_role("button", name="Your API key").click()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text(key[:15])
    expect(sheet).not_to_contain_text(key[:20])
    assert findings(page) == []
    sheet.get_by_role("button", name="Forget it").click()
    expect(field(page)).to_be_visible()
    assert key not in page.evaluate("JSON.stringify({ ...sessionStorage })")


def test_a_key_that_is_no_good_any_more_is_said_to_be_and_not_sent_again(page: Page, guarded: Guarded) -> None:
    key = guarded.new_key("short-lived")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(guarded.server.origin)
    enter(page, key)
    expect(field(page)).to_be_hidden()
    guarded.server.stop()  # a server that runs hears of it within seconds; one that starts knows at once
    guarded.keys("revoke", key[3:15])
    guarded.server.start()
    compose(page, "Rain")
    expect(page.get_by_role("alert").filter(has_text="was revoked").first).to_be_visible()
    expect(field(page)).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert findings(page) == []
    # What is asked for without it does not hide the reason.
    page.get_by_role("link", name="History").click()
    expect(page.get_by_role("alert").filter(has_text="needs an API key")).to_be_visible()
    expect(page.get_by_role("region", name="This server asks")).to_contain_text("was revoked")
    page.get_by_role("link", name="Caption", exact=True).click()
    # The photo and the note are still there for the next key.
    enter(page, guarded.new_key("next"))
    expect(field(page)).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    assert said(finished(page)) == "".join(WORDS)


def test_a_page_that_needs_no_key_does_not_speak_of_one(
    page: Page, tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel
) -> None:
    with running(data_dir(tmp_path_factory.mktemp("open") / "var"), **model.settings) as server:
        page.goto(server.origin)
        expect(page.get_by_role("option", name="Instagram")).to_be_attached()
        expect(page.get_by_text("API key")).to_have_count(0)
