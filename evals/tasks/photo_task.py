"""A task over photos, without a word of how it is run: what is asked of each photo, and what an answer is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from evals.record import Item, Measure
from evals.tasks.photos import Photos


@dataclass(frozen=True, slots=True)
class Question:
    """``id`` names it in the record. ``ask`` goes with the message, for models of ours (``chain_model``)."""

    id: str
    image: Path
    prompt: str
    ask: Mapping[str, JsonValue] = field(default_factory=dict)


class Finished(NamedTuple):
    """A run's measures and items, with what only all items together tell; ``notes`` for its record."""

    measures: tuple[Measure, ...]
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


class PhotoTask(Protocol):
    """``headline`` is the measure that Inspect's log shows. ``judged`` says that answers are also shown to a judge,
    where there is one."""

    @property
    def name(self) -> str: ...

    @property
    def headline(self) -> str: ...

    @property
    def judged(self) -> bool: ...

    @property
    def photos(self) -> Photos: ...

    @property
    def prompt_sha256(self) -> str: ...

    @property
    def questions(self) -> Sequence[Question]: ...

    def scored(self, item: Item, said: Mapping[str, JsonValue]) -> Item:
        """``item``, whose output is the answer, with its scores. ``said`` is what a model of ours said besides."""

    def finished(self, items: Sequence[Item], said: Sequence[Mapping[str, JsonValue]]) -> Finished: ...
