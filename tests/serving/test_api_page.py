"""docs/api.md names every route of the API, and none that there is not."""

import re
from pathlib import Path

from serving.app import create_app
from trendrag.settings import Settings

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "api.md").read_text("utf-8")


def template(path: str) -> str:
    """What a path of the description and one of a curl line have in common."""
    return re.sub(r"\{\w+\}|\$\w+|(?<=candidates/)\d+", "*", path)


def test_every_route_has_a_line_and_every_line_a_route(settings: Settings) -> None:
    routes = {
        (method.upper(), template(path))
        for path, methods in create_app(settings).openapi()["paths"].items()
        for method in methods
        if path.startswith("/api/v1/")
    }
    lines = re.findall(r"^    curl .*$", PAGE, re.MULTILINE)
    shown = set()
    for line in lines:
        path = re.search(r"\$API(/[^\s\"?]+)", line)
        assert path, line
        method = re.search(r"-X (\w+)", line)
        shown.add((method[1] if method else "POST" if " -d " in line else "GET", template(f"/api/v1{path[1]}")))
    assert shown == routes
