"""Text from outside, made harmless; the normal form under which two spellings are one topic; durations in words.

Trend text, notes and model output are untrusted: they reach a prompt, a terminal and a page. What passes here holds no
control or bidirectional characters and can't close a fence of the prompt. Escaping for a medium (HTML, ANSI) is left to
the medium.
"""

import re
import unicodedata
from datetime import timedelta

# Cc controls, Cf format characters (bidi overrides and isolates, zero-width, BOM, tags), surrogates, private use,
# unassigned. The joiners U+200C/U+200D stay where they are: emoji and Indic or Persian spelling need them.
_UNWANTED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_KEPT = {"\u200c", "\u200d"}
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]{1,15}://|www\.)\S+", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,500}>")
# Angle brackets fence the prompt's sections, backticks fence code, braces fill templates.
_FENCES = str.maketrans({"<": "‹", ">": "›", "`": "'", "{": "(", "}": ")"})
_OUTPUT = _KEPT | {"\n"}
_MAX_MARKS = 4
_YEAR = re.compile(r"(?<=[^\W\d_])(?=[0-9]{4}$)")
_ASCII_SEPARATORS = re.compile(r"[^a-z0-9'+&/#]")
_LOOSE_HASH = re.compile(r"(?<![^\W_])#")


def clean_note(text: str) -> str:
    """A user's note as it may enter the prompt: controls gone, fences disarmed, lines kept. Words are left alone."""
    kept = "".join("\n" if char in "\r\n\u2028\u2029" else char for char in _without_controls(text))
    return "\n".join(line.strip() for line in kept.translate(_FENCES).splitlines() if line.strip())


def clean_line(text: str, max_chars: int) -> str:
    """Trend or source text on one line: no markup, no URL, no controls, at most ``max_chars`` code points.

    Cutting happens at a space where there is one in the second half, and is marked with "…".
    """
    # Bounded before any regex runs: the input may be megabytes of somebody's feed.
    text = _without_controls(unicodedata.normalize("NFC", text[: max_chars * 8 + 2_000]))
    text = _URL.sub(" ", _TAG.sub(" ", text)).translate(_FENCES)
    text = " ".join(text.split())
    if len(text) <= max_chars:
        return text
    cut = text[: max_chars - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > max_chars // 2 else cut).rstrip() + "…"


def clean_output(text: str) -> str:
    """A piece of a model's text without control and format characters; lines and emoji stay. Pieces clean one by one as
    the whole does."""
    if text.isascii() and text.isprintable():  # nearly every piece, at once
        return text
    return "".join(char for char in text if char in _OUTPUT or unicodedata.category(char) not in _UNWANTED)


def age(elapsed: timedelta) -> str:
    """A duration as people say it: "35 s", "12 min", "5 h", "3 days". Never negative."""
    seconds = max(0, int(elapsed.total_seconds()))
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 100 * 60:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400} days"


def _without_controls(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        if category in _UNWANTED and char not in _KEPT:
            kept.append("\n" if char in "\n\r" else " " if char == "\t" or category == "Cc" else "")
            continue
        # Stacked combining marks ("zalgo") paint over neighbouring lines.
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def normal_form(text: str) -> str:
    """The form under which wordings of one topic are equal: case, accents, hashes, hyphens and spacing don't count.

    ``normal_form("#CaféSociety") == normal_form("Cafe  society") == "cafe society"``: a hashtag in camel case is split.
    Never shown to anyone. Empty for text without a letter or digit.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if text.startswith(("#", "＃")):
        text = split_tag(text)
    folded = unicodedata.normalize("NFKD", text).casefold().replace("’", "'")
    if folded.isascii():  # the most, and many times faster
        folded = _ASCII_SEPARATORS.sub(" ", folded)
        form = " ".join(_LOOSE_HASH.sub(" ", folded).split())
        return form if any(char.isalnum() for char in form) else ""
    kept = [
        char if char.isalnum() or char in "'+&/#" or unicodedata.combining(char) else " "
        for char in folded
        if not is_accent(char)
    ]
    form = " ".join(_LOOSE_HASH.sub(" ", "".join(kept)).split())  # the hash of "C#" stays
    return unicodedata.normalize("NFC", form) if any(char.isalnum() for char in form) else ""


def split_tag(tag: str) -> str:
    """ "#WorldCup2026" → "World Cup 2026": the words of a hashtag, where capitals or a year tell them apart."""
    tag = tag.lstrip("#＃")
    spaced = "".join(
        f" {char}" if char.isupper() and before.islower() else char
        for before, char in zip(" " + tag, tag, strict=False)
    )
    return _YEAR.sub(" ", spaced)


def is_accent(char: str) -> bool:
    """True for combining marks that decorate a letter (é, й, Hebrew points, Arabic vowels), so that a reader takes the
    word without them for the same. False for marks that make another letter: Japanese voicing, Indic vowel signs."""
    return (
        "\u0300" <= char <= "\u036f"
        or "\u0591" <= char <= "\u05c7"
        or "\u064b" <= char <= "\u065f"
        or "\u1ab0" <= char <= "\u1aff"
        or "\u1dc0" <= char <= "\u1dff"
        or "\u20d0" <= char <= "\u20ff"
        or "\ufe00" <= char <= "\ufe0f"  # variation selectors
        or "\ufe20" <= char <= "\ufe2f"
        or char == "\u0670"
    ) and unicodedata.category(char) in ("Mn", "Me")
