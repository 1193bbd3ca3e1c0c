"""Our caption measures are those of the literature. Collected where TRENDRAG_TEST_REFERENCE names the data's folder."""

import os
from pathlib import Path

from evals.selfcheck import run


def test_published_figures_are_made_again() -> None:
    found = run(Path(os.environ["TRENDRAG_TEST_REFERENCE"]))
    assert [row for row in found.rows if not row.passed] == []
    assert found.absent == ()
