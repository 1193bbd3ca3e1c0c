"""One line of input as a record, and the same line with what a caption adds.

What came in goes out as it was written: a record's text is never encoded anew, only added to. So big numbers, the order
of keys, keys that come twice, spaces and escapes are what they were.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trendrag.errors import RequestError

ADDED = ("vlm_caption", "vlm_captioned_at", "vlm_model", "vlm_trends")
"""The fields that a caption brings. Those of an earlier caption are replaced."""

MAX_LINE_BYTES = 32 * 2**20
_SPACE = " \t\n\r"


@dataclass(frozen=True, slots=True)
class Record:
    """``number`` is its place in the input, from 1 (of a file of lines: the line's number). ``text`` is the object as
    it was written; ``fields`` what it says, of numbers only an approximation."""

    number: int
    text: str
    fields: Mapping[str, Any]

    def identity(self, field: str) -> str:
        """What tells this record from others: the field's value where there is one, else its place."""
        value = self.fields.get(field)
        return str(value) if isinstance(value, str | int) and str(value) else f"#{self.number}"


class Malformed(RequestError):
    """A line that holds no record."""

    code = "malformed_line"


def _number(digits: str) -> int | float:
    # Python refuses to read thousands of digits; nothing here needs their value.
    return int(digits) if len(digits) < 400 else float("inf")


def parse(number: int, line: bytes) -> Record:
    """
    Raises:
        Malformed: not an object of JSON in UTF-8; the message says why, without the line's text.
    """
    if len(line) > MAX_LINE_BYTES:
        raise Malformed(f"The line has more than {MAX_LINE_BYTES // 2**20} MiB.")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(_SPACE)
        fields = json.loads(text, parse_int=_number)
    except UnicodeDecodeError as error:
        raise Malformed(f"The line is not UTF-8 (byte {error.start + 1}).") from error
    except RecursionError as error:
        raise Malformed("The line is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"The line is not JSON: {error.msg} (character {error.pos + 1}).{_hint(text)}") from error
    if not isinstance(fields, dict):
        raise Malformed(f"The line is JSON, but no object: {type(fields).__name__}.{_hint(text)}")
    return Record(number, text, fields)


def _hint(text: str) -> str:
    return " An array is made into lines with: jq -c '.[]'" if text.startswith("[") else ""


def with_fields(record: Record, added: Mapping[str, object]) -> str:
    """The record's text with ``added`` at its end, without a line end. Fields of ``ADDED`` that it had are gone."""
    text = record.text
    if any(name in record.fields for name in ADDED):
        kept = [member for name, member in _members(text) if name not in ADDED]
        text = "{" + ", ".join(kept) + "}"
    body = text[:-1].rstrip(_SPACE)
    new = json.dumps(added, ensure_ascii=False, allow_nan=False)[1:-1]
    return f"{body}{', ' if len(body) > 1 else ''}{new}}}"


_DECODER = json.JSONDecoder(parse_int=lambda _: 0)


def _members(text: str) -> Iterator[tuple[str, str]]:
    """The name and the text (`"name": value`) of each member of an object that is known to be one."""
    at = _skip(text, 1)
    while text[at] == '"':
        name, end = _DECODER.raw_decode(text, at)
        _, end = _DECODER.raw_decode(text, _skip(text, _skip(text, end) + 1))
        yield name, text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
