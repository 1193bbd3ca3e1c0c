"""A real Chromium on the real server.

Without TRENDRAG_TEST_WEB=1 nothing here is collected; with it, nothing skips. `make test-web` sets it.
Playwright's synchronous calls keep an event loop of their own in this thread, so no test here is asynchronous.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from serving.http.page import is_built
from tests.web.looking import Watched, watch
from tests.web.servers import ScriptedModel, Server, running, scripted_model, with_sample_trends

if os.environ.get("TRENDRAG_TEST_WEB") != "1":
    collect_ignore_glob = ["test_*.py"]

CHROMIUM = Path(os.environ.get("TRENDRAG_TEST_CHROMIUM", "/usr/bin/chromium"))
PATIENCE_MS = 60_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"There is no Chromium at {CHROMIUM}: install it, or set TRENDRAG_TEST_CHROMIUM", pytrace=False)
    if not is_built():
        pytest.fail("The page is not built: make web", pytrace=False)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]  # a TypedDict, which a plain dict fits
    context.set_default_timeout(PATIENCE_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def watched(context: BrowserContext) -> Iterator[Watched]:
    """The page, and what its console said. At the end nothing may have broken the policy or thrown."""
    page = context.new_page()
    seen = watch(page)
    yield seen
    assert seen.faults == []


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


@pytest.fixture(scope="session")
def sample_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Writes with the embedded engine about the bundled trends, as after `make demo`."""
    with running(with_sample_trends(tmp_path_factory.mktemp("sample") / "var")) as server:
        yield server


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with scripted_model() as model:
        yield model
