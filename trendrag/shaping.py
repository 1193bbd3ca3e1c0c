"""Makes of what a model writes what was asked for, while it streams: not too long, and free of emoji or hashtags.

Nothing that was given out is taken back, and the text does not depend on how it was chunked. Each stage reads one code
point at a time and gives on at once what can't change any more:

- Emoji go at once.
- A hashtag is held until it is clear whether it is a word of a sentence ("my first #latte here"), which stays without
  its hash, or an appendix ("Sunday. #coffee #latte"), which goes.
- White space is held until something follows: at either end it belongs to the model's manners.
- The length is kept by holding back near its end only (`MARGIN`): there, text is given out by whole sentences, so that
  one that does not fit can be left out. Where no sentence ends there, the text ends at a word.

Knows nothing of requests, candidates or trends.
"""

import unicodedata

from trendrag.highlight import is_cjk
from trendrag.text import clean_output, split_tag

MARGIN = 60
"""So many of the last code points are held back until their sentence ends; a third of the limit where that is less."""

_GONE = "\0"  # stands between the stages for something that was removed; clean_output lets no such character in
_TERMINATORS = ".!?…。！？"
_WIDE_TERMINATORS = "。！？"
_STOPS = _TERMINATORS + ",;:"
_CLOSERS = "\"'”’»›)]）」』】"
_SOFT = ",;:–—-&+/("  # a text does not end with these
_AFTER_NOTHING = ".,!?;:…)]）。，！？、"  # no space before these
_SELECTORS = "\ufe0e\ufe0f\u20e3"  # as text, as emoji, in a keycap
_JOINER = "\u200d"
_HASHES = "#＃"
_EMOJI = (
    ("\u231a", "\u231b"),
    ("\u2328", "\u2328"),
    ("\u23cf", "\u23cf"),
    ("\u23e9", "\u23f3"),
    ("\u23f8", "\u23fa"),
    ("\u25fb", "\u25fe"),
    ("\u2600", "\u27bf"),  # weather, signs, dingbats
    ("\u2b05", "\u2b07"),
    ("\u2b1b", "\u2b1c"),
    ("\u2b50", "\u2b55"),
    ("\U0001f000", "\U0001faff"),
)


class Shaper:
    """One caption. ``feed`` and ``close`` answer what may be sent next, "" where nothing may.

    >>> shaper = Shaper(40, hashtags=False)
    >>> shaper.feed(" Slow #lat"), shaper.feed("te Sunday. #coffee"), shaper.close()
    ('Slow', ' latte Sunday.', '')
    """

    def __init__(self, limit: int, *, emoji: bool = True, hashtags: bool = True) -> None:
        """``limit``: the most code points of the whole."""
        self._emoji = None if emoji else _EmojiFilter()
        self._hashtags = None if hashtags else _HashtagFilter()
        self._spacing = _Spacing()
        self._length = _Length(limit)

    @property
    def cut(self) -> bool:
        """Whether more was written than fits. Nothing comes out any more."""
        return self._length.full

    def feed(self, text: str) -> str:
        if self.cut:
            return ""
        text = clean_output(text)
        if self._emoji:
            text = self._emoji.feed(text)
        if self._hashtags:
            text = self._hashtags.feed(text)
        return self._length.feed(self._spacing.feed(text))

    def close(self) -> str:
        rest = self._hashtags.close() if self._hashtags and not self.cut else ""
        return self._length.feed(self._spacing.feed(rest)) + self._length.close()


class _EmojiFilter:
    def __init__(self) -> None:
        self._after_emoji = False

    def feed(self, text: str) -> str:
        return "".join(map(self._read, text))

    def _read(self, char: str) -> str:
        if is_emoji(char):
            self._after_emoji = True
            return _GONE
        # Signs that have a plain form too (©, ™, digits) keep it. A joiner that joins letters is none of ours.
        if char in _SELECTORS or (char == _JOINER and self._after_emoji):
            return ""
        self._after_emoji = False
        return char


def is_emoji(char: str) -> bool:
    """True for code points that are shown as pictures, flags' letters and skin tones among them."""
    return char > "\u2319" and any(first <= char <= last for first, last in _EMOJI)


class _HashtagFilter:
    """Reads a run of hashtags to its end before it decides on it."""

    def __init__(self) -> None:
        self._begun = False  # something is written already
        self._last = ""  # the last code point outside the run that is no white space, on this line
        self._previous = ""  # the last code point outside the run
        self._tags: list[str] = []
        self._gaps: list[str] = []  # what stands after each tag
        self._tag: str | None = None  # the one being read, with its hash

    def feed(self, text: str) -> str:
        return "".join(map(self._read, text))

    def close(self) -> str:
        rest = self._end_tag("")
        return rest + self._resolve("")

    def _read(self, char: str) -> str:
        if self._tag is not None:
            if _in_tag(char) or (char in _HASHES and not self._tag.strip(_HASHES)):
                self._tag += char
                return ""
            not_a_tag = self._end_tag(char)
            if not_a_tag:
                return not_a_tag + self._read(char)
        if self._tags:
            if char in _HASHES:
                self._tag = char
                return ""
            if char == _GONE or (char.isspace() and char != "\n"):
                self._gaps[-1] += char
                return ""
            return self._resolve(char) + self._read(char)
        if char in _HASHES and not (self._previous.isalnum() or self._previous in tuple("_/&=?")):
            self._tag = char
            return ""
        self._note(char)
        return char

    def _end_tag(self, follower: str) -> str:
        """Takes the tag that was read into the run. One without a letter ("#1") is none: answers it, with the run that
        it ends."""
        tag, self._tag = self._tag, None
        if tag is None:
            return ""
        if any(char.isalpha() for char in tag):
            self._tags.append(tag)
            self._gaps.append("")
            return ""
        ended = self._resolve(tag[1:2] or follower)
        for char in tag:
            self._note(char)
        return ended + tag

    def _resolve(self, follower: str) -> str:
        """What remains of the run, now that ``follower`` comes after it ("" at the end of the text)."""
        tags, gaps = self._tags, self._gaps
        if not tags:
            return ""
        self._tags, self._gaps = [], []
        in_sentence = self._last.isalnum() or self._last in tuple(",;:–—-&(“‘\"'")
        at_line_end = follower in ("", "\n")
        # A caption of nothing but hashtags would be none without them.
        stays = not self._begun or follower.isalnum() or (in_sentence and (len(tags) == 1 or not at_line_end))
        words = [split_tag(tag).lstrip(_SELECTORS) for tag in tags]
        text = "".join(word + gap for word, gap in zip(words, gaps, strict=True)) if stays else _GONE + gaps[-1]
        for char in text:
            self._note(char)
        return text

    def _note(self, char: str) -> None:
        if char == _GONE:
            return
        if char in _SELECTORS or not _is_mark(char):  # what belongs to the letter before it changes nothing
            self._previous = char
        if char == "\n":
            self._last = ""
        elif not char.isspace():
            self._last = char
            self._begun = True


