"""Are two names one topic? Decided for each pair alone, from the names and the headlines that came with them. Pure.

Precision comes first: under a topic's phrase stands everything that was said of it, and a headline about another thing
makes that a lie; a topic that stays in two pieces only counts for less. So numbers must agree, words such as "women's"
or "semi-final" must agree, and what rests on part of a name needs a headline that both have.

``keys`` says which pairs need to be looked at: two names that are the same have a key in common, always.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

from ingest.wording import Tokens, Wording, contains, spoken, wordings, words
from trendrag.text import normal_form

MAX_NAMES = 6
MAX_HEADLINES = 40
"""Of a topic so many are looked at, the first in alphabetical order."""

_MIN_FUZZY = 8
"""Letters of a word within which one may be wrong. In shorter ones it is as often another word."""

_MIN_SURNAME = 5
_MAX_ACRONYM = 6


@dataclass(frozen=True, slots=True)
class Headline:
    """``form`` is its normal form, ``tokens`` its words in the form of ``wording``."""

    form: str
    tokens: Tokens = field(compare=False)


@dataclass(frozen=True, slots=True)
class Named:
    """What is known of a topic before it is united with others.

    Attributes:
        form: what identifies it, the joined normal form of its names.
        wordings: its names, the one of most words first.
        acronyms: those of its names that may be initials, in small letters.
        headlines: what was said with it.
        year: in which it was said; that year in a name may as well be left out.
    """

    form: str
    wordings: tuple[Wording, ...]
    acronyms: frozenset[str]
    headlines: frozenset[Headline]
    year: int

    @classmethod
    def of(cls, form: str, names: Iterable[str], headlines: Iterable[str], year: int) -> "Named":
        return cls.recalled(form, *brief(names, headlines), year)

    @classmethod
    def recalled(cls, form: str, chosen: Sequence[str], said: Sequence[str], year: int) -> "Named":
        """From what ``brief`` gave."""
        found = {wording: None for name in chosen for wording in wordings(name, year)}
        return cls(
            form,
            tuple(sorted(found, key=lambda each: (-len(each.tokens), each.tokens))),
            frozenset(map(_letters, chosen)) - {""},
            frozenset(map(_headline, said)),
            year,
        )


def brief(names: Iterable[str], headlines: Iterable[str]) -> tuple[list[str], list[str]]:
    """All that is looked at of names and headlines: some names, and some headlines in normal form."""
    return sorted(set(names))[:MAX_NAMES], sorted({normal_form(title) for title in headlines} - {""})[:MAX_HEADLINES]


@lru_cache(maxsize=50_000)
def _headline(form: str) -> Headline:
    return Headline(form, spoken(form))


def _letters(name: str) -> str:
    """The name as initials, "" where it can't be any. Searchers write small letters, so that those count as well."""
    bare = name.lstrip("#＃").replace(".", "")
    fits = 2 <= len(bare) <= _MAX_ACRONYM and bare.isascii() and bare.isalpha()
    return bare.casefold() if fits else ""


def same(one: Named, other: Named) -> bool:
    """Whether both are surely one topic. Symmetric; no more than the two records counts."""
    return reason(one, other) is not None


def reason(one: Named, other: Named) -> str | None:
    """Why both are one topic, None where they are not surely. The reasons in the order of ``REASONS``."""
    pairs = list(product(one.wordings, other.wordings))
    agreeing = [(a, b) for a, b in pairs if _numbers_agree(a, one.year, b, other.year)]
    if any(_equal(a, b) and _means_one(a, b, one, other) for a, b in agreeing):
        return "words"
    if any(_turned(a, b) for a, b in agreeing):
        return "order"
    marked = [(a, b) for a, b in agreeing if a.marks == b.marks]
    if any(_slip(a.tokens, b.tokens) for a, b in marked):
        return "spelling"
    if _initials(one, other) or _initials(other, one):
        return "initials"
    if any(_part(a, b, one, other) or _part(b, a, one, other) for a, b in marked):
        return "part"
    return None


