"""Which words of a headline may stand for its topic, and how a topic is said in a caption. Pure text, no grouping.

A caption can't use an editor's sentence. It can use a name: a title in quotes, or a run of capitalised words. Whether
such a run really is a name is not decided here: merge only takes one that another publisher uses too.
"""

import re
from collections.abc import Iterator

from ingest.observation import MAX_PHRASE_CHARS
from trendrag.text import normal_form

MAX_PHRASE_WORDS = 8
MAX_SPAN_WORDS = 4
MAX_WORD_CHARS = 40

_PREFIX = re.compile(
    r"^(show|ask|tell|launch) hn\s*[:–-]\s*|^(watch|video|review|gallery|opinion|live|interview|podcast|bild|kritik)"
    r"\s*[:|–]\s*",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"\s+[|–—-]\s+[^|–—]{2,40}$|\s*[(\[](?:19|20)\d\d[)\]]$|\s*[(\[](?:pdf|video|audio)[)\]]$")
_QUALIFIER = re.compile(r"\s*\([^()]{2,60}\)$")
_QUOTED = re.compile(r"[“„]([^“”„]{3,60})[”“]|«\s*([^«»]{3,60}?)\s*»|\"([^\"]{3,60})\"|(?<!\w)‘([^‘’]{3,60})’(?!\w)")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_CONNECTORS = {"of", "the", "and", "in", "on", "to", "de", "la", "le", "du", "des", "von", "der", "für", "&"}
_CAMEL = re.compile(r"(?<=[a-zà-ÿ])(?=[A-ZÀ-Þ])|(?<=[A-Za-z])(?=[0-9]{4}$)")
# Words that run through headlines without naming anything.
_EMPTY_WORDS = """
a an the this that these those what when where which who whose why how is are was were will would can could should do
does did i we you he she it they my our your his her its their new first last best worst top more most after before
here there now today year years week day look guide tips ways things every all one two three five ten just says said
get gets got make makes made with from for of and or in on at to by as not no if than then big review
der die das ein eine wie was warum wer neue neuer neues le les un une des comment pourquoi
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())


def headline_text(title: str) -> str:
    """The headline without its section in front and its publisher at the end."""
    return _SUFFIX.sub("", _PREFIX.sub("", title)).strip()


def usable_name(text: str) -> bool:
    """True where a caption could say this as it is: few words, short ones, and not only digits."""
    words = text.split()
    form = normal_form(text)
    return (
        0 < len(words) <= MAX_PHRASE_WORDS
        and len(text) <= MAX_PHRASE_CHARS
        and "…" not in text
        and max(map(len, words)) <= MAX_WORD_CHARS
        and len(form) >= 2
        and any(char.isalpha() for char in form)
    )


def without_qualifier(title: str) -> tuple[str, str | None]:
    """("Dune", "2021 film") from an encyclopaedia's "Dune (2021 film)"."""
    found = _QUALIFIER.search(title)
    return (title[: found.start()], found[0].strip(" ()")) if found and found.start() else (title, None)


def quoted_title(text: str) -> str | None:
    """A work's title in quotes: two to six words, each of weight capitalised. Quoted speech is not."""
    for found in _QUOTED.finditer(text):
        inside = next(group for group in found.groups() if group is not None).strip(" ,.")
        words = _WORD.findall(inside)
        heavy = [word for word in words if word.casefold() not in _CONNECTORS]
        if 2 <= len(words) <= 6 and words[0][:1].isupper() and all(not word[:1].islower() for word in heavy):
            return inside
    return None


def name_spans(text: str) -> Iterator[str]:
    """Runs of two to four capitalised words, with connectors inside ("Isle of Glass"). Candidates only."""
    words = list(_WORD.finditer(text))
    for start, first in enumerate(words):
        if not _names(first[0]):
            continue
        for end in range(start + 1, min(start + MAX_SPAN_WORDS, len(words))):
            between = text[words[end - 1].end() : words[end].start()]
            if between.strip(" &") or not between:
                break
            if _names(words[end][0]):
                yield text[first.start() : words[end].end()]
            elif words[end][0].casefold() not in _CONNECTORS:
                break


def _names(word: str) -> bool:
    return word[:1].isupper() and len(word) > 1 and word.casefold() not in _EMPTY


def spelled_hashtag(tag: str) -> str:
    """ "#SilentSunday" as "Silent Sunday". A tag of one piece stays a tag: its word alone may be any word."""
    spaced = _CAMEL.sub(" ", tag.lstrip("#＃")).replace("_", " ")
    return spaced if " " in spaced else tag


def capitalised_after_first(text: str) -> int:
    return sum(word[:1].isupper() for word in _WORD.findall(text)[1:])
