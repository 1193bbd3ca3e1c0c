"""A name as the words that count: without spelling, number, empty words and what searchers add. Pure text.

Which words are empty, mark another thing, or name one thing in several languages is data: ``wording.toml``. Whether two
names are one topic is not decided here (``same``).
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ingest.phrases import spelled_hashtag
from trendrag.text import normal_form

Tokens = tuple[str, ...]

_WORD = re.compile(r"[\w'’&+/#.]+")
_ROMAN = re.compile(r"(?=[IVXL])X{0,3}(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}
_NO_NUMERAL = {"X", "L", "XL", "xi", "Xi", "Vi", "Li"}
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_NUMBERS, start=1)}
_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)*[a-z]?(?![a-z])")
_IZE = re.compile(r"is(e[ds]?|ing|ations?|ers?)$")
_SIDES = re.compile(r"\s[-–]\s")
_WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
_PLAIN = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "æ": "ae", "Æ": "Ae", "œ": "oe", "ı": "i"}
)
_MAX_TOKENS = 12
_MIN_JOINED = 6
"""Letters of a name from which on its joined words are it again, and not a word of another language."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to say a name.

    Attributes:
        tokens: the words that count, in order, each in one spelling; a thing known under several names is one token,
            which begins with "=". Never empty.
        marks: those of its words without which it is another thing; "vs" where it has two sides.
        numbers: the numbers in it, in order, without ``years``.
        years: the year of ``year`` where it is named: it may as well be left out.
        turned: whether a preposition stood between, so that the words may stand the other way round.
        joined: its letters as a hashtag has them, without the last plural.
        initials: the words' first letters, with and without the empty ones.
        cut: whether an article, a plural or a possessive was lost on the way.
    """

    tokens: Tokens
    marks: frozenset[str]
    numbers: Tokens
    years: frozenset[str]
    turned: bool
    joined: str
    initials: frozenset[str]
    cut: bool

    @property
    def compact(self) -> str:
        return "".join(self.tokens)


@dataclass(frozen=True)
class Words:
    """``wording.toml``, its words in the form of tokens."""

    empty: frozenset[str]
    articles: frozenset[str]
    turning: frozenset[str]
    versus: frozenset[str]
    searched: frozenset[str]
    aspects: frozenset[str]
    marks: Mapping[str, str]
    models: frozenset[str]
    events: frozenset[str]
    heads: frozenset[str]
    spelling: tuple[tuple[str, str], ...]
    apart: frozenset[frozenset[str]]
    kept: frozenset[str]
    names: Mapping[str, tuple[tuple[Tokens, str], ...]]
    """By a name's first token: its tokens and the token that stands for it, the longest first."""


@lru_cache(maxsize=1)
def words() -> Words:
    data: dict[str, Any] = tomllib.loads((files("ingest") / "wording.toml").read_text("utf-8"))
    lists = data["words"]
    spelling = tuple(sorted(data["spelling"].items()))
    empty, articles = (frozenset(map(normal_form, lists[name].split())) for name in ("empty", "articles"))

    def forms(text: str) -> frozenset[str]:
        return frozenset(normal_form(word) for word in text.split())

    names: dict[str, dict[Tokens, str]] = {}
    for label, others in data["names"].items():
        thing = "=" + normal_form(label).replace(" ", "")
        for name in (label, *others):
            tokens = tuple(_full([_token(word, spelling) for word in _spoken(name)], empty, articles))
            names.setdefault(tokens[0], {})[tokens] = thing
            if len(tokens) > 1 and len(whole := _joined(_spoken(name))) >= _MIN_JOINED:
                names.setdefault(whole, {})[whole,] = thing
    return Words(
        empty=empty,
        articles=articles,
        turning=forms(lists["turning"]),
        versus=forms(lists["versus"]),
        searched=frozenset(_token(form, spelling) for form in forms(lists["searched"])),
        aspects=frozenset(_token(form, spelling) for form in forms(lists["aspects"])),
        marks={_token(word, spelling): line.split()[0] for line in lists["marks"] for word in line.split()},
        models=frozenset(lists["models"].split()),
        events=frozenset(lists["events"].split()),
        heads=frozenset(_token(word, spelling) for word in lists["heads"].split()),
        spelling=spelling,
        apart=frozenset(frozenset(normal_form(line).split()) for line in data["apart"]["words"]),
        kept=frozenset(map(normal_form, data["kept"]["names"])),
        names={
            first: tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item)))
            for first, found in names.items()
        },
    )


@lru_cache(maxsize=100_000)
def wordings(name: str, year: int) -> tuple[Wording, ...]:
    """How ``name`` may be understood: as it is, and with ä, ö, ü, ø, å written out. Empty for a name without a letter.

    Args:
        year: the year in which it was said.
    """
    text = unicodedata.normalize("NFC", spelled_hashtag(name) if name.startswith(("#", "＃")) else name)
    found = {_wording(text, str(year)): None}
    if (written := text.translate(_WRITTEN_OUT)) != text:
        found[_wording(written, str(year))] = None
    return tuple(wording for wording in found if wording is not None)


