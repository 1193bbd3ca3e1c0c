"""Describes an image once: descriptions are cached, and those who ask for one at the same time share the call.

Wraps any ``trendrag.ports.Describer``. Why all callers of a server share the cache: docs/decisions/0024.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Generic, TypeVar

from trendrag.ports import Cache, Describer, Description
from trendrag.prompting import prompt
from trendrag.settings import ModelSettings
from trendrag.text import clean_line
from trendrag.types import PreparedImage, Usage

MAX_CHARS = 400
"""A cached description over this is none of ours."""

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: "asyncio.Task[T]"
    waiting: int = 0


class SingleFlight(Generic[T]):
    """Work by key, done once for all who ask while it runs. It ends when nobody waits for it any longer."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result, and whether this caller began the work. An error is raised to all who wait, and is not kept."""
        flight = self._flights.get(key)
        began = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(_awaited(work)))
            # In its own time and not in a caller's: the one who began may have left.
            flight.task.add_done_callback(lambda task: self._forget(key, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), began
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight.task)  # whoever asks next begins anew
                flight.task.cancel()
                await asyncio.wait({flight.task})  # until the call to the model is really closed

    def _forget(self, key: str, task: "asyncio.Task[T]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if task.done() and not task.cancelled():
            task.exception()  # looked at: where all have left, nobody else does


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def describer_identity(model: ModelSettings, name: str) -> str:
    """What a description depends on besides the image: the model, where it is, what it is asked, and our version, for
    what is done to its answer."""
    asked = prompt("system"), prompt("describe")
    return "\n".join([version("trendrag"), model.provider, model.base_url or "", name, *asked])


class CachedDescriber:
    """``describer``, asked once for an image within ``ttl_s`` seconds.

    ``identity`` names what a description depends on besides the image (model, server, prompt): another model never
    reads what this one wrote. Usage is told to the caller whose call reached the model, and to no other.
    """

    def __init__(self, describer: Describer, cache: Cache, identity: str, ttl_s: float) -> None:
        self._describer = describer
        self._cache = cache
        self._identity = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._ttl_s = ttl_s
        self._flights: SingleFlight[Description] = SingleFlight()

    @property
    def always(self) -> bool:
        return self._describer.always

    async def describe(self, image: PreparedImage) -> Description:
        key = f"description:{self._identity}:{image.sha256}"
        description, began = await self._flights.run(key, lambda: self._described(key, image))
        return description if began else replace(description, usage=Usage(), cached=True)

    async def _described(self, key: str, image: PreparedImage) -> Description:
        text = await self._cache.get(key)
        # An empty one is a right answer of the tagger, which says nothing where it is not sure.
        if text is not None and clean_line(text, MAX_CHARS) == text:
            return Description(text, cached=True)
        description = await self._describer.describe(image)
        if not description.degraded:
            await self._cache.set(key, description.text, self._ttl_s)
        return description
