"""Without TRENDRAG_TEST_REFERENCE, a folder of data that isn't ours to pass on, what needs it is not collected."""

import os

if not os.environ.get("TRENDRAG_TEST_REFERENCE"):
    collect_ignore = ["test_published_figures.py"]
