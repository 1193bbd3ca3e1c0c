"""The page in a real Chromium, written for by a real vLLM server: what streams, what is stopped, what is changed.

The tiny checkpoint's words are gibberish. What is looked at is when they come, and that nobody goes on writing them for
a visitor who pressed Stop.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fakes import make_trend
from tests.vllm.conftest import unseen_photo
from tests.vllm.server import MODEL, Vllm
from tests.web.browsing import chromium, visit, watched_page
from tests.web.desk import ask, card, finished, open_desk, said
from tests.web.servers import Server, data_dir, running

pytestmark = pytest.mark.vllm

T = TypeVar("T")
LONG = 3000

# Each text that the first card shows, in order: one for each frame in which it changed.
_WATCH_TEXT = """
window.texts = [];
new MutationObserver(() => {
  const text = document.querySelector("article .caption-text")?.textContent;
  if (text && text !== window.texts.at(-1)) window.texts.push(text);
}).observe(document.body, { subtree: true, childList: true, characterData: true });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Gone at the end of this file: the tests of the others are asynchronous."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visit(browser) as context, watched_page(context) as seen:
        yield seen.page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, vllm: Vllm) -> Iterator[Server]:
    """`trendrag serve`, which writes with vLLM and may do so for long."""
    now = datetime.now(UTC)
    trends = [make_trend("slow coffee", first_seen=now, last_seen=now)]
    folder = tmp_path_factory.mktemp("page")
    longer = folder / "platforms.toml"
    longer.write_text(
        '[generic]\nusual_chars = { value = 5000, kind = "habit", seen = 2026-01-01, source = "this test" }\n', "utf-8"
    )
    with running(
        data_dir(folder / "var", trends),
        MODEL__PROVIDER="openai",
        MODEL__BASE_URL=vllm.base_url,
        MODEL__NAME=MODEL,
        MODEL__MAX_TOKENS=LONG,
        PLATFORMS_FILE=longer,
    ) as server:
        yield server


@pytest.fixture
def desk(page: Page, server: Server) -> Page:
    """With a photo that nobody has seen before."""
    open_desk(page, server.origin)
    photo = {"name": "noise.jpg", "mimeType": "image/jpeg", "buffer": unseen_photo()}
    page.get_by_label("Choose a photo").set_input_files(photo)  # type: ignore[arg-type]  # a TypedDict
    expect(page.get_by_role("img", name="Your photo, noise.jpg")).to_be_visible()
    page.get_by_label("Note", exact=True).fill("slow coffee with friends")
    return page


def choose(page: Page, count: int) -> None:
    page.get_by_role("group", name="Captions").get_by_text(str(count), exact=True).click()


def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Runs what is asynchronous beside this thread, whose event loop is Playwright's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def test_words_appear_as_they_are_written(desk: Page) -> None:
    choose(desk, 2)
    desk.evaluate(_WATCH_TEXT)
    ask(desk)
    for number in (1, 2):
        assert said(finished(desk, number))
    texts: list[str] = desk.evaluate("window.texts")
    assert len(texts) > 10, texts
    # Each is the one before and some more; the last is the finished text, which may be trimmed.
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts[:-1]))
    assert texts[-1][:200] == texts[-2][:200]
    expect(desk.get_by_text(f"Written by {MODEL}")).to_be_visible()


def test_stop_stops_the_server(desk: Page, vllm: Vllm) -> None:
    before = elsewhere(vllm.metric("vllm:generation_tokens_total"))
    choose(desk, 4)
    ask(desk)
    for number in (1, 2, 3, 4):
        expect(card(desk, number).locator(".caption-text")).not_to_be_empty()
    elsewhere(vllm.wait_for_running(4))
    desk.get_by_role("button", name="Stop").click()
    expect(desk.get_by_text("Stopped. What was written so far is below.")).to_be_visible()
    elsewhere(vllm.wait_for_running(0))
    # Four whole texts would be twice as many and more.
    assert elsewhere(vllm.metric("vllm:generation_tokens_total")) - before < LONG
    assert said(card(desk))


def test_a_caption_is_changed_in_a_conversation(desk: Page, vllm: Vllm) -> None:
    choose(desk, 1)
    ask(desk)
    first = said(finished(desk))
    for turn, wish in enumerate(("shorter", "and more playful"), start=2):
        if turn == 2:
            card(desk).get_by_text("Change it").click()
        card(desk).get_by_label("What to change").fill(wish)
        with desk.expect_request("**/api/v1/caption/stream*") as sent:
            card(desk).get_by_role("button", name="Change the caption").click()
        asked: dict[str, Any] = sent.value.post_data_json or {}
        told = asked["turns"]
        assert told[0] == {"role": "assistant", "text": first}
        assert told[-1] == {"role": "user", "text": wish}
        assert len(told) == 2 * (turn - 1)
        expect(card(desk).get_by_text(f"{turn} of {turn}")).to_be_visible()
        assert said(finished(desk)) != first
    assert elsewhere(vllm.metric("vllm:num_requests_running")) == 0
