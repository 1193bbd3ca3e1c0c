"""A page as a build leaves one, for tests that are not about what the page does."""

from pathlib import Path

TINY_PAGE = Path(__file__).parent / "page"
SCRIPT = "/assets/page-Bx1_y-2z.js"
