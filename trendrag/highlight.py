"""Finds the trends that a caption mentions, while it is being written.

Knows nothing of where text or trends come from. The rules (tests/trendrag/test_highlight.py has examples of each):

 1. Spans index the caption as it was sent, in code points; never a normalised copy.
 2. Case and accents don't count, NFC equals NFD; a span includes the combining marks of its last letter.
 3. A surface of one to three capital letters (AI, IT) matches only in capitals.
 4. Space, hyphen (also U+2010, U+2011) and any run of white space are one; so are straight and curly apostrophes.
 5. Other punctuation and digits are literal (AC/DC, C++, GTA 6).
 6. A ``#`` before a mention belongs to it. In a hashtag words may be joined; it must be the whole tag, and needs no
    boundary before the ``#``. A surface that itself begins with ``#`` matches as a hashtag only.
 7. -s, -es (after s, x, z, ch, sh, o) and 's may follow a surface and are included; nothing else is stemmed.
 8. Whole words: the neighbours are not letters, digits or ``_``.
 9. Chinese, Japanese and Korean need no boundary, neither within nor next to other scripts.
10. Where mentions overlap the longest wins; of equally long ones the earliest, then the first listed.
11. Every occurrence counts, in order.

The matcher reads one code point at a time and keeps the matches that may still grow (a small non-deterministic
automaton), so that spans can't depend on how the text was chunked. A span is given out as soon as no further text could
change it.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from trendrag.text import is_accent

# What stands in a surface's atoms for a gap between words: white space or one hyphen; and for a surface that is itself
# written "A - B", both. Longer than one character, so that no text can hold one.
_GAP = "gap"
_WIDE_GAP = "wide gap"

_HYPHENS = "-\u2010\u2011"
_APOSTROPHES = "'\u2018\u2019\u02bc"
_HASHES = "#＃"
_ES_AFTER = ("s", "x", "z", "ch", "sh", "o")
# Letters that NFD does not take apart, though readers take the bare letter for the same.
_STROKES = str.maketrans("øØłŁđĐħĦŧŦı", "oOlLdDhHtTi")
MAX_SURFACE_CHARS = 200


class Span(NamedTuple):
    """Code points [start, end) mention the trend."""

    start: int
    end: int
    trend_id: str


@dataclass(frozen=True, slots=True)
class _Surface:
    order: int  # position among all surfaces: the last tie-breaker
    trend_id: str
    atoms: tuple[str, ...]
    exact: bool  # rule 3: case counts
    tag_only: bool
    takes_es: bool


@dataclass(slots=True)
class _Thread:
    """A match that may still grow: ``position`` atoms are consumed, from ``start``.

    ``gap`` is what has been read at a gap: "", or " " for white space and "-" for a hyphen, in order.
    ``tail`` is what has been read after the last atom: "" nothing, "'" or "e" half a suffix, "s" a whole one.
    ``end`` is where the match ends if it ends here.
    """

    surface: _Surface
    start: int
    position: int
    tagged: bool
    gap: str = ""
    tail: str = ""
    end: int = 0
    last_is_cjk: bool = False

    @property
    def complete(self) -> bool:
        return self.position == len(self.surface.atoms)


class _Candidate(NamedTuple):
    start: int
    end: int
    order: int
    trend_id: str


class Highlighter:
    """Feed it a caption in any chunks; it answers the spans that have become certain, ordered by start.

    >>> highlighter = Highlighter([("t1", ("latte art",))])
    >>> highlighter.feed("My #Latte"), highlighter.feed("Art, done."), highlighter.close()
    ([], [Span(start=3, end=13, trend_id='t1')], [])
    """

    def __init__(self, trends: Iterable[tuple[str, Sequence[str]]]) -> None:
        """``trends``: (id, surfaces: its phrase and aliases). Empty and absurdly long surfaces are passed over."""
        self._by_first: dict[tuple[bool, str], list[_Surface]] = {}
        for trend_id, texts in trends:
            for text in texts:
                self._add(trend_id, text)
        self._length = 0  # code points read
        self._threads: list[_Thread] = []
        self._candidates: list[_Candidate] = []  # complete matches whose overlaps are not settled yet
        self._previous = ""  # the last code point that is not a combining accent
        self._tag_start: int | None = None  # where the hashtag begins that we are in
        self._closed = False

    def _add(self, trend_id: str, text: str) -> None:
        text = text.strip()
        if len(text) > MAX_SURFACE_CHARS:
            return
        tag_only = text.startswith(tuple(_HASHES))
        text = text.lstrip(_HASHES) if tag_only else text
        bare = "".join(char for char in unicodedata.normalize("NFD", text) if not is_accent(char))
        exact = 1 <= len(bare) <= 3 and all(char.isalpha() and char.isupper() for char in bare)
        atoms: list[str] = []
        mixed = ""  # the kinds of characters in the gap that we are in
        for char in text:
            if not (char.isspace() or char in _HYPHENS):
                atoms.extend(_fold(char, exact))
                mixed = ""
            elif atoms:
                mixed += " " if char.isspace() else "-"
                gap = _WIDE_GAP if " " in mixed and "-" in mixed else _GAP
                atoms[-1:] = [gap] if len(mixed) > 1 else [atoms[-1], gap]
        while atoms and atoms[-1] in (_GAP, _WIDE_GAP):
            atoms.pop()
        if not atoms:
            return
        order = sum(map(len, self._by_first.values()))
        takes_es = "".join(atoms).endswith(_ES_AFTER if not exact else tuple(map(str.upper, _ES_AFTER)))
        surface = _Surface(order, trend_id, tuple(atoms), exact, tag_only, takes_es)
        self._by_first.setdefault((exact, atoms[0]), []).append(surface)

    def feed(self, text: str) -> list[Span]:
        if self._closed:
            raise ValueError("the caption is closed")
        if not self._by_first:
            self._length += len(text)
            return []
        for char in text:
            self._read(char)
        return self._settle(final=False)

    def close(self) -> list[Span]:
        """The text has ended: answers what was still open."""
        self._closed = True
        for thread in self._threads:
            if thread.complete and thread.tail in ("", "s"):
                self._keep(thread)
        self._threads = []
        return self._settle(final=True)

    def _read(self, char: str) -> None:
        here = self._length
        self._length += 1
        if is_accent(char):
            for thread in self._threads:
                if thread.complete and thread.end == here:
                    thread.end += 1  # rule 2: the marks of the last letter belong to the span
            return
        folded = {False: _fold(char, False), True: _fold(char, True)}
        in_tag = self._tag_start is not None and _is_word(char)

        advanced = [after for thread in self._threads for after in self._advance(thread, char, folded)]
        # Rule 6: within a hashtag only the whole tag can match, so nothing starts after its first letter.
        if not in_tag or self._tag_start == here - 1:
            advanced += self._begin(char, folded, here)
        self._threads = advanced
        if char in _HASHES:
            self._tag_start = here
        elif not in_tag:
            self._tag_start = None
        self._previous = char

    def _begin(self, char: str, folded: dict[bool, str], here: int) -> list[_Thread]:
        tagged = self._tag_start is not None and self._tag_start == here - 1
        if not tagged and not _is_boundary(self._previous, is_cjk(char)):
            return []
        begun: list[_Thread] = []
        for exact, atoms in folded.items():
            for surface in self._by_first.get((exact, atoms[:1]), ()):
                if tagged or not surface.tag_only:
                    thread = _Thread(surface, here - 1 if tagged else here, 0, tagged)
                    begun += self._consume(thread, atoms, here, char)
        return begun

    def _advance(self, thread: _Thread, char: str, folded: dict[bool, str]) -> list[_Thread]:
        """What becomes of a thread when ``char`` follows: itself grown, more than one, or nothing."""
        if thread.complete:
            return self._advance_complete(thread, char)
        atoms = thread.surface.atoms
        wanted = atoms[thread.position]
        if wanted in (_GAP, _WIDE_GAP):
            wide = wanted == _WIDE_GAP
            if char.isspace() and (wide or "-" not in thread.gap):
                thread.gap += "" if thread.gap.endswith(" ") else " "
                return [thread]
            if char in _HYPHENS and "-" not in thread.gap and (wide or not thread.gap):
                thread.gap += "-"
                return [thread]
            if not thread.gap and not thread.tagged:
                return []
            thread.position += 1
            thread.gap = ""
        return self._consume(thread, folded[thread.surface.exact], self._length - 1, char)

    def _consume(self, thread: _Thread, folded: str, here: int, char: str) -> list[_Thread]:
        """Matches all of ``folded``, the folded form of ``char`` (at ``here``), or gives up: half a letter is none."""
        atoms = thread.surface.atoms
        end = thread.position + len(folded)
        if not folded or atoms[thread.position : end] != tuple(folded):
            return []
        thread.position = end
        if thread.complete:
            thread.end = here + 1
            thread.last_is_cjk = is_cjk(char)
        return [thread]

    def _advance_complete(self, thread: _Thread, char: str) -> list[_Thread]:
        """The text goes on after all atoms: a suffix (rule 7), a boundary (rules 8 and 9), or no match after all."""
        here = self._length - 1
        if thread.tail in ("", "s"):
            if thread.tagged:
                ends_here = not _is_word(char)  # the whole tag, whatever its script
            else:
                # A suffix is never CJK: "東京s" in "東京story" is no plural.
                cjk = thread.last_is_cjk and not thread.tail
                ends_here = not _is_extender(char) and _is_boundary(char, cjk)
            if ends_here:
                self._keep(thread)
        # Case-sensitive surfaces take lower-case suffixes only: "AIS" is no plural of "AI".
        letter = _fold(char, thread.surface.exact)
        grown: list[_Thread] = []
        if thread.tail == "":
            if letter == "s":
                grown.append(replace(thread, tail="s", end=here + 1))
            elif letter == "e" and thread.surface.takes_es:
                grown.append(replace(thread, tail="e", end=thread.end))
            elif char in _APOSTROPHES:
                grown.append(replace(thread, tail="'", end=thread.end))
        elif thread.tail in ("e", "'") and letter == "s":
            grown.append(replace(thread, tail="s", end=here + 1))
        return grown

    def _keep(self, thread: _Thread) -> None:
        self._candidates.append(_Candidate(thread.start, thread.end, thread.surface.order, thread.surface.trend_id))

    def _settle(self, *, final: bool) -> list[Span]:
        """Gives out the groups of overlapping candidates that nothing still open can touch."""
        if not self._candidates:
            return []
        open_from = self._length
        if not final:
            starts = [thread.start for thread in self._threads]
            if self._tag_start is not None and self._tag_start == self._length - 1:
                starts.append(self._tag_start)
            open_from = min(starts, default=self._length)
        certain: list[Span] = []
        pending: list[_Candidate] = []
        for group in _overlapping(sorted(self._candidates)):
            if max(candidate.end for candidate in group) <= open_from:
                certain += _longest_first(group)
            else:
                pending += group
        self._candidates = pending
        return certain


def find_spans(text: str, trends: Iterable[tuple[str, Sequence[str]]]) -> list[Span]:
    """All spans of a finished caption, ordered by start."""
    highlighter = Highlighter(trends)
    return [*highlighter.feed(text), *highlighter.close()]


def _overlapping(candidates: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """Groups of candidates, ordered by start, that are connected by overlaps."""
    groups: list[list[_Candidate]] = []
    reach = -1
    for candidate in candidates:
        if candidate.start < reach:
            groups[-1].append(candidate)
        else:
            groups.append([candidate])
        reach = max(reach, candidate.end)
    return groups


def _longest_first(group: Sequence[_Candidate]) -> list[Span]:
    """Rule 10."""
    taken: list[_Candidate] = []
    for candidate in sorted(group, key=lambda c: (c.start - c.end, c.start, c.order)):
        if all(candidate.end <= other.start or other.end <= candidate.start for other in taken):
            taken.append(candidate)
    return [Span(c.start, c.end, c.trend_id) for c in sorted(taken)]


@lru_cache(maxsize=4096)
def _fold(char: str, exact: bool) -> str:
    """What a code point matches as: without accents and, unless ``exact``, without case. "" for an accent alone."""
    if char in _APOSTROPHES:
        return "'"
    if char in _HASHES:
        return "#"
    bare = "".join(c for c in unicodedata.normalize("NFD", char) if not is_accent(c)).translate(_STROKES)
    if exact:
        return bare
    # Case folding may itself produce marks (İ → i and a dot above).
    return "".join(c for c in unicodedata.normalize("NFD", bare.casefold()) if not is_accent(c)).translate(_STROKES)


@lru_cache(maxsize=4096)
def _is_word(char: str) -> bool:
    """Letters, digits, ``_``, and the marks that make letters (rules 6 and 8)."""
    return char == "_" or char.isalnum() or _is_extender(char)


def _is_boundary(neighbour: str, cjk: bool) -> bool:
    """Whether a word whose own letter is ``cjk`` may begin or end beside ``neighbour`` ("" is the text's edge)."""
    return not neighbour or not _is_word(neighbour) or cjk or is_cjk(neighbour)


@lru_cache(maxsize=4096)
def _is_extender(char: str) -> bool:
    """Marks that turn the letter before them into another one, and the later parts of a decomposed Korean syllable."""
    return (unicodedata.category(char) in ("Mn", "Mc") and not is_accent(char)) or (
        "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"
    )


@lru_cache(maxsize=4096)
def is_cjk(char: str) -> bool:
    """Han, Kana, Bopomofo and Hangul, with the marks that occur only among them."""
    return any(first <= char <= last for first, last in _CJK_RANGES)


_CJK_RANGES = (
    ("\u1100", "\u11ff"),  # Hangul Jamo
    ("\u2e80", "\u2fdf"),  # radicals
    ("\u3005", "\u3007"),  # 々〆〇
    ("\u3031", "\u3035"),
    ("\u3041", "\u30ff"),  # Hiragana, Katakana
    ("\u3105", "\u318f"),  # Bopomofo, compatibility Jamo
    ("\u31a0", "\u31ff"),
    ("\u3400", "\u9fff"),  # Han
    ("\ua960", "\ua97f"),
    ("\uac00", "\ud7ff"),  # Hangul syllables
    ("\uf900", "\ufaff"),
    ("\uff66", "\uffdc"),  # half-width Katakana and Hangul
    ("\U0001b000", "\U0001b16f"),
    ("\U00020000", "\U0003ffff"),
)
