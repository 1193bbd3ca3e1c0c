"""Without TRENDRAG_TEST_CORPUS=1 nothing here is collected; with it, nothing skips. `make test-corpus` sets it."""

import os

import pytest

from tests.corpus.fetch import FEEDPARSER, PRAW, Archive

if os.environ.get("TRENDRAG_TEST_CORPUS") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def corpus() -> dict[str, bytes]:
    """feedparser's feeds."""
    return _members(FEEDPARSER)


@pytest.fixture(scope="session")
def cassettes() -> dict[str, bytes]:
    """praw's recordings."""
    return _members(PRAW)


def _members(archive: Archive) -> dict[str, bytes]:
    if not archive.is_here():
        pytest.fail(f"{archive.name}'s is missing. Fetch it with: python tests/corpus/fetch.py", pytrace=False)
    return archive.members()
