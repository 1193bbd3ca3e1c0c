"""What all tests share: no network beyond loopback, and no settings from the developer's shell."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from pytest_socket import socket_allow_hosts

from trendrag.logs import OURS
from trendrag.settings import ServerSettings, Settings

# CI repeats the same examples, so that it fails for what a change did; people's runs look for new ones.
# `pytest --hypothesis-profile=thorough` looks long.
# No deadlines: how long an example takes says something of the machine.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# Shells start background jobs with Ctrl-C ignored, and children inherit that; tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def only_loopback() -> None:
    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def log_levels_of_its_own() -> Iterator[None]:
    """Inspect AI sets the root logger's level when it first runs, and our command line sets those of our packages."""
    loggers = [logging.getLogger(name) for name in (None, *OURS)]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRENDRAG_") and not name.startswith("TRENDRAG_TEST")]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Default settings with a data directory of the test's own, and names by which tests call servers."""
    return Settings(data_dir=tmp_path / "var", server=ServerSettings(hosts=("test", "testserver")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of real services run where TRENDRAG_TEST_SERVICES=1 promises that these are there, and never skip."""
    if os.environ.get("TRENDRAG_TEST_SERVICES") != "1":
        needs_service = [item for item in items if item.get_closest_marker("services")]
        config.hook.pytest_deselected(items=needs_service)
        items[:] = [item for item in items if not item.get_closest_marker("services")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("TRENDRAG_TEST_NO_SKIPS") and _skipped(terminalreporter):
        terminalreporter.write_line("Skipped tests count as failures here (TRENDRAG_TEST_NO_SKIPS).", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI must run everything: with TRENDRAG_TEST_NO_SKIPS a skipped test fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("TRENDRAG_TEST_NO_SKIPS") and reporter and _skipped(reporter) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """But for those of LangChain's standard tests that ask for what a model does not claim to do, such as tools."""
    found: list[pytest.TestReport] = reporter.stats.get("skipped", [])
    return [each for each in found if "langchain_tests" not in str(each.longrepr)]
