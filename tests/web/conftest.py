"""A real Chromium on the real server.

Without TRENDRAG_TEST_WEB=1 nothing here is collected; with it, nothing skips. `make test-web` sets it. No test here is
asynchronous (see browsing.py).
"""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.web.browsing import chromium, visit, watched_page
from tests.web.looking import Watched
from tests.web.servers import ScriptedModel, Server, running, scripted_model, with_sample_trends

if os.environ.get("TRENDRAG_TEST_WEB") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with visit(browser) as context:
        yield context


@pytest.fixture
def watched(context: BrowserContext) -> Iterator[Watched]:
    with watched_page(context) as seen:
        yield seen


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
