"""HTML and SVG in which text can't become mark-up: whatever isn't `Html` already is escaped."""

from collections.abc import Iterable
from html import escape

from trendrag.text import clean_output

_VOID = {"img", "input", "meta", "br"}


class Html(str):
    """Mark-up of ours."""

    __slots__ = ()


def text(raw: str) -> Html:
    """Text from anywhere, without control and bidirectional characters."""
    return raw if isinstance(raw, Html) else Html(escape(clean_output(raw), quote=True))


def element(tag: str, /, *children: str | Iterable[Html] | None, **attributes: str | float | bool | None) -> Html:
    """``<name …>children</name>``. A trailing "_" of an attribute's name goes, other "_" become "-"; True is an
    attribute without a value; None and False leave it out."""
    opened = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        said = key.rstrip("_").replace("_", "-")
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        opened.append(said if value is True else f'{said}="{text(shown)}"')
    start = f"<{' '.join(opened)}>"
    return Html(start) if tag in _VOID else Html(f"{start}{join(*children)}</{tag}>")


def join(*children: str | Iterable[Html] | None) -> Html:
    parts = []
    for child in children:
        if child is None:
            continue
        parts.append(text(child) if isinstance(child, str) else "".join(child))
    return Html("".join(parts))
