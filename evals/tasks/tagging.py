"""Tags for photos: the model is asked for n of them as JSON, and recall is the share of the gold tags that it named.

Of extra tags nothing is said: a photo shows more than its gold tags name. What is no JSON counts as no tags.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from evals.prompts import prompt, prompt_sha256
from evals.record import Item, Measure
from evals.tasks.answers import json_object
from evals.tasks.figures import CHARACTERS, figured
from evals.tasks.photo_task import Finished, Question
from evals.tasks.photos import PhotoCase, Photos, needing
from trendrag.text import normal_form

MAX_TAGS = 50

MEASURES = (
    Measure(name="recall", about="share of a photo's gold tags that are among the tags"),
    Measure(name="valid", about="share of answers that are the JSON asked for, with at least one tag"),
    Measure(name="tags", better=None, about="different tags an answer"),
    CHARACTERS,
)


@dataclass(frozen=True, slots=True)
class TaggingTask:
    photos: Photos
    n: int = 10
    name: str = "tagging"
    headline: str = "recall"
    judged: bool = False

    def __post_init__(self) -> None:
        needing(self.photos, "tags", (bool(case.tags) for case in self.photos.cases))

    @property
    def prompt_sha256(self) -> str:
        return prompt_sha256(self._prompt)

    @property
    def questions(self) -> Sequence[Question]:
        paths = self.photos.paths
        return [Question(case.id, paths[case.id], self._prompt, ask={"tags": self.n}) for case in self.photos.cases]

    def scored(self, item: Item, said: Mapping[str, JsonValue]) -> Item:
        del said
        case = self.photos.by_id[item.id]
        item = figured(item).model_copy(update={"references": case.tags, "batch": case.batch})
        if item.output is None:
            return item
        tags = read_tags(item.output)[: self.n]
        scores = {"recall": recall(case, tags), "valid": float(bool(tags)), "tags": float(len(tags))}
        return item.model_copy(update={"scores": {**item.scores, **scores}})

    def finished(self, items: Sequence[Item], said: Sequence[Mapping[str, JsonValue]]) -> Finished:
        del said
        return Finished(MEASURES, tuple(items))

    @property
    def _prompt(self) -> str:
        return prompt("tags").format(n=self.n)


def read_tags(text: str) -> tuple[str, ...]:
    """The tags of an answer, as they are compared, each once; none where it is not what was asked for."""
    told = (json_object(text) or {}).get("tags")
    if not isinstance(told, list):
        return ()
    forms = (compared(each) for each in told[:MAX_TAGS] if isinstance(each, str))
    return tuple(dict.fromkeys(form for form in forms if form))


def compared(tag: str) -> str:
    """A tag in the form in which tags are compared: without case, accents, punctuation and the plural's s."""
    words = normal_form(tag).split()
    if words and re.search(r"[^s]s$", words[-1]) and len(words[-1]) > 3:
        words[-1] = words[-1].removesuffix("s")
    return " ".join(words)


def recall(case: PhotoCase, tags: Sequence[str]) -> float:
    """In [0, 1]. A gold tag is found where one of its alternatives is a tag."""
    named = set(tags)
    found = sum(any(compared(way) in named for way in gold.split("|")) for gold in case.tags)
    return found / len(case.tags)