def _in_tag(char: str) -> bool:
    return char == "_" or char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    """True for marks, and for the joiners of Persian and Indic spelling."""
    return char in ("\u200c", "\u200d") or (char != "" and unicodedata.category(char)[0] == "M")


class _Spacing:
    """No white space at either end, and none left over where something was removed."""

    def __init__(self) -> None:
        self._held = ""
        self._gone = False
        self._last = ""

    def feed(self, text: str) -> str:
        if self._gone or _GONE in text:
            return "".join(map(self._read, text))
        text = self._held + text
        text = text if self._last else text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._last = kept[-1:] or self._last
        return kept

    def _read(self, char: str) -> str:
        if char == _GONE:
            self._gone = True
            return ""
        if char.isspace():
            self._held += char
            return ""
        if self._gone and char in _STOPS and self._last in tuple(_STOPS):
            return ""  # of the two stops around it one is enough
        gap = self._mended(char) if self._gone else self._held
        gap = gap if self._last else ""
        self._held, self._gone, self._last = "", False, char
        return gap + char

    def _mended(self, follower: str) -> str:
        """The white space around something that was removed, as one would write it without."""
        if "\n" in self._held:
            return "\n" * min(2, self._held.count("\n"))
        if follower in _AFTER_NOTHING:
            return ""
        words_meet = (_in_tag(self._last) or self._last in _HASHES) and _in_tag(follower)
        return " " if self._held or words_meet else ""


class _Length:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit - min(MARGIN, limit // 3)  # up to here everything goes through at once
        self._length = 0
        self._held = ""  # the last ones of ``_length``
        self._previous = ""
        self._terminated = ""  # the terminator of the sentence, where only closing marks have followed it
        self._hard = 0  # the text up to here ends with no soft punctuation
        self._sentence = 0  # the last ends of a sentence, of a word, and of something that is not to be torn
        self._word = 0
        self._whole = 0
        self.full = False

    def feed(self, text: str) -> str:
        if self.full or not text:
            return ""
        # Without white space at its end, which must not become the end of the text.
        through = text[: max(0, self._free - self._length)].rstrip()
        if through:
            if said := through.rstrip(_CLOSERS):
                self._terminated = said[-1] if said[-1] in _TERMINATORS else ""
            self._previous = through[-1]
            self._length += len(through)
            self._hard = self._length if through[-1] not in _SOFT else 0
        return through + "".join(map(self._read, text[len(through) :]))

    def close(self) -> str:
        """What is still held, which fits."""
        held, self._held = self._held, ""
        return held

    def _read(self, char: str) -> str:
        if self.full:
            return ""
        out = self._end_before(char)
        if self._length >= self._limit:
            self.full = True
            return out + self._last_fitting()
        self._length += 1
        self._held += char
        self._follow(char)
        if char not in _SOFT and not char.isspace():
            self._hard = self._length
        return out

    def _follow(self, char: str) -> None:
        """Notes whether a sentence may end after ``char``."""
        if char in _TERMINATORS:
            self._terminated = char
        elif char not in _CLOSERS:
            self._terminated = ""
        self._previous = char

    def _end_before(self, char: str) -> str:
        """Notes what ends where ``char`` follows; gives out what is held where a sentence does."""
        before = self._previous
        if before.isspace() or not before:
            return ""
        wide = self._terminated in tuple(_WIDE_TERMINATORS) and char not in _TERMINATORS + _CLOSERS
        if char == "\n" or (self._terminated and (char.isspace() or wide)):
            self._sentence = self._word = self._whole = self._length
            return self.close()
        between_cjk = (is_cjk(before) or is_cjk(char)) and unicodedata.category(char)[0] in "LNS"
        if char.isspace() or between_cjk:
            given = self._length - len(self._held)
            self._word = self._hard if self._hard >= given else self._length
        if not (_continues(char) or before == _JOINER):
            self._whole = self._length
        return ""

    def _last_fitting(self) -> str:
        """The part of what is held with which the text ends: nothing after a sentence, else whole words."""
        given = self._length - len(self._held)
        held = self.close()
        if self._sentence == given > 0:
            return ""
        end = self._word if self._word >= given and self._word else self._whole
        return held[: max(0, end - given)].rstrip()


def _continues(char: str) -> bool:
    """Whether a code point is one with that before it."""
    return char == _JOINER or "\U0001f3fb" <= char <= "\U0001f3ff" or unicodedata.category(char)[0] == "M"
