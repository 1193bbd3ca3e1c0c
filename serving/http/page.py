"""The page at ``/``: what ``make web`` built of serving/web, given out as it is.

The built files name each other by hashes of their content, so that browsers keep them for good; only index.html, which
names the others, is asked for again each time. Where nothing is built, ``/`` says so, and the API works all the same.
"""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from serving.http.callers import welcome
from serving.http.conditional import IfNoneMatch, etag, holds
from serving.http.errors import HttpError
from serving.http.state import State

BUILT = Path(__file__).parent / "static" / "app"
"""Where `make web` puts the page."""

NOT_BUILT = "The page is not built: run `make web` (it needs Node 20 or newer). The API works without it."

# No inline script or style, no other origin; a chosen photo is shown from a blob: address.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_INSTEAD = """<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>TrendRAG</title>
  <h1>TrendRAG is running, without its page</h1>
  <p>The page is not built. In the checkout, run <code>make web</code> (it needs Node 20 or newer), then load this
  again; the server need not be started again.</p>
  <p>The API works without the page: <a href="/openapi.json">its description</a>.</p>
</html>
"""
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_AS_THEY_ARE = {".jpg", ".webp"}  # compressed already
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_CACHED_FILES = 64

router = APIRouter(include_in_schema=False)


def is_built() -> bool:
    return (BUILT / "index.html").is_file()


@router.get("/")
def index(request: Request, state: State, if_none_match: IfNoneMatch = None) -> Response:
    try:
        answer = _file(state.page / "index.html", request, if_none_match, _ASK_AGAIN)
    except FileNotFoundError:
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        answer = Response(_INSTEAD, 503, media_type="text/html", headers=headers)
    welcome(request, state, answer)
    return answer


@router.get("/icon.svg")
def icon(request: Request, state: State, if_none_match: IfNoneMatch = None) -> Response:
    return _there(state.page / "icon.svg", request, if_none_match, _ASK_AGAIN)


@router.get("/assets/{name}")
def asset(
    # What a bundler calls its files: no separator, and nothing that begins with a dot.
    name: Annotated[str, InPath(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200)],
    request: Request,
    state: State,
    if_none_match: IfNoneMatch = None,
) -> Response:
    return _there(state.page / "assets" / name, request, if_none_match, _FOR_GOOD)


def _there(path: Path, request: Request, if_none_match: str | None, caching: str) -> Response:
    try:
        return _file(path, request, if_none_match, caching)
    except FileNotFoundError:
        # A page from before a new build asks for files that are gone.
        raise HttpError(404, "not_found", "The page has no such file now. Load it again.") from None


def _file(path: Path, request: Request, if_none_match: str | None, caching: str) -> Response:
    """Raises FileNotFoundError, also for what is no file of a page."""
    kind = _TYPES.get(path.suffix)
    if kind is None or not path.is_file():
        raise FileNotFoundError
    file = _read(path, path.stat().st_mtime_ns)
    zipped = file.packed is not None and "gzip" in request.headers.get("accept-encoding", "")
    headers = {
        "Content-Security-Policy": _POLICY,
        "Cache-Control": caching,
        "ETag": etag(file.digest, zipped),
        "Vary": "Accept-Encoding",
    }
    if holds(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    if file.packed is None or not zipped:
        return Response(file.plain, media_type=kind, headers=headers)
    return Response(file.packed, media_type=kind, headers=headers | {"Content-Encoding": "gzip"})


@dataclass(frozen=True, slots=True)
class _File:
    plain: bytes
    packed: bytes | None
    digest: str


@lru_cache(_CACHED_FILES)
def _read(path: Path, _mtime_ns: int) -> _File:
    """A file as it is and gzipped; read again once it was written again."""
    plain = path.read_bytes()
    packed = None if path.suffix in _AS_THEY_ARE else gzip.compress(plain, mtime=0)
    return _File(plain, packed, sha256(plain).hexdigest())
