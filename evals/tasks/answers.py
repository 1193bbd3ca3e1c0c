"""Reads what models answer where JSON was asked for: they wrap it in fences and sentences."""

import json
from typing import Any

MAX_CHARS = 20_000


def json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in ``text``, whatever stands around it; None where there is none.

    An answer that was cut off, and so is not JSON, is none: nothing is guessed.
    """
    text = text[:MAX_CHARS]
    decoder = json.JSONDecoder()
    at = text.find("{")
    tries = 0
    while at >= 0 and tries < 50:
        try:
            found, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        at, tries = text.find("{", at + 1), tries + 1
    return None
