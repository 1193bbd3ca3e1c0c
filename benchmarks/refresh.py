"""What a refresh costs: with 100 new items on 1,000, 10,000 and 100,000 known trends, and 10,000 new items end to end.

    python benchmarks/refresh.py            all of it, into benchmarks/refresh.md (`make bench`)
    python benchmarks/refresh.py --quick    without the 100,000, to the screen only

Everything is real but the world: parsers, database, merging, the gate, scores, the embedder and its cache, snapshots.
Each figure is of a process of its own. Trends that are known before have made-up vectors, since making real ones would
take ten minutes; none of them is looked at, and only the gate's vocabulary has judged them.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import ingest.book.keeping
import ingest.refresh
import ingest.store
from indexes.embedder import Embedder, MiniLMEmbedder, Vectors, open_minilm
from indexes.embedding_cache import CachedEmbedder
from ingest.book.topics import GateJudge, Judge
from ingest.book.unions import Unions
from ingest.fetcher import Fetched
from ingest.merge import Topic
from ingest.observation import Intake, Observation, Origin
from ingest.refresh import RefreshReport, refresh
from ingest.safety import Gate, Verdict
from ingest.safety_rules import Vocabulary
from ingest.sources import parse_sources
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from trendrag.settings import Settings, default_data_dir

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
PAUSE = timedelta(minutes=20)
"""Between two measured refreshes of the same database."""

SIZES = (1_000, 10_000, 100_000)
NEW = 100
MANY = 10_000
RUNS = 3
FAMILIES = 12
REPORT = Path(__file__).with_suffix(".md")

HEADLINES = """
{name} opens the new season in front of a full house
Why {name} is the talk of every kitchen this autumn
A quiet morning with {name} and a very large pumpkin
{name} returns to the stage after two years away
How {name} turned an old station into a garden for all
The best of {name} in twelve pictures from the coast
{name} wins over the crowd with a song about rain
Everything we know about {name} before the big night
Thousands walk the river path to see {name} at dusk
{name} shares a recipe that nobody expected to like
Inside the workshop where {name} builds paper lanterns
What {name} learned from a summer without a telephone
""".strip().splitlines()
PLAIN = """
a small town celebrates its longest table in the main street
how to keep a houseplant alive through the darkest month
three friends cross the lake in a boat made of milk cartons
the museum of buttons opens late on thursdays from now on
what the first frost means for the apples on the hill
a baker explains why the crust sings when it leaves the oven
""".strip().splitlines()


# --- the world


def word(chance: random.Random) -> str:
    syllables = [chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(2, 3))]
    return "".join(syllables).title() + chance.choice(["", "n", "r", "l", "s"])


def name_of(number: int) -> str:
    """Two made-up words; the same for the same number."""
    chance = random.Random(number)  # noqa: S311  (no secret)
    return f"{word(chance)} {word(chance)}"


def known_observations(count: int) -> Iterator[Observation]:
    """The past of so many topics, about four sightings each, all seen in the last two days: half are on lists of
    hashtags, some of them in headlines too; the others are names that headlines of two publishers share."""
    chance = random.Random(count)  # noqa: S311  (no secret)
    for number in range(count):
        name, last = name_of(number), NOW - timedelta(hours=chance.uniform(0.5, 40))
        tag = "#" + name.replace(" ", "")
        if number % 2 == 0:
            for family in chance.sample(range(FAMILIES), chance.randint(1, 2)):
                for before in (0, 1, 26):
                    yield one("tags", family, tag, last - timedelta(hours=before), chance.randint(5, 900))
            families = chance.sample(range(FAMILIES), 1) if number % 6 == 0 else []
        else:
            families = chance.sample(range(FAMILIES), 2)
        for family in families:
            title = chance.choice(HEADLINES).format(name=name)
            yield one("feed", family, title, last - timedelta(hours=chance.uniform(0, 3)), None)


def one(what: str, family: int, title: str, at: datetime, volume: int | None) -> Observation:
    live = what == "tags"
    origin = Origin(f"{what}-{family}", "test", f"family-{family}", f"Family {family}", at, None, "en", ("life",))
    intake = Intake(origin)
    address = f"https://f{family}.example/{title.replace(' ', '-').replace('#', '')}"
    intake.add(
        "hashtag" if live else "headline",
        title,
        url=address,
        volume=volume,
        published_at=None if live else at,
        live=live,
    )
    (found,) = intake.parsed().observations
    return found


def sources() -> list[Source]:
    text = "".join(
        f'[[source]]\nid = "tags-{n}"\ntype = "mastodon"\nhost = "f{n}.example"\n'
        f'[[source]]\nid = "feed-{n}"\ntype = "rss"\npublisher = "family-{n}"\nurl = "https://f{n}.example/feed"\n'
        for n in range(FAMILIES)
    )
    return parse_sources(text, "the benchmark's")


def answers(new: int, known: int, run: int, now: datetime) -> dict[str, bytes]:
    """What the sources say at ``now``: ``new`` items, a third of them hashtags; every other one is of a known topic."""
    chance = random.Random(10**6 * run + new + known)  # noqa: S311  (no secret)
    tags: dict[int, list[dict[str, Any]]] = defaultdict(list)
    items: dict[int, list[str]] = defaultdict(list)
    for number in range(new):
        topic = chance.randrange(known) if known and number % 2 else 10**7 * (run + 1) + number // 3
        name, family = name_of(topic), chance.randrange(FAMILIES)
        if number % 3 == 0:
            tags[family].append({"name": name.replace(" ", ""), "history": [{"accounts": str(chance.randint(5, 900))}]})
            continue
        title = chance.choice(HEADLINES).format(name=name) if number % 5 else f"{chance.choice(PLAIN)} ({run}-{number})"
        at = now - timedelta(minutes=chance.randint(1, 50))
        items[family].append(
            f"<item><title>{title}</title><guid>{run}/{number}</guid><link>https://f{family}.example/{run}/{number}</link>"
            f"<pubDate>{format_datetime(at)}</pubDate></item>"
        )
    said: dict[str, bytes] = {}
    for source in sources():
        family = int(source.id.rpartition("-")[2])
        (url,) = source.urls(now)
        if source.live:
            said[url] = json.dumps(tags[family]).encode()
        else:
            body = "".join(items[family])
            said[url] = f"<rss version='2.0'><channel><title>Feed {family}</title>{body}</channel></rss>".encode()
    return said


class Canned:
    """``ingest.fetcher.Fetcher`` that has all answers in memory."""

    def __init__(self, said: Mapping[str, bytes], at: datetime) -> None:
        self._said = said
        self._at = at

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:  # noqa: ARG002  (its port's)
        return Fetched(self._said[url], {}, url, self._at)


class MadeUp:
    """Vectors of the real embedder's kind that mean nothing."""

    def __init__(self, real: MiniLMEmbedder) -> None:
        self.name, self.sha256, self.dim = real.name, real.sha256, real.dim
        self._random = np.random.default_rng(7)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._random.standard_normal((len(texts), self.dim), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class HalfBlind:
    """The gate's vocabulary without its classifier, which made-up vectors would lead astray, under the gate's version:
    what it has let through is not judged again."""

    def __init__(self, settings: Settings, embedder: Embedder) -> None:
        self.version = ingest.refresh.built_in_judge(settings, embedder).version
        self._judge = GateJudge(Gate(Vocabulary.built_in(), None, strict=False), None)

    def verdicts(self, topics: Sequence[Topic]) -> Sequence[Verdict]:
        return self._judge.verdicts(topics)


# --- one process


def cache_of(settings: Settings, embedder: Any) -> CachedEmbedder:
    return CachedEmbedder(embedder, settings.data_dir / "cache" / "embeddings.sqlite3")


def build(folder: Path, count: int) -> None:
    """A data directory that knows ``count`` topics, made by a refresh like any other."""
    settings, real = Settings(data_dir=folder), open_minilm(default_data_dir() / "models")
    store = ObservationStore.of(settings)
    batch: list[Observation] = []
    for seen in known_observations(count):
        batch.append(seen)
        if len(batch) == 20_000:
            store.add(batch)
            batch.clear()
    store.add(batch)
    run(settings, store, cache_of(settings, MadeUp(real)), {}, NOW, HalfBlind(settings, real))
    store.close()


def run(
    settings: Settings,
    store: ObservationStore,
    embedder: Any,
    said: Mapping[str, bytes],
    now: datetime,
    judge: Judge | None = None,
) -> RefreshReport:
    known = sources()
    nothing = {
        url: b"[]" if each.live else b"<rss version='2.0'><channel/></rss>" for each in known for url in each.urls(now)
    }
    return asyncio.run(
        refresh(
            settings,
            sources=known,
            fetcher=Canned(nothing | dict(said), now),
            store=store,
            states=FetchStates(store.engine),
            embedder=embedder,
            now=now,
            everything=True,
            judge=judge,
        )
    )


def measure(folder: Path, new: int, known: int, number: int) -> dict[str, Any]:
    """One refresh, in this process."""
    settings = Settings(data_dir=folder)
    embedder = cache_of(settings, open_minilm(default_data_dir() / "models"))
    store = ObservationStore.of(settings)
    now = NOW + (number + 1) * PAUSE
    said = answers(new, known, number, now)
    spent: dict[str, float] = defaultdict(float)
    with timed(spent):
        started, worked = time.perf_counter(), time.process_time()
        report = run(settings, store, embedder, said, now)
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    store.close()
    assert report.published  # noqa: S101  (else there is nothing to measure)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trends": report.trends,
        "new": sum(each.new for each in report.sources),
        "stages": dict(spent),
    }


