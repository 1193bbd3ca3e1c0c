"""Answers that a client may keep, and ask again for whether they still hold (RFC 9110, section 13)."""

import hashlib
from typing import Annotated

from fastapi import Header, Response

# RequestContext sets it where a route says nothing; it takes an answer that has one for one that minds its caching.
POLICY = "default-src 'none'; frame-ancestors 'none'"

IfNoneMatch = Annotated[str | None, Header(description="the `ETag` of what you have; where it still holds, 304")]
NOT_MODIFIED: dict[int | str, dict[str, str]] = {304: {"description": "what you have, by its ETag, still holds"}}


def etag(*parts: object) -> str:
    """A strong one, the same where all parts have the same ``str``."""
    return f'"{hashlib.sha256(chr(0).join(map(str, parts)).encode()).hexdigest()[:32]}"'


def holds(tag: str, asked: str | None) -> bool:
    """Whether an If-None-Match names ``tag``, or anything (``*``)."""
    if asked is None:
        return False
    named = [each.strip().removeprefix("W/") for each in asked.split(",")]
    return tag in named or named == ["*"]


def caching(how: str, tag: str) -> dict[str, str]:
    return {"Cache-Control": how, "ETag": tag, "Content-Security-Policy": POLICY}


def not_modified(how: str, tag: str) -> Response:
    return Response(status_code=304, headers=caching(how, tag))