def spoken(text: str) -> Tokens:
    """The tokens of a headline, among which those of a name are found."""
    known = words()
    tokens = [_token(word, known.spelling) for word in _spoken(text)]
    return tuple(_named([token for token in tokens if token not in known.empty], known))


def _wording(text: str, year: str) -> Wording | None:
    known = words()
    whole = normal_form(text)
    parts: list[str] = []
    plain: list[str] = []
    versus, turned = bool(_SIDES.search(text)), False
    numbered = list(_numbered(text))
    if whole not in known.kept:
        numbered = _without_searched(numbered, known)
    for number, (_, form) in enumerate(numbered):
        if form in known.versus and 0 < number < len(numbered) - 1:
            versus = True
            continue
        turned = turned or (form in known.turning and 0 < number < len(numbered) - 1)
        plain.append(form)
        parts.append(_token(form, known.spelling))
    if not parts:
        return None
    years = frozenset({year} & set(parts)) if set(parts) != {year} else frozenset()
    said = [part for part in parts if part not in years]
    tokens = tuple(_named(_full(said, known.empty, known.articles), known))
    marks = {known.marks[token] for token in tokens if token in known.marks} | (set(tokens[1:]) & known.models)
    letters = ["".join(word[0] for word in plain if word not in years)]
    letters.append("".join(word[0] for word in plain if word not in years and word not in known.empty))
    numbers = tuple(digits for token in tokens if token[0] != "=" for digits in _DIGITS.findall(token))
    return Wording(
        tokens=tokens[:_MAX_TOKENS],
        marks=frozenset(marks | ({"vs"} if versus else set())),
        numbers=numbers,
        years=years,
        turned=turned or versus,
        joined=_joined([word for word in plain if word not in years]),
        initials=frozenset(each for each in letters if len(each) > 1),
        cut=parts[0] in known.articles or any(part != word for part, word in zip(parts, plain, strict=True)),
    )


def _full(tokens: list[str], empty: frozenset[str], articles: frozenset[str]) -> list[str]:
    """``tokens`` without the empty ones, where others are left."""
    return [token for place, token in enumerate(tokens) if token not in (empty if place else articles)] or tokens


def _joined(forms: list[str]) -> str:
    return _singular("".join(forms).replace("'", ""))


def _spoken(text: str) -> list[str]:
    return [form for _, form in _numbered(text)]


def _numbered(text: str) -> Iterator[tuple[str, str]]:
    """(word as written, its normal form), numerals and number words after the first as digits."""
    place = 0
    for match in _WORD.finditer(text.translate(_PLAIN)):
        written = match[0].replace("_", " ").strip(".'’#")
        bare = re.sub(r"['’]s$", "", written.strip("."))
        for form in normal_form(written if written[:1].isdigit() else written.replace(".", "")).split():
            said = form
            if place and _is_numeral(bare):
                said = _roman(bare.upper())
            elif place:
                said = _NUMBER_WORDS.get(form, form)
            if said not in ("&", "+", "/"):
                place += 1
                yield written, said


def _is_numeral(word: str) -> bool:
    if word in _NO_NUMERAL or not word:
        return False
    if len(word) == 1:
        return word in ("V", "I")
    if word.islower():
        return set(word) <= set("ivx") and bool(_ROMAN.fullmatch(word.upper()))
    return word.isupper() and bool(_ROMAN.fullmatch(word))


def _roman(word: str) -> str:
    values = [_ROMAN_VALUES[char] for char in word]
    following = [*values[1:], 0]
    return str(sum(-value if value < after else value for value, after in zip(values, following, strict=True)))


def _without_searched(numbered: list[tuple[str, str]], known: Words) -> list[tuple[str, str]]:
    kept = list(numbered)
    while len(kept) > 1 and kept[-1][0].islower() and _token(kept[-1][1], known.spelling) in known.searched:
        kept.pop()
    return kept if sum(len(form) for _, form in kept) >= 4 else numbered


def _named(tokens: list[str], known: Words) -> Iterator[str]:
    """``tokens`` with the things that have several names under one."""
    start = 0
    while start < len(tokens):
        for name, thing in known.names.get(tokens[start], ()):
            if tuple(tokens[start : start + len(name)]) == name:
                yield thing
                start += len(name)
                break
        else:
            yield tokens[start]
            start += 1


@lru_cache(maxsize=100_000)
def _token(form: str, spelling: tuple[tuple[str, str], ...]) -> str:
    """A word's normal form in one spelling, without possessive and plural."""
    word = form.removesuffix("'s").replace("'", "") or form
    for british, american in spelling:
        if word.startswith(british):
            word = american + word[len(british) :]
            break
    if len(word) >= 7:
        word = _IZE.sub(r"iz\1", word)
    return _singular(word)


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zzes", "ches", "shes")) or (word.endswith("oes") and len(word) > 6):
        return word[:-2]
    return word[:-1]


def contains(line: Iterable[str], part: Tokens) -> bool:
    """Whether ``part`` stands in ``line``, in this order and with nothing between."""
    whole = tuple(line)
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))