STAGES: tuple[tuple[str, Any, str], ...] = (
    ("read, parse, store", ingest.refresh, "_read_all"),
    ("read, parse, store", ObservationStore, "add"),
    ("merge", ingest.book.keeping, "reassign"),
    ("merge", ingest.book.keeping, "group_of"),
    ("merge", ingest.book.keeping, "brief_of"),
    ("merge", ingest.book.keeping, "topic_of"),
    ("merge", Unions, "change"),
    ("judge", GateJudge, "verdicts"),
    ("rate", ingest.book.keeping, "topic_row"),
    ("rate", ingest.refresh, "standing"),
    ("embed", CachedEmbedder, "embed"),
    ("the rest of the book", ingest.refresh, "advance"),
    ("write the snapshot", ingest.refresh, "publish_rows"),
    ("check the snapshot before", ingest.refresh, "published"),
)
"""What is timed: where a function of another stage is called within one, that time is the other's."""


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Adds to ``spent`` the seconds of each stage while it lasts. Stages of one thread are in it at a time."""
    stack: list[list[float]] = []

    def wrapped(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            stack.append([0.0])
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - started
                spent[stage] += took - stack.pop()[0]
                if stack:
                    stack[-1][0] += took

        return call

    async def reading(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return await read_all(*args, **options)
        finally:
            spent["read, parse, store"] += time.perf_counter() - started

    read_all = ingest.refresh._read_all  # noqa: SLF001  (the seam that is timed)
    before = [(owner, name, getattr(owner, name)) for _, owner, name in STAGES]
    for stage, owner, name in STAGES:
        if name == "_read_all":
            setattr(owner, name, reading)
        elif name != "add":  # within reading, in threads
            setattr(owner, name, wrapped(stage, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


# --- all of it


def process(*args: object) -> tuple[dict[str, Any], float]:
    """This file in a process of its own: what it printed, and the seconds it took from start to end."""
    started = time.perf_counter()
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *map(str, args)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout or "{}"), time.perf_counter() - started


def several(folder: Path, new: int, known: int, runs: int) -> dict[str, Any]:
    """Medians over refreshes one after the other."""
    found = []
    for number in range(runs):
        result, whole = process("--one", folder, new, known, number)
        found.append(result | {"whole": whole})
    middle = {name: median(each[name] for each in found) for name in ("seconds", "cpu", "whole", "peak_mib")}
    stages = {name for each in found for name in each["stages"]}
    return {
        **middle,
        "trends": found[-1]["trends"],
        "new": found[-1]["new"],
        "stages": {name: median(each["stages"].get(name, 0.0) for each in found) for name in stages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 trends, one run each; writes no report")
    parser.add_argument(
        "--folder", type=Path, default=default_data_dir() / "bench", help="where databases are made (2 GB)"
    )
    parser.add_argument("--build", nargs=2, metavar=("FOLDER", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, metavar=("FOLDER", "NEW", "KNOWN", "RUN"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.build:
        build(Path(chosen.build[0]), int(chosen.build[1]))
    elif chosen.one:
        print(json.dumps(measure(Path(chosen.one[0]), *map(int, chosen.one[1:]))))  # noqa: T201  (its answer)
    else:
        everything(chosen.folder, quick=chosen.quick)


def everything(folder: Path, *, quick: bool) -> None:
    sizes, runs = (SIZES[:2], 1) if quick else (SIZES, RUNS)
    found: dict[int, dict[str, Any]] = {}
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for size in sizes:
            _, took = process("--build", folder / str(size), size)
            say(f"{size} known topics made in {took:.0f} s")
            found[size] = several(folder / str(size), NEW, size, runs)
            say(json.dumps(found[size]))
            shutil.rmtree(folder / str(size))
        many = several(folder / "many", MANY // (10 if quick else 1), 0, 1)
        say(json.dumps(many))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = report(found, many)
    say(text)
    if not quick:
        REPORT.write_text(text, "utf-8")


def report(found: Mapping[int, Mapping[str, Any]], many: Mapping[str, Any]) -> str:
    first = found[min(found)]
    names = sorted(many["stages"], key=lambda name: -many["stages"][name])
    lines = [
        "# What a refresh costs",
        "",
        f"`make bench` wrote this. {NEW} new items on databases of known trends, each refresh in a process of its own,",
        f"medians of {RUNS}; `benchmarks/refresh.py` says what is real in it. CPU time is the better measure where",
        "others use the machine too. The process includes Python's start and the weights.",
        "",
        "| known trends | refresh (s) | × first | of it CPU (s) | × first | process (s) | peak (MiB) | × first |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found.values():
        time_, cpu, memory = (each[name] / first[name] for name in ("seconds", "cpu", "peak_mib"))
        lines.append(
            f"| {each['trends']:,} | {each['seconds']:.2f} | {time_:.2f} | {each['cpu']:.2f} | {cpu:.2f} |"
            f" {each['whole']:.2f} | {each['peak_mib']:.0f} | {memory:.2f} |"
        )
    head = " | ".join(f"{each['trends']:,}" for each in found.values())
    lines += ["", "Where the time goes (s):", "", f"| stage | {head} |", f"| --- |{' --- |' * len(found)}"]
    for name in sorted({name for each in found.values() for name in each["stages"]}):
        spent = " | ".join(f"{each['stages'].get(name, 0.0):.2f}" for each in found.values())
        lines.append(f"| {name} | {spent} |")
    whole = f"{many['seconds']:.1f} s ({many['whole']:.1f} s with starting up)"
    lines += [
        "",
        f"## {many['new']:,} new items end to end",
        "",
        f"Into an empty database: {whole}, {many['trends']:,} trends, at most {many['peak_mib']:.0f} MiB.",
        "",
        "| stage | s | share |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {many['stages'][name]:.2f} | {many['stages'][name] / many['seconds']:.0%} |" for name in names
    ]
    lines += ["", f"Machine: {machine()}.", ""]
    return "\n".join(lines)


def machine() -> str:
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GiB, Python {platform.python_version()}"
    )


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (what it is for)


if __name__ == "__main__":
    main()
