"""A gloss: the English words for a text's words, for an embedder that reads English only.

Not a translation: word by word, from glossaries of everyday things (``knowledge/glossary/<language>.tsv``, a word and
its English a line; articles and the like have none, and only tell the language). What a glossary doesn't have stays as
it is: names are mostly the same.
"""

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "knowledge" / "glossary"
_WORD = re.compile(r"[^\W\d_]+")
_KANA_OR_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+")
LEAST = 0.4
"""The share of a text's words that a glossary must have; below it the text may be in any language."""
LEAST_NAMED = 0.15
"""The same where the text is said to be in that language."""
_ENGLISH_WORDS = """
    a about after again all an and are at back before but by can cannot day did do for from get got had has have
    he her his how i if in into is it just last like me my new no not of off on one or our out over she so some
    still than that the their them then there they this to too two until up was we were what when where which who
    will with you your
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())


def gloss(text: str, language: str | None = None) -> str | None:
    """English words for ``text``; None where it is English already or in no language that there is a glossary of.

    ``language`` (BCP 47) is what the text is said to be in; None or "und" leaves it to the words.
    """
    named = (language or "und").split("-")[0].lower()
    if _KANA_OR_HAN.search(text):
        return _japanese(text) if named in ("ja", "und") else None
    if named == "en":
        return None
    found = [word.lower() for word in _WORD.findall(text)]
    if not found:
        return None
    glossaries = _glossaries()
    candidates = [named] if named in glossaries else [each for each in glossaries if each != "ja"]
    share, best = max(((_share(found, glossaries[each]), each) for each in candidates), default=(0.0, ""))
    english = sum(word in _english() for word in found) / len(found)
    if share < (LEAST_NAMED if best == named else LEAST) or (share <= english and best != named):
        return None
    # What is short and unknown is mostly an article or a preposition.
    words = (glossaries[best].get(word, word if len(word) > 3 else "") for word in found)
    return " ".join(filter(None, words)) or None


def _share(found: list[str], glossary: dict[str, str]) -> float:
    return sum(word in glossary for word in found) / len(found)


def _japanese(text: str) -> str | None:
    """Longest match from the left: Japanese puts no spaces between words."""
    glossary = _glossaries().get("ja", {})
    longest = max(map(len, glossary), default=0)
    parts, at = [], 0
    while at < len(text):
        size = next((size for size in range(longest, 0, -1) if text[at : at + size] in glossary), 0)
        if size:
            parts.append(glossary[text[at : at + size]])
        at += size or 1
    return " ".join(parts) or None


@cache
def _glossaries() -> dict[str, dict[str, str]]:
    found = {}
    for path in sorted(_FOLDER.glob("*.tsv")):
        pairs = (line.split("\t", 1) for line in path.read_text("utf-8").splitlines() if "\t" in line)
        found[path.stem] = {word.strip().lower(): english.strip() for word, english in pairs}
    return found


@cache
def _english() -> frozenset[str]:
    """Words that are English: the commonest, and what the glossaries explain others with."""
    explained = (english for glossary in _glossaries().values() for english in glossary.values())
    return _ENGLISH | {word for english in explained for word in english.lower().split()}
