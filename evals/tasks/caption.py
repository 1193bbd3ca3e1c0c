"""Captions against those that people wrote: n-gram measures, and the lengths that these reward.

What the measures are worth is seen beside anchors, runs without any model: another photo's caption (fluent and wrong),
one constant sentence (what a model gets for saying nothing), and a person's, where there are several, held against the
others'.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from evals.measures.captions import package, score
from evals.prompts import prompt, prompt_sha256
from evals.record import Item
from evals.tasks.figures import CHARACTERS, figured
from evals.tasks.photo_task import Finished, Question
from evals.tasks.photos import Photos, needing

CONSTANT = "A photo of people and things in a place on a fine day."


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """``style`` "plain" asks our chain for alt text, which describes as the references do; "caption" for a caption
    without trends."""

    photos: Photos
    style: str = "plain"
    name: str = "caption"
    headline: str = CHARACTERS.name
    judged: bool = False

    def __post_init__(self) -> None:
        package()  # what the answers will be scored with is there, before any is paid for
        needing(self.photos, "references", (bool(case.references) for case in self.photos.cases))

    @property
    def prompt_sha256(self) -> str:
        return prompt_sha256(prompt("caption"))

    @property
    def questions(self) -> Sequence[Question]:
        ask = {"trends": False, "alt_text": self.style == "plain"}
        return [Question(case.id, self.photos.paths[case.id], prompt("caption"), ask=ask) for case in self.photos.cases]

    def scored(self, item: Item, said: Mapping[str, JsonValue]) -> Item:
        del said
        return figured(item.model_copy(update={"references": self.photos.by_id[item.id].references}))

    def finished(self, items: Sequence[Item], said: Sequence[Mapping[str, JsonValue]]) -> Finished:
        """With the measures of captions, which weigh words by all photos of the run. Failed items have none."""
        del said
        outputs = {item.id: item.output for item in items if item.output is not None}
        if not outputs:
            return Finished((CHARACTERS,), tuple(items))
        found = score(outputs, {item.id: item.references for item in items})

        def with_scores(item: Item) -> Item:
            if item.id not in found.scores:
                return item
            return item.model_copy(
                update={"scores": {**item.scores, **found.scores[item.id]}, "counts": found.counts[item.id]}
            )

        return Finished((*found.measures, CHARACTERS), tuple(map(with_scores, items)), found.notes)

    def anchors(self) -> Iterable[tuple[str, tuple[Item, ...]]]:
        """Label and items of each run that needs no model."""
        cases = self.photos.cases

        def item(place: int, output: str, references: tuple[str, ...]) -> Item:
            case = cases[place]
            path = str(self.photos.paths[case.id])
            return figured(Item(id=case.id, image=path, output=output, references=references))

        yield (
            "anchor: one constant sentence",
            tuple(item(place, CONSTANT, case.references) for place, case in enumerate(cases)),
        )
        if len(cases) > 1:
            yield (
                "anchor: another photo's caption",
                tuple(item(place, cases[place - 1].references[0], case.references) for place, case in enumerate(cases)),
            )
        if all(len(case.references) > 1 for case in cases):
            yield (
                "anchor: a person, against the others",
                tuple(item(place, case.references[0], case.references[1:]) for place, case in enumerate(cases)),
            )
