"""A real Chromium with the page in it, for every suite that looks at the page.

Playwright's synchronous calls keep an event loop in their thread for as long as the browser is there: an asynchronous
test can only run in the same process before or after.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from serving.http.page import is_built
from tests.web.looking import Watched, watch

CHROMIUM = Path(os.environ.get("TRENDRAG_TEST_CHROMIUM", "/usr/bin/chromium"))
PATIENCE_MS = 60_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"There is no Chromium at {CHROMIUM}: install it, or set TRENDRAG_TEST_CHROMIUM", pytrace=False)
    if not is_built():
        pytest.fail("The page is not built: make web", pytrace=False)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor of their own, who lets pages use the clipboard."""
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]  # a TypedDict, which a plain dict fits
    context.set_default_timeout(PATIENCE_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@contextmanager
def watched_page(context: BrowserContext) -> Iterator[Watched]:
    """The page, and what its console said. At the end nothing may have broken the policy or thrown."""
    seen = watch(context.new_page())
    yield seen
    assert seen.faults == []
