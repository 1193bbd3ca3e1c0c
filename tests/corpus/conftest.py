"""Without TRENDRAG_TEST_CORPUS=1 nothing here is collected; with it, nothing skips. `make test-corpus` sets it."""

import os

import pytest

from tests.corpus import fetch

if os.environ.get("TRENDRAG_TEST_CORPUS") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def corpus() -> dict[str, bytes]:
    if not fetch.is_here():
        pytest.fail("The corpus is missing. Fetch it with: python tests/corpus/fetch.py", pytrace=False)
    return fetch.members()
