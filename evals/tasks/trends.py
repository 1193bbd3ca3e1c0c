"""The same photos with trends and without: how often one is used, whether it fits, and what it costs.

Each photo is asked about twice, ``ID/on`` and ``ID/off``; every measure says which of the two it is of. A trend is used
where the caption mentions it, by the rules of highlighting. Whether it fits, the cases say (``fits``, the names of the
trends that an editor would accept); of photos without that word nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from evals.prompts import chain_sha256
from evals.record import Item, Measure
from evals.tasks.photo_task import Finished, Question
from evals.tasks.photos import Photos
from trendrag.highlight import find_spans
from trendrag.text import normal_form

MEASURES = (
    Measure(name="use", better=None, about="on: share of captions that mention a trend"),
    Measure(name="abstention", better=None, about="on: share of captions that mention none"),
    Measure(name="abstention where none fits", about="on: share that mention none, of photos that none fits"),
    Measure(name="fitting use", about="on: share that mention one that fits, of photos that one fits"),
    Measure(name="forced", better="lower", about="on: share that mention one that does not fit"),
    Measure(
        name="verbatim", how="ratio", about="on: share of mentions that are letter by letter the trend's own words"
    ),
    Measure(name="offered", better=None, about="on: trends that the writer was offered"),
    Measure(
        name="chance mentions", better=None, about="off: share that mention a trend which only the other was offered"
    ),
    *(
        Measure(name=f"{name} {arm}", better=better, unit=unit, how="p50" if unit else "mean", about=f"{arm}: {about}")
        for name, better, unit, about in (
            ("characters", None, "", "length of a caption"),
            ("latency", "lower", "s", "median seconds a caption"),
            ("completion tokens", None, "", "tokens written, all calls"),
            ("prompt tokens", None, "", "tokens read, all calls"),
        )
        for arm in ("on", "off")
    ),
)
GROUNDED = tuple(
    Measure(name=f"grounded {arm}", about=f"{arm}: share of captions that claim nothing which the photo does not show")
    for arm in ("on", "off")
)


@dataclass(frozen=True, slots=True)
class TrendsTask:
    photos: Photos
    with_judge: bool = False
    name: str = "trends"
    headline: str = "use"
    judged: bool = True

    @property
    def prompt_sha256(self) -> str:
        return chain_sha256()

    @property
    def questions(self) -> Sequence[Question]:
        return [
            Question(f"{case.id}/{arm}", self.photos.paths[case.id], "", ask={"note": case.note, "trends": arm == "on"})
            for case in self.photos.cases
            for arm in ("on", "off")
        ]

    def scored(self, item: Item, said: Mapping[str, JsonValue]) -> Item:
        if item.output is None:
            return item
        name, _, arm = item.id.rpartition("/")
        scores: dict[str, float | None] = {
            f"characters {arm}": float(len(item.output)),
            f"latency {arm}": item.latency_s,
            f"completion tokens {arm}": item.tokens.completion if item.tokens else None,
            f"prompt tokens {arm}": item.tokens.prompt if item.tokens else None,
        }
        counts: dict[str, tuple[float, ...]] = {}
        if arm == "on":
            fits = self.photos.by_id[name].fits
            used = {normal_form(lit.phrase) for lit in item.lit}
            fitting = used & {normal_form(each) for each in fits or ()}
            scores |= {
                "use": float(bool(used)),
                "abstention": float(not used),
                "abstention where none fits": float(not used) if fits == () else None,
                "fitting use": float(bool(fitting)) if fits else None,
                "forced": float(bool(used - fitting)) if fits is not None else None,
                "offered": float(len(_mapping(said.get("offered")))),
            }
            spans = said.get("lit")
            verbatim = [bool(_mapping(each).get("verbatim")) for each in spans] if isinstance(spans, list) else []
            counts["verbatim"] = (float(sum(verbatim)), float(len(verbatim)))
        judged = _mapping(said.get("judged")).get("grounded")
        if isinstance(judged, bool):
            scores[f"grounded {arm}"] = float(judged)
        return item.model_copy(update={"scores": scores, "counts": counts})

    def finished(self, items: Sequence[Item], said: Sequence[Mapping[str, JsonValue]]) -> Finished:
        """Also says of captions without trends whether they mention one that the same photo's other was offered."""
        offered = {
            item.id.removesuffix("/on"): _mapping(told.get("offered"))
            for item, told in zip(items, said, strict=True)
            if item.id.endswith("/on") and item.output is not None
        }

        def looked_at(item: Item) -> Item:
            name = item.id.removesuffix("/off")
            if name == item.id or item.output is None or name not in offered:
                return item
            phrases = [(id_, (str(phrase),)) for id_, phrase in offered[name].items()]
            chance = float(bool(find_spans(item.output, phrases)))
            return item.model_copy(update={"scores": {**item.scores, "chance mentions": chance}})

        return Finished((*MEASURES, *(GROUNDED if self.with_judge else ())), tuple(map(looked_at, items)))


def _mapping(value: object) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
