"""The words of headlines: which are verbs, places, public bodies and the like. Data is in ``headlines.toml``."""

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")


@dataclass(frozen=True)
class Words:
    """``headlines.toml``; every word folded as ``fold`` does."""

    sections: Mapping[str, frozenset[str]]
    lists: Mapping[str, frozenset[str]]
    cues: tuple[str, ...]

    def __getitem__(self, name: str) -> frozenset[str]:
        return self.lists[name]


@lru_cache(maxsize=1)
def lists() -> Words:
    data: dict[str, Any] = tomllib.loads((files("ingest") / "headlines.toml").read_text("utf-8"))
    sections = {name: frozenset(map(fold, data["sections"][name])) for name in ("skipped", "opinion", "bodies")}
    lists = {name: frozenset(map(fold, text.split())) for name, text in data["words"].items()}
    lists["closing"] = frozenset(data["sections"]["closing"].split())
    lists["until"] = frozenset(data["cues"]["until"].split())
    lists["all_verbs"] = lists["verbs"] | lists["other_verbs"]
    lists["long_verbs"] = lists["verbs"] | {verb for verb in lists["other_verbs"] if len(verb) > 2}
    return Words(sections, lists, tuple(sorted(data["cues"]["before"], key=lambda cue: (-len(cue), cue))))


def fold(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return "".join(char for char in folded if not unicodedata.combining(char))


def verbs(language: str) -> frozenset[str]:
    return lists()[{"en": "verbs", "und": "long_verbs"}.get(language, "all_verbs")]


def sentence(words: Sequence[str], language: str) -> bool:
    """Whether a verb stands in it, or what looks like a subject and a verb ("Whales return", "Dog bites mayor")."""
    known = lists()
    if set(words[1:]) & verbs(language):
        return True
    inner = [
        n
        for n, word in enumerate(words[:-1])
        if word.endswith("s") and not word.endswith(("ss", "'s")) and len(word) > 3
    ]
    return any(words[n + 1] not in known["until"] | {"of", "everywhere"} for n in inner)


def tokens(text: str) -> list[str]:
    return [fold(word) for word in WORD.findall(text)]
