"""What was asked for last, so that a question asked again costs nothing."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from indexes.embedder import Embedder, Vectors

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_TEXTS = 1_024
"""Texts whose vectors are remembered; 1.5 kB each."""
MAX_LENGTH = 2_000
"""Characters of a text that is remembered; a longer one is hardly asked for twice."""


class Recent(Generic[K, V]):
    """At most ``most`` values, those that were put in or asked for last. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)


class RememberingEmbedder:
    """An ``Embedder`` in front of another one, with the vectors of the last texts in memory."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: Recent[str, Vectors] = Recent(MAX_TEXTS)
        self.name, self.sha256, self.dim = embedder.name, embedder.sha256, embedder.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = {text: vector for text in texts if (vector := self._vectors.get(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            for text, vector in zip(missing, self._embedder.embed(missing), strict=True):
                found[text] = vector
                if len(text) <= MAX_LENGTH:
                    self._vectors.put(text, vector.copy())  # a view would keep the whole batch
        return np.array([found[text] for text in texts], dtype=np.float32).reshape(len(texts), self.dim)
