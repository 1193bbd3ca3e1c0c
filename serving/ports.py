"""What serving needs of a model server besides captions."""

from collections.abc import AsyncGenerator
from typing import Protocol


class Gateway(Protocol):
    """A server that speaks OpenAI's chat protocol. ``body`` is a request's JSON for the model ``name``."""

    @property
    def name(self) -> str: ...

    def stream(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The JSON of each event, those that came together in one list; ends normally only if every choice finished.
        Closing it stops the model. Raises only ModelError."""

    async def complete(self, body: bytes) -> bytes:
        """The JSON of a whole answer. Raises only ModelError."""