REASONS = ("words", "order", "spelling", "initials", "part")
"""From the surest on."""


def clash(one: Named, other: Named) -> bool:
    """Whether the two can't be one topic, though a third may be the same as either ("Sinner": Jannik's or Joe's)."""
    a, b = one.wordings[0], other.wordings[0]
    if not _numbers_agree(a, one.year, b, other.year) or a.marks != b.marks:
        return True
    first, second = frozenset(a.tokens), frozenset(b.tokens)
    return bool(first & second) and not (first <= second or second <= first)


def keys(named: Named) -> frozenset[str]:
    """What a name has in common with every other that may be the same: ``same(a, b)`` implies a shared key.

    Few keys, each shared by few names, so that no more pairs are looked at than need be.
    """
    return frozenset(_keys(named))


def _keys(named: Named) -> Iterator[str]:
    for wording in named.wordings:
        yield f"w {wording.compact}"
        yield f"w {wording.joined}"
        yield "o " + " ".join(sorted(wording.tokens))
        yield from _slip_keys(wording.tokens)
        for letters in wording.initials:
            yield f"i {letters}"
        yield f"p {' '.join(wording.tokens)}"
        for headline in named.headlines:
            yield from _longer_in(headline.tokens, wording.tokens)
    for letters in named.acronyms:
        yield f"i {letters}"
    for headline in named.headlines:
        yield f"h {headline.form}"


# -- rules


def _numbers_agree(a: Wording, a_year: int, b: Wording, b_year: int) -> bool:
    if a.numbers != b.numbers:
        return False
    if a.years and b.years:
        return a.years == b.years
    return not (a.years or b.years) or (a.years or b.years) <= {str(a_year)} & {str(b_year)}


def _equal(a: Wording, b: Wording) -> bool:
    return a.compact == b.compact or a.joined == b.joined


def _means_one(a: Wording, b: Wording, one: Named, other: Named) -> bool:
    """A word with and without plural or article may be two things ("Marvel", "The Marvels"): both need one headline."""
    if a.cut == b.cut or len(a.tokens) > 1 or a.tokens[0][0] == "=":
        return True
    return bool(_shared(one, other, a.tokens))


def _turned(a: Wording, b: Wording) -> bool:
    """The same words in another order, where that makes no other thing ("chocolate milk", "milk chocolate")."""
    if sorted(a.tokens) != sorted(b.tokens):
        return False
    free = a.turned or b.turned or len(a.tokens) > 2
    return free or bool(set(a.tokens) & words().events and all(len(token) > 3 for token in a.tokens))


def _slip(a: Tokens, b: Tokens) -> bool:
    """One letter wrong, left out, doubled or swapped with the next, inside one long word."""
    if len(a) != len(b):
        return False
    unlike = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    if len(unlike) != 1 or frozenset(unlike[0]) in words().apart:
        return False
    x, y = sorted(unlike[0], key=len)
    if not (x + y).isalpha():
        return False
    if len(a) > 1 and len(x) >= 5 and len(y) >= 6 and _undoubled(x) == _undoubled(y):
        return True
    return len(x) >= _MIN_FUZZY - (len(a) > 1) and x[0] == y[0] and x[-3:] == y[-3:] and _one_edit(x, y)


def _slip_keys(tokens: Tokens) -> Iterator[str]:
    for number, token in enumerate(tokens):
        rest = " ".join((*tokens[:number], "*", *tokens[number + 1 :]))
        if len(token) >= _MIN_FUZZY - 1:
            yield f"s {token[0]}{token[-3:]} {rest}"
        if len(tokens) > 1 and len(token) >= 5:
            yield f"d {_undoubled(token)} {rest}"


def _undoubled(word: str) -> str:
    return "".join(char for char, before in zip(word, " " + word, strict=False) if char != before)


