"""A minute of readers while snapshots change every second: each answer is of one, none fails, and old ones are let go.

Writes its report to TRENDRAG_SOAK_REPORT, where that names a file. How fast it is, is told there and asserted nowhere.
"""

import asyncio
import os
from pathlib import Path

import pytest

from indexes.embedder import open_minilm
from tests.soak.report import report, torn
from tests.soak.soak import Soaked, soak
from trendrag.settings import default_data_dir

KEPT = 64 * 2**20
"""Bytes that the process may be larger by than before the first swap. Wide: it finds a snapshot that is kept for
every swap, not one that is kept now and then; benchmarks/soak.md has what was seen."""


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """Once, with the real embedder; every test looks at the same one."""
    found = asyncio.run(soak(tmp_path_factory.mktemp("soak"), open_minilm(default_data_dir() / "models")))
    print(report(found))  # noqa: T201  (for `pytest -s`)
    if file := os.environ.get("TRENDRAG_SOAK_REPORT"):
        Path(file).write_text(report(found), "utf-8")
    return found


def test_no_read_fails(soaked: Soaked) -> None:
    assert soaked.failures == []


def test_no_read_is_torn(soaked: Soaked) -> None:
    assert torn(soaked) == []


def test_the_readers_follow_and_end_with_the_last(soaked: Soaked) -> None:
    order = [soaked.published[each.snapshot] for each in sorted(soaked.swapping, key=lambda each: each.began)]
    assert order[0] == 0
    assert len(set(order)) > 10


def test_snapshots_that_were_exchanged_are_let_go(soaked: Soaked) -> None:
    before, _, after = soaked.rss
    assert after - before < KEPT
