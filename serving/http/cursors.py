"""Where the next page begins, as one opaque word. Checked and not signed: whoever makes one up gets another page of
what he may see anyway, for owners and filters are those of the request."""

import base64
import binascii
import json
import math
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query

from indexes.listing import Place
from serving.http.errors import HttpError
from trendrag.clock import microseconds, moment

Cursor = Annotated[
    str | None, Query(max_length=200, description="the `next` of the page before; leave it out for the first one")
]


def after_caption(at: datetime, caption: str) -> str:
    return _packed([microseconds(at), caption])


def caption_after(cursor: str | None) -> tuple[datetime, str] | None:
    """Raises HttpError (422) where ``cursor`` was not made by ``after_caption``."""
    match _unpacked(cursor):
        case None:
            return None
        case [int(at), str(caption)] if len(caption) == 32 and caption.isalnum() and caption.isascii():
            try:
                return moment(at), caption
            except OverflowError:
                raise _not_ours() from None
        case _:
            raise _not_ours()


def after_trend(place: Place) -> str:
    return _packed(list(place))


def trend_after(cursor: str | None) -> Place | None:
    """Raises HttpError (422) where ``cursor`` was not made by ``after_trend``."""
    match _unpacked(cursor):
        case None:
            return None
        case [float(score), int(key)] if math.isfinite(score) and -(2**63) <= key < 2**63:
            return score, key
        case _:
            raise _not_ours()


def _packed(parts: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _unpacked(cursor: str | None) -> Any:
    if cursor is None:
        return None
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _not_ours() from None
    if not isinstance(parts, list):
        raise _not_ours()
    return parts


def _not_ours() -> HttpError:
    return HttpError(422, "invalid_cursor", "cursor: give the `next` of an earlier page as it was, or leave it out.")
