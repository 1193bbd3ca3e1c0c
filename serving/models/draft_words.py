"""What a draft takes from the note and from the tags: its subject, and the note's own words where they can stand.

Pure functions. No parser: a few lists of small English words and where they stand. Notes in other languages pass
through as they are; a subject is found in them only where spaces part the words.
"""

import re
import unicodedata
from dataclasses import dataclass

from trendrag.text import clean_note

MAX_SUBJECT_CHARS = 28
MAX_CLAUSE_CHARS = 80
MAX_CLAUSE_WORDS = 14

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?…。！？]+(?:\s|$)|[;:]\s|\n|\s[-–—]\s")
_LETTERS = {"L", "M", "N"}  # letters, marks, digits: first letter of the Unicode category
_BETWEEN = set(" ,'’-&\u200c\u200d")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MINE = _words("my our")
_PHOTO = _words("caption image photo photograph pic picture portrait post selfie shot snap snapshot view")
# What stands after these is where or when a photo was taken more often than what it is of.
_PLACE = _words(
    """
    above across after against along around at before behind below beside between by during in inside into near on onto
    outside over past since through to toward towards under until up within
    """
)
_SMALL = (
    _MINE
    | _PHOTO
    | _PLACE
    | _words(
        """
        a about again all also always am among an and another any are as away back be because been being best better
        both but came can come coming could day days did do does done down each early eight end enough even ever every
        evening everyone few finally find first five for found four from full get gets getting go goes going gone good
        got great had happy has have having he hello her here his hour hours how i i'm i've if is it it's its just keep
        kind last late later left less life like little long look looking lot love loved lovely made make makes many
        maybe me mine minute minutes moment month months more morning most much must need never new next nice night nine
        no not nothing now of off old once one only or other out own part perfect please pretty put quite rather ready
        really right said same saw say see seen seven she should six slow small so some something soon still such take
        taken taking ten than that the their then there these they thing things think this those three time times today
        together tomorrow tonight too took two upon us very wait waiting want was way we week weekend weeks well went
        were what when where which while whole who why will with without woke work working would year years yes yet
        yesterday you your
        monday tuesday wednesday thursday friday saturday sunday spring summer autumn winter
        """
    )
)
# What nobody can see in a photo, though notes are full of it: "monday mood", "judging my life choices".
_UNSEEN = _words(
    """
    adventure adventures break choice choices chill energy feeling feelings feels fun goals happiness hello hero idea
    ideas joy laugh luck memories memory mode mood moods peace plan plans reason reasons routine secret story stories
    surprise thought thoughts throwback travel trip truth vacation vibe vibes weather wish wishes world
    """
)
_NAMED_DAYS = {
    name.casefold(): name
    for name in _words(
        """
        Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February April June July August September
        October November December Christmas Easter
        """
    )
}
_ORDERS = _words(
    """
    add avoid can caption could create describe don't dont focus generate give help include keep make mention please
    should tell try use write
    """
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the photo shows, as a caption says it: ``name`` "espresso", ``phrase`` "my espresso"."""

    name: str
    phrase: str


def find_subject(note: str, description: str) -> Subject:
    """The subject, best known first: a tag that the note speaks of too, else what the note names, else the first tag.

    A photographer knows better than a classifier what a photo is of, so a tag alone comes last but for one case: where
    the note names nothing that could be seen ("woke me up again"), a sure tag says more.
    """
    tags = [tag.strip() for tag in clean_note(description).replace("\n", ",").split(",") if tag.strip()]
    words = _WORD.findall(clean_note(note))
    folded = [word.casefold() for word in words]
    for tag in tags:
        for position, word in enumerate(folded):
            if word in {tag.casefold(), tag.casefold() + "s"}:
                return _subject(words[position], _owner(folded, position))
    if found := _noun_of(words, folded):
        first, last = found
        return _subject(" ".join(words[first:last]), _owner(folded, first))
    return _subject(tags[0] if tags else "moment", "")


def note_clause(note: str) -> str:
    """The note's first sentence as a caption may hold it, or nothing where it can't stand in a caption.

    It can't when it is an order ("make it funny") or a question, too long, or holds more than words. The names of days
    and months get their capital; nothing else is changed.
    """
    lines = clean_note(note)
    end = _SENTENCE_END.search(lines)
    if end and "?" in end.group():
        return ""
    clause = " ".join((lines[: end.start()] if end else lines).split()).strip(" ,-&")
    words = clause.split()
    if not 2 <= len(words) <= MAX_CLAUSE_WORDS or len(clause) > MAX_CLAUSE_CHARS:
        return ""
    if words[0].casefold() in _ORDERS or not all(_is_wordlike(char) for char in clause):
        return ""
    return " ".join(_NAMED_DAYS.get(word, word) for word in words)


def capital(text: str) -> str:
    """The text with its first letter as a capital, where that is one character too."""
    first = text[:1].upper()
    return first + text[1:] if len(first) == 1 else text


def names(text: str, subject: Subject) -> bool:
    """Whether the text speaks of the subject, as whole words."""
    pattern = rf"(?<!\w){re.escape(subject.name.casefold())}(?!\w)"
    return re.search(pattern, text.casefold()) is not None


def _is_wordlike(char: str) -> bool:
    return char in _BETWEEN or unicodedata.category(char)[0] in _LETTERS


def _subject(name: str, owner: str) -> Subject:
    if len(name) > MAX_SUBJECT_CHARS:
        name = name[:MAX_SUBJECT_CHARS].rsplit(" ", 1)[0] if " " in name else name[:MAX_SUBJECT_CHARS]
    owner = owner or ("these" if _is_plural(name) else "this")
    return Subject(name, f"{owner} {name}")


def _owner(folded: list[str], position: int) -> str:
    """The possessive before the subject, if it stands within the two words before it ("my first espresso")."""
    return next((word for word in reversed(folded[max(0, position - 2) : position]) if word in _MINE), "")


def _noun_of(words: list[str], folded: list[str]) -> tuple[int, int] | None:
    """Where the note's subject stands, [first, last): the likeliest run of content words, at most two of them.

    The first run counts that isn't a place or a time ("on the pad"), nor one word in -ing, -ed or -ly; of places and
    times the first, if there is nothing else. In "official portrait of an astronaut" the word before "portrait" tells
    of the picture, so it is no subject.
    """
    runs: list[tuple[int, int]] = []
    start: int | None = None
    for position, word in enumerate([*folded, "the"]):
        content = word not in _SMALL and word not in _UNSEEN and not any(char.isdigit() for char in word)
        if content and start is None:
            start = position
        elif not content and start is not None:
            if word not in _PHOTO and not _is_doing(words[start:position]):
                runs.append((start, position))
            start = None
    if not runs:
        return None
    first, last = next((run for run in runs if not _is_place(folded, run[0])), runs[0])
    while last - first > 1 and _is_doing(words[last - 1 : last]):
        last -= 1
    return max(first, last - 2), last


def _is_place(folded: list[str], first: int) -> bool:
    return any(word in _PLACE for word in folded[max(0, first - 2) : first])


def _is_doing(run: list[str]) -> bool:
    return len(run) == 1 and len(run[0]) > 4 and run[0].casefold().endswith(("ing", "ed", "ly"))


def _is_plural(name: str) -> bool:
    return name.casefold().endswith("s") and not name.casefold().endswith(("ss", "us", "is", "'s", "’s"))