def _one_edit(x: str, y: str) -> bool:
    """Whether ``x``, the shorter one, becomes ``y`` by one letter put in, replaced, or swapped with the next."""
    start = next((place for place, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), len(x))
    if len(x) == len(y):
        swapped = x[:start] + x[start + 1 : start + 2] + x[start : start + 1] + x[start + 2 :]
        return x[start + 1 :] == y[start + 1 :] or swapped == y
    return len(y) - len(x) == 1 and x[start:] == y[start + 1 :]


def _initials(short: Named, long: Named) -> bool:
    """Initials and what they stand for, where a headline has both, or both have a headline with one of them.

    Letters from inside the words ("NaNoWriMo", "AFCON") count where both have the headline that has both.
    """
    common, either = short.headlines & long.headlines, short.headlines | long.headlines
    for letters, full in product(short.acronyms, long.wordings):
        if letters not in full.initials:
            said = (each for each in common if letters in each.tokens and contains(each.tokens, full.tokens))
            if len(full.tokens) > 1 and any(_abbreviates(letters, full.tokens) for _ in said):
                return True
            continue
        if any(letters in each.tokens and contains(each.tokens, full.tokens) for each in either):
            return True
        if len(letters) > 2 and any(letters in each.tokens or contains(each.tokens, full.tokens) for each in common):
            return True
    return False


def _abbreviates(letters: str, tokens: Tokens) -> bool:
    """Whether every word gives its first letter and at most two more, in order."""
    if not tokens:
        return not letters
    if not letters.startswith(tokens[0][0]):
        return False
    return any(
        _in_order(letters[1:length], tokens[0][1:]) and _abbreviates(letters[length:], tokens[1:])
        for length in range(1, min(3, len(letters)) + 1)
    )


def _in_order(letters: str, word: str) -> bool:
    rest = iter(word)
    return all(letter in rest for letter in letters)


def _part(small: Wording, large: Wording, one: Named, other: Named) -> bool:
    """A name and a longer one that holds it, where a headline speaks of both: a surname, last words, all but one."""
    if not 0 < len(large.tokens) - len(small.tokens) <= 3 or not frozenset(small.tokens) < frozenset(large.tokens):
        return False
    known = words()
    extra = [token for token in large.tokens if token not in small.tokens]
    if any(token in known.marks or token in known.models - {large.tokens[0]} or token[0] == "=" for token in extra):
        return False
    if small.tokens == large.tokens[: len(small.tokens)]:  # "Severance season 3" and its release date
        return set(extra) <= known.aspects and bool(_shared(one, other, small.tokens))
    last = small.tokens == large.tokens[-len(small.tokens) :]
    if last and len(small.tokens) == 1:
        name = small.tokens[0]
        if len(name) < _MIN_SURNAME or name in known.heads or name[0] == "=" or len(large.tokens) != 2:
            return False
        return bool(_shared(one, other, small.tokens)) or _tells(one, other, large.tokens)
    if last:
        return not set(small.tokens) <= known.heads and (
            bool(_shared(one, other, small.tokens)) or _tells(one, other, large.tokens)
        )
    inside = len(small.tokens) > 1 and len(extra) == 1 and small.tokens[-1] == large.tokens[-1]
    return inside and small.tokens[0] == large.tokens[0] and bool(_shared(one, other, small.tokens))


def _shared(one: Named, other: Named, name: Tokens) -> list[Headline]:
    """Headlines of both that have the name's words."""
    return [each for each in one.headlines & other.headlines if set(name) <= set(each.tokens)]


def _tells(one: Named, other: Named, name: Tokens) -> bool:
    """Whether a headline of one that is known by less names the longer name."""
    shorter = one if all(name != wording.tokens for wording in one.wordings) else other
    return any(contains(each.tokens, name) for each in shorter.headlines)


def _longer_in(headline: Tokens, name: Tokens) -> Iterator[str]:
    """Keys of the names of one to three words more, that end like ``name``, as the headline has them."""
    size = len(name)
    for start in range(1, len(headline) - size + 1):
        if headline[start : start + size] == name:
            for longer in range(1, min(3, start) + 1):
                yield "p " + " ".join(headline[start - longer : start + size])
