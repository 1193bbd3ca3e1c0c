"""The page at ``/``, a stop-gap until the real one: small static files that fetch nothing from elsewhere."""

from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Response

_FOLDER = Path(__file__).parent / "static"
# No inline script or style, no other origin; a chosen photo is shown from a blob: address.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    return _file("index.html")


@router.get("/static/{name}")
def static(name: Literal["page.js", "page.css", "icon.svg"]) -> Response:
    return _file(name)


def _file(name: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response((_FOLDER / name).read_bytes(), media_type=_TYPES[name], headers=headers)
