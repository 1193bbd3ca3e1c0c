"""Without TRENDRAG_TEST_WEEK=1 nothing here is collected; with it, nothing skips. `make test-week` sets it."""

import os

if os.environ.get("TRENDRAG_TEST_WEEK") != "1":
    collect_ignore_glob = ["test_*.py"]
