"""A process that publishes a snapshot a second until its standard input ends, as refreshes would, only oftener.

    python -m tests.soak.publisher FOLDER PAUSE     PAUSE in seconds, between two of them

Prints ``number id`` for each. All trends of number n have the velocity n, and a few are of this one alone. Every tenth
time a damaged one is current first. The parent publishes number 0.
"""

import select
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from indexes.concepts import Concepts, read_concepts
from indexes.embedder import Embedder, open_minilm
from indexes.manifest import make_current
from indexes.publishing import publish_rows, published
from indexes.segments import Keys, rows_of
from tests.indexes.oracle import concepts_of
from trendrag.settings import default_data_dir
from trendrag.types import Trend

TRENDS, FRESH, KEEP = 2_000, 5, 3
CONCEPTS = 20
_SUBJECTS = "coffee", "snow", "a football final", "pumpkins", "a new phone", "goats", "an old song", "the sea", "tulips"
_SCENES = "in the morning", "on a train", "at the lake", "with friends", "after the rain", "for beginners", "by night"


def trends_of(number: int, now: datetime) -> list[Trend]:
    """(TRENDS + FRESH,): what snapshot ``number`` holds."""
    phrases = [(f"t{at}", f"{_phrase(at)} {at}") for at in range(TRENDS)]
    fresh = [(f"n{number}-{at}", f"{_phrase(at)} of round {number}") for at in range(FRESH)]
    return [
        Trend(
            id=each, phrase=phrase, score=(number + at) % 100 / 100, velocity=number, first_seen=_FIRST, last_seen=now
        )
        for at, (each, phrase) in enumerate(phrases + fresh)
    ]


def publish_number(folder: Path, number: int, embedder: Embedder, concepts: Concepts) -> str:
    now = datetime.now(UTC)
    trends = trends_of(number, now)
    rows = rows_of(trends)
    by_key = dict(zip(rows["key"].tolist(), trends, strict=True))

    def load(keys: Keys) -> list[Trend]:
        return [by_key[key] for key in keys.tolist()]

    return publish_rows(
        folder,
        rows,
        load,
        embedder,
        before=published(folder, embedder),
        origin="live",
        recorded_at=now,
        now=now,
        keep=KEEP,
        concepts=concepts,
    ).id


def some_concepts(embedder: Embedder) -> Concepts:
    """As many of ours as can be made in a few seconds."""
    made = concepts_of([(each.about, each.scenes) for each in read_concepts()[:CONCEPTS]], embedder)
    return replace(made, digest="0123456789abcdef")


def publish_damaged(folder: Path, name: str) -> str:
    """Makes a copy of a snapshot current that is under a false name and lacks a byte."""
    copy = folder / f"{name[:-8]}0000dead"
    shutil.copytree(folder / name, copy)
    rows = copy / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-1])
    make_current(folder, copy.name)
    return copy.name


def main(folder: Path, pause: float) -> None:
    embedder = open_minilm(default_data_dir() / "models")
    concepts = some_concepts(embedder)
    number, name = 0, ""
    while not select.select([sys.stdin], [], [], pause)[0]:
        number += 1
        if name and number % 10 == 0:
            publish_damaged(folder, name)
        else:
            if (
                name
            ):  # what follows a damaged one shares nothing with it, and making all anew takes longer than a second
                make_current(folder, name)
            name = publish_number(folder, number, embedder, concepts)
            print(number, name, flush=True)  # noqa: T201  (its answer)


def _phrase(number: int) -> str:
    return f"{_SUBJECTS[number % len(_SUBJECTS)]} {_SCENES[number // len(_SUBJECTS) % len(_SCENES)]}"


_FIRST = datetime(2026, 1, 1, tzinfo=UTC)

if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
