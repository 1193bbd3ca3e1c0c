"""Concepts: what a photo shows when a trend fits it, though no word of the one is in the other.

``knowledge/*.jsonl`` has a concept a line: ``about``, as trends on it are named, and ``scenes``, as photos that fit it
are described. A trend is near to a few concepts by their ``about``, a query by their ``scenes``; a trend and a query
that are near to the same one belong together. Which concepts a trend is near to is found once and kept
with its segment.

Vectors of the concepts are made once for each embedder and kept beside its weights, for all that read them.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from indexes.arrays import arrays_in, packed_arrays
from indexes.embedder import Embedder, Vectors
from indexes.products import inner_products

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "knowledge"
NEAREST = 16
"""How many concepts a trend is linked to at most."""
FLOOR = 0.3
"""The cosine at which a trend begins to be near to a concept."""
EXPONENT = 0.25
"""Below 1: being near at all counts more than how near. Chosen on evals/cases/retrieval/tune, as the two above."""
BACKGROUND = 64
"""Scenes, evenly spaced over all, that stand for photos at large."""
_CHUNK = 256
_BLOCK = 16_384
"""Trends whose bridge is found before the next ones' are: few enough to stay in a core's cache."""
_LINKING = 1
"""Counted up where links are made in another way, so that none of before are taken for them."""


class Concept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    about: tuple[str, ...]
    scenes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Concepts:
    """Vectors of all texts, float32 (texts, dim), concept by concept; ``*_starts`` (concepts,) are each one's first."""

    about: Vectors
    about_starts: npt.NDArray[np.int64]
    scenes: Vectors
    scene_starts: npt.NDArray[np.int64]
    digest: str = ""
    """Of what links are made by; without one links are not kept."""

    def near_scenes(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """float32 (concepts,): how near a query is to each. ``vectors``, (n, dim), are of the query and its clauses."""
        cosines = inner_products(vectors, self.scenes)
        return np.asarray(_best_two(cosines, self.scene_starts).max(axis=0), dtype=np.float32)

    def background(self) -> npt.NDArray[np.float32]:
        """float32 (photos, concepts): how near each of ``BACKGROUND`` photos at large is to each concept."""
        rows = np.linspace(0, len(self.scenes) - 1, min(BACKGROUND, len(self.scenes))).astype(np.int64)
        return _best_two(inner_products(self.scenes[rows], self.scenes), self.scene_starts)


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Of each trend the concepts that it is near to, (trends, NEAREST), and how near, in [0, 1].

    In Fortran's order, which ``bridge`` is quick on.
    """

    concepts: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def bridge(self, near: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (trends,): the best of query–concept cosine (``near``) × concept–trend weight."""
        best = np.zeros(len(self.weights), dtype=np.float32)
        if not self.weights.size:
            return best
        for start in range(0, len(best), _BLOCK):
            block = slice(start, start + _BLOCK)
            strongest = np.full(len(best[block]), -1, dtype=np.float32)
            for concepts, weights in zip(self.concepts.T, self.weights.T, strict=True):
                found = near.take(concepts[block], mode="clip")  # unlike "raise" it makes no copy first
                found *= weights[block]
                np.maximum(strongest, found, out=strongest)
            best[block] = strongest
        return best

    def common(self, background: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (trends,): the mean bridge to photos at large. Some trends are near to many a concept and so to any
        photo; such hubs (Radovanović et al., "Hubs in Space", 2010) would crowd out what fits this one."""
        total = np.zeros(len(self.weights), dtype=np.float32)
        for near in background:
            total += self.bridge(near)
        return total / np.float32(max(1, len(background)))

    def of(self, rows: npt.NDArray[np.bool_]) -> "Links":
        """Those of some trends."""
        if rows.all():
            return self
        return Links(np.asfortranarray(self.concepts[rows]), np.asfortranarray(self.weights[rows]))

    def pack(self) -> bytes:
        return packed_arrays([self.concepts, self.weights])

    @classmethod
    def unpack(cls, packed: bytes, trends: int) -> "Links":
        """The links of so many trends.

        Raises:
            Exception: they are not, or none that there can be; numpy raises all sorts.
        """
        concepts, weights = arrays_in(packed, (np.int32, 2), (np.float32, 2))
        if concepts.shape != weights.shape or len(concepts) != trends:
            raise ValueError("not of these trends")
        if (concepts < 0).any() or not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError("no links that there can be")
        return cls(np.asfortranarray(concepts), np.asfortranarray(weights))

    def fit(self, concepts: Concepts) -> bool:
        """Whether they can be links to these concepts."""
        count = len(concepts.about_starts)
        return self.concepts.shape[1] == min(NEAREST, count) and bool((self.concepts < count).all())

    @classmethod
    def together(cls, parts: Sequence["Links"]) -> "Links":
        """Those of one part's trends after the other's."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls(np.zeros((0, NEAREST), dtype=np.int32), np.zeros((0, NEAREST), dtype=np.float32))
        concepts = np.concatenate([part.concepts.T for part in parts], axis=1)
        weights = np.concatenate([part.weights.T for part in parts], axis=1)
        return cls(concepts.T, weights.T)


def read_concepts() -> tuple[Concept, ...]:
    """All concepts there are, in a fixed order."""
    lines = (line for path in sorted(_FOLDER.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines())
    return tuple(Concept.model_validate(json.loads(line)) for line in lines if line.strip())


def open_concepts(embedder: Embedder, directory: Path) -> Concepts | None:
    """The concepts with the vectors that ``make_concepts`` left in ``directory``; None where it has not, or in vain."""
    known = read_concepts()
    digest = _digest(known, embedder)
    path = directory / _name(digest)
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s can't be read: %s", path, error)
        return None
    if vectors.shape != (len(_texts(known)), embedder.dim):
        logger.warning("%s does not hold what its name says", path)
        return None
    return _concepts(known, vectors, digest)


def make_concepts(
    embedder: Embedder, directory: Path, on_progress: Callable[[int, int], object] = lambda *_: None
) -> Concepts:
    """As ``open_concepts``, but makes the vectors where there are none: about 30,000 texts, once for each embedder.

    That takes a minute. ``on_progress`` is told how many texts are done, of how many, from 0 on; what it raises ends
    the work, and nothing is written. Where the vectors can't be written they are made all the same.
    """
    found = open_concepts(embedder, directory)
    if found is not None:
        return found
    known = read_concepts()
    vectors = _embedded(_texts(known), embedder, on_progress)
    digest = _digest(known, embedder)
    path = directory / _name(digest)
    draft = directory / f".{path.name}.{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        draft.replace(path)
    except OSError as error:
        logger.warning("%s can't be written: %s", path, error)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return _concepts(known, vectors, digest)


def _embedded(
    texts: Sequence[str], embedder: Embedder, on_progress: Callable[[int, int], object]
) -> npt.NDArray[np.float16]:
    parts = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    vectors = np.empty((len(texts), embedder.dim), dtype=np.float16)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        on_progress(0, len(texts))
        done = 0
        for part in pool.map(embedder.embed, parts):
            vectors[done : done + len(part)] = part
            done += len(part)
            on_progress(done, len(texts))
    finally:  # Ctrl-C waits for no more than what runs
        pool.shutdown(cancel_futures=True)
    return vectors


def link(concepts: Concepts, vectors: Vectors, owners: npt.NDArray[np.int64], trends: int) -> Links:
    """Links each of ``trends`` rows to the concepts nearest to it.

    How near a vector is to a concept is the mean of the two best cosines with its ``about``; of a row's vectors the
    nearest counts. ``vectors`` are float32 (n, dim), ``owners`` (n,) their rows; those of row -1 are left out.
    """
    count = min(NEAREST, len(concepts.about_starts))
    nearest = np.zeros((trends, count), dtype=np.int32, order="F")
    weights = np.zeros((trends, count), dtype=np.float32, order="F")
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(0, trends + _CHUNK, _CHUNK))
    for start, end in pairwise(bounds.tolist()):
        if start == end:
            continue
        taken = order[start:end]
        near = _best_two(vectors[taken] @ concepts.about.T, concepts.about_starts)
        rows, firsts = np.unique(owners[taken], return_index=True)
        near = np.maximum.reduceat(near, firsts, axis=0)
        best = np.argpartition(-near, count - 1, axis=1)[:, :count]
        nearest[rows] = best
        cosines = np.take_along_axis(near, best, axis=1)
        weights[rows] = np.clip((cosines - FLOOR) / (1 - FLOOR), 0, 1) ** EXPONENT
    return Links(nearest, weights)


def _best_two(cosines: Vectors, starts: npt.NDArray[np.int64]) -> Vectors:
    """(n, groups): the mean of the two highest of each group of columns; of a group of one, that one."""
    first = np.maximum.reduceat(cosines, starts, axis=1)
    sizes = np.diff(np.append(starts, cosines.shape[1]))
    highest = cosines == np.repeat(first, sizes, axis=1)
    second = np.maximum.reduceat(np.where(highest, np.float32(-2), cosines), starts, axis=1)
    twice = np.add.reduceat(highest, starts, axis=1, dtype=np.int32) > 1  # then the second is as high
    return np.asarray((first + np.where(twice | (second == -2), first, second)) / 2, dtype=np.float32)


def _texts(known: Sequence[Concept]) -> list[str]:
    return [text for each in known for text in each.about] + [text for each in known for text in each.scenes]


def _name(digest: str) -> str:
    return f"concepts-{digest[:16]}.npy"


def _digest(known: Sequence[Concept], embedder: Embedder) -> str:
    digest = hashlib.sha256(embedder.sha256.encode())
    for text in _texts(known):
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _concepts(known: Sequence[Concept], vectors: npt.NDArray[np.float16], texts_digest: str) -> Concepts:
    abouts, scenes = ([len(each.about) for each in known], [len(each.scenes) for each in known])
    wide, split = vectors.astype(np.float32), sum(abouts)
    made_by = f"{texts_digest} {abouts} {NEAREST} {FLOOR} {EXPONENT} {_LINKING}"
    digest = hashlib.sha256(made_by.encode()).hexdigest()[:16]
    return Concepts(wide[:split], _starts(abouts), wide[split:], _starts(scenes), digest)


def _starts(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
