"""Without TRENDRAG_TEST_SOAK=1 nothing here is collected; with it, nothing skips. `make test-soak` sets it."""

import os

if os.environ.get("TRENDRAG_TEST_SOAK") != "1":
    collect_ignore_glob = ["test_*.py"]
