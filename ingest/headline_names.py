"""The name or the thing that a headline's sentence is about, told by capitals and verbs. Pure text."""

import re
from collections.abc import Sequence

from ingest.headline_words import WORD, fold, lists, verbs

_MAX_NOUNS = 3
_NUMERAL = re.compile(r"\d+(?:[.,]\d+)*|[IVX]{1,5}")

Run = tuple[int, int]


def name_of_sentence(text: str, language: str) -> str | None:
    """The name that a sentence is about: its first words, or the only name in it."""
    words = list(WORD.finditer(text))
    capital = [word[0][:1].isupper() for word in words]
    title_case = language == "en" and sum(capital[1:]) > 0.6 * max(1, len(capital) - 1)
    if len(words) < 3:
        return None
    stop = _verb_place([fold(word[0]) for word in words], language)
    runs = _runs(text, words, stop if title_case else None)
    good = [run for run in runs if _is_name(words, run, language)]
    if title_case:
        first = [run for run in good if run[0] == 0]
        return _said(text, words, first[0]) if first and stop is not None else None
    if runs and runs[0][0] == 0:
        told = stop is not None and (language == "en" or stop == runs[0][1])
        return _said(text, words, runs[0]) if runs[0] in good and told else _round(text, words, stop)
    if len(runs) == 1 and good and language == "en" and _inner(words, runs[0]):
        return _said(text, words, runs[0])
    return _round(text, words, stop)


def _verb_place(folded: Sequence[str], language: str) -> int | None:
    """Where the verb stands. Of two in a row the first is a noun: "autumn leaves peak"."""
    known = verbs(language)
    place = next((n for n, word in enumerate(folded) if n and word in known), None)
    if (
        place is not None
        and folded[place] in lists()["also_nouns"]
        and place + 1 < len(folded)
        and folded[place + 1] in known
    ):
        return place + 1
    return place


def _inner(words: Sequence[re.Match[str]], run: Run) -> bool:
    """Whether a name in mid-sentence is what it is about: an event, or something spoken of, not someone who acts."""
    last = fold(words[run[1] - 1][0])
    return last in lists()["events"] or fold(words[run[0] - 1][0]) in lists()["before_names"]


def _runs(text: str, words: Sequence[re.Match[str]], stop: int | None) -> list[Run]:
    """(first, behind the last) of capitalised words in a row, with connectors and numbers inside."""
    end_of_all = len(words) if stop is None else stop
    runs: list[Run] = []
    start = 0
    while start < end_of_all:
        if not words[start][0][:1].isupper() or (
            fold(words[start][0]) in lists()["leading"]
            and start + 1 < end_of_all
            and not words[start + 1][0][:1].isupper()
        ):
            start += 1
            continue
        end = last = start + 1
        while end < end_of_all and text[words[end - 1].end() : words[end].start()].strip() in ("", "&"):
            word = words[end][0]
            if word[:1].isupper() or _NUMERAL.fullmatch(word):
                last = end + 1
            elif fold(word) not in lists()["connectors"]:
                break
            end += 1
        if last - start >= 2:
            runs.append((start, last))
        start = max(last, start + 1)
    return runs


def _is_name(words: Sequence[re.Match[str]], run: Run, language: str) -> bool:
    known = lists()
    inside = [fold(word[0]) for word in words[run[0] : run[1]]]
    while inside and inside[0] in ("the", "die", "der", "das", "le", "la", "el", "il"):
        inside.pop(0)
    bare = {word.removesuffix("'s") for word in inside}
    if (
        len(inside) < 2
        or bare & known["public"]
        or inside[0] in known["openers"]
        or " ".join(inside) in known.sections["bodies"]
    ):
        return False
    event = inside[-1] in known["events"]
    follows = fold(words[run[1]][0]) if run[1] < len(words) else ""
    if inside[0] in known["places"] or inside[:1] == ["new"]:
        # A town's team or its festival, not the town.
        return (
            not bare <= known["places"]
            and (inside[0] != "new" or inside[1] in known["places"])
            and (event or follows in verbs(language))
        )
    if (
        inside[0] in known["leading"] - (lists()["romance_articles"] if language == "en" else set())
        or inside[0] in known["months"]
    ):
        return False
    if run[0] and fold(words[run[0] - 1][0]) in lists()["before_places"]:
        return event
    return True


def _said(text: str, words: Sequence[re.Match[str]], run: Run) -> str:
    found = text[words[run[0]].start() : words[run[1] - 1].end()]
    # "Sabrina Carpenter's Coffee" is about Sabrina Carpenter.
    owner = re.match(r"^((?:\S+\s+)+\S+)['’]s(?:\s|$)", found)
    return owner[1] if owner and run[0] == 0 and found.endswith(("'s", "’s")) else found


def _round(text: str, words: Sequence[re.Match[str]], stop: int | None) -> str | None:
    """ "Labubu dolls" of "Labubu dolls sell out in minutes": two or three words that go round, without a name."""
    if stop is None or not 1 <= stop <= _MAX_NOUNS or (stop == 1 and "-" not in words[0][0]):
        return None
    subject = [fold(word[0]) for word in words[:stop]]
    known = lists()
    goes = fold(words[stop][0]) in known["going_round"]
    if not goes or set(subject) & (
        known["openers"] | known["public"] | known["leading"] | known["wide"] | known["until"] | known["places"]
    ):
        return None
    return text[words[0].start() : words[stop - 1].end()]
