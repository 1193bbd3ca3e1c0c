"""What a query costs on 1,000, 10,000 and 100,000 trends, beside the bare embedding and faiss call on their vectors.

    python benchmarks/retrieval.py                  into benchmarks/retrieval.md (`make bench-retrieval`)
    python benchmarks/retrieval.py --sizes 1000     those sizes, to the screen only (1000000 needs 12 GB)

Queries, embedder, concepts, snapshots and retriever are the real ones. Trends are made up: phrases of the concepts with
others' words, and real vectors with noise, since embedding 100,000 takes ten minutes. Each size is measured in a
process of its own, and the bare calls within it, in turn with ours, so that what else runs on the machine slows both.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexes.concepts import Concepts, make_concepts, open_concepts, read_concepts
from indexes.embedder import MiniLMEmbedder, Vectors, open_minilm
from indexes.gloss import gloss
from indexes.publishing import publish
from indexes.retriever import TrendRetriever
from indexes.table import clauses
from trendrag.settings import RetrievalSettings, default_data_dir
from trendrag.types import Evidence, Trend, TrendFilters

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SIZES = (1_000, 10_000, 100_000)
ROUNDS = 3
"""How often each query is asked."""
NOISE = 0.5
"""Length of the noise that is added to a real vector: such neighbours have a cosine of 0.8 with one another."""
QUERIES = Path(__file__).parent.parent / "evals" / "cases" / "retrieval" / "tune" / "queries.jsonl"
REPORT = Path(__file__).with_suffix(".md")
AGE = timedelta(hours=72)


class Perturbed:
    """Vectors of the real embedder's kind: those of a concept's ``about``, each time with other noise."""

    def __init__(self, real: MiniLMEmbedder, concepts: Concepts) -> None:
        self.name, self.sha256, self.dim = real.name, real.sha256, real.dim
        self._known = concepts.about
        self._random = np.random.default_rng(7)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._known[self._random.integers(0, len(self._known), len(texts))]
        noise = self._random.standard_normal(vectors.shape, dtype=np.float32)
        vectors = vectors + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made_up(count: int) -> list[Trend]:
    """Trends of some words each; two of three have a summary and so two vectors, one in five is of a region."""
    rng = random.Random(7)  # noqa: S311
    said = [about for each in read_concepts() for about in each.about]
    words = sorted({word for about in said for word in about.split()})
    found = []
    for number in range(count):
        phrase = f"{rng.choice(said)} {rng.choice(words)}"
        found.append(
            Trend(
                id=f"t{number:08}",
                phrase=phrase,
                aliases=(f"#{phrase.replace(' ', '')}",),
                summary="" if number % 3 == 0 else f"{rng.choice(said)} and {' '.join(rng.sample(words, 8))}",
                language=rng.choice(("en", "en", "de", "und")),
                region=rng.choice((None, None, None, None, "GB")),
                categories=(rng.choice(("sports", "food", "news")),),
                score=rng.random(),
                first_seen=NOW - AGE,
                last_seen=NOW - rng.random() * AGE,
                evidence=(Evidence(source="bench", title=f"All about {phrase}", url=f"https://news.example/{number}"),),
            )
        )
    return found


def build(folder: Path, count: int) -> dict[str, Any]:
    """A snapshot of ``count`` trends in ``folder``."""
    models = default_data_dir() / "models"
    embedder = open_minilm(models)
    concepts = make_concepts(embedder, models)
    trends = made_up(count)
    started = time.perf_counter()
    publish(
        folder,
        trends,
        Perturbed(embedder, concepts),
        origin="live",
        recorded_at=NOW,
        now=NOW,
        keep=1,
        concepts=concepts,
    )
    return {"published": time.perf_counter() - started}


def measure(folder: Path) -> dict[str, Any]:
    """Loads the snapshot in ``folder`` and asks, in this process."""
    models = default_data_dir() / "models"
    started = time.perf_counter()
    embedder = open_minilm(models)
    embedder_after = time.perf_counter() - started
    queries = [json.loads(line)["description"] for line in QUERIES.read_text("utf-8").splitlines()]
    before = resident()
    started, worked = time.perf_counter(), time.process_time()
    retriever = opened(folder, embedder, models)
    first = retriever.search(retriever._snapshot, queries[0], TrendFilters())  # noqa: SLF001
    ready, ready_cpu = time.perf_counter() - started, time.process_time() - worked
    assert first.trends  # noqa: S101  (else there is nothing to measure)
    after, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    index = faiss.IndexFlatIP(embedder.dim)
    concepts = open_concepts(embedder, models)
    assert concepts is not None  # noqa: S101  (``build`` made them)
    index.add(
        np.concatenate([np.fromfile(file, "<f4").reshape(-1, embedder.dim) for file in folder.rglob("*.vectors")])
    )

    def bare(texts: Sequence[str]) -> None:
        index.search(embedder.embed(texts)[:1], RetrievalSettings().k)

    found: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": [], "same": [], "filtered": [], "again": []}
    for turn in range(ROUNDS):
        for query in queries:
            asked = query.replace(" ", " " * (turn + 1))  # another question to the caches, the same to the embedder
            found["bare"].append(timed(lambda query=query: bare([query])))
            found["same"].append(timed(lambda query=query: bare(texts_of(query))))
            found["ours"].append(timed(lambda asked=asked: ask(retriever, asked, TrendFilters())))
            found["again"].append(timed(lambda asked=asked: ask(retriever, asked, TrendFilters())))
            narrow = TrendFilters(region="GB", categories=("food",))
            found["filtered"].append(timed(lambda asked=asked, narrow=narrow: ask(retriever, asked, narrow)))
    return {
        "vectors": index.ntotal,
        "embedder": embedder_after,
        "ready": ready,
        "ready_cpu": ready_cpu,
        "resident": after - before,
        "peak": peak,
        "ms": {name: np.percentile([wall for wall, _ in each], [50, 99]).tolist() for name, each in found.items()},
        "cpu": {name: float(np.median([cpu for _, cpu in each])) for name, each in found.items()},
    }


def opened(folder: Path, embedder: MiniLMEmbedder, models: Path) -> TrendRetriever:
    chosen = RetrievalSettings()
    retriever = TrendRetriever(
        folder,
        embedder,
        k=chosen.k,
        threshold=chosen.threshold,
        max_age=AGE,
        concepts_dir=models,
        now=lambda: NOW,
    )
    retriever.load()
    return retriever


def ask(retriever: TrendRetriever, query: str, filters: TrendFilters) -> None:
    retriever.search(retriever._snapshot, query, filters)  # noqa: SLF001  (without the threads of ``retrieve``)


def texts_of(query: str) -> list[str]:
    """What the retriever embeds."""
    whole = [query, *([english] if (english := gloss(query)) else [])]
    return [*whole, *(part for text in whole for part in clauses(text))]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds, and those of processors."""
    started, worked = time.perf_counter(), time.process_time()
    call()
    return 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - worked)


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def process(*args: object) -> dict[str, Any]:
    """This file in a process of its own: what it printed."""
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *map(str, args)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of trends; writes no report")
    parser.add_argument(
        "--folder", type=Path, default=default_data_dir() / "bench-retrieval", help="where snapshots are made"
    )
    parser.add_argument("--build", nargs=2, metavar=("FOLDER", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.build:
        say(json.dumps(build(Path(chosen.build[0]), int(chosen.build[1]))))
    elif chosen.measure:
        say(json.dumps(measure(Path(chosen.measure))))
    else:
        everything(chosen.folder, chosen.sizes)


def everything(folder: Path, sizes: Sequence[int] | None) -> None:
    found = {}
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for size in sizes or SIZES:
            made = process("--build", folder / str(size), size)
            found[size] = made | process("--measure", folder / str(size))
            shutil.rmtree(folder / str(size))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = report(found)
    say(text)
    if not sizes:
        REPORT.write_text(text, "utf-8")


def report(found: dict[int, dict[str, Any]]) -> str:
    lines = [
        "# What a query costs",
        "",
        "`make bench-retrieval` wrote this; `benchmarks/retrieval.py` says what is real in it. Milliseconds over the",
        f"queries of the golden set's tune part, {ROUNDS} times each, embedding included: p50 / p99, and the median of",
        "processor time in brackets, the better measure where others use the machine too. *Filtered* is the same",
        "query with filters, whose vectors are known by then; *again* is the same once more. *Bare* is one text",
        "embedded and one search of a flat faiss index of the same vectors; *bare, same texts* embeds what retrieval",
        "embeds too: the query's gloss and clauses. Ratios are of medians, in brackets of processor time.",
        "",
        "| trends | vectors | query | filtered | again | bare | bare, same texts | ratio to bare | to same texts |",
        f"|{' --- |' * 9}",
    ]
    for size, each in found.items():
        ms, cpu = each["ms"], each["cpu"]
        times = [
            f"{ms[name][0]:.1f} / {ms[name][1]:.1f} [{cpu[name]:.1f}]"
            for name in ("ours", "filtered", "again", "bare", "same")
        ]
        ratios = [f"{ms['ours'][0] / ms[name][0]:.2f} [{cpu['ours'] / cpu[name]:.2f}]" for name in ("bare", "same")]
        lines.append(f"| {' | '.join([f'{size:,}', format(each['vectors'], ','), *times, *ratios])} |")
    lines += [
        "",
        "*Ready* is from opening concepts and snapshot to the first answer; *embedder* is its own start, before that.",
        "*Memory* is what the process has more by then, *peak* the most it has had. *Publish* writes the snapshot.",
        "",
        "| trends | ready (s) | embedder (s) | memory (MiB) | peak (MiB) | publish (s) |",
        f"|{' --- |' * 6}",
    ]
    lines += [
        f"| {size:,} | {each['ready']:.2f} [{each['ready_cpu']:.2f}] | {each['embedder']:.2f}"
        f" | {each['resident']:.0f} | {each['peak']:.0f} | {each['published']:.1f} |"
        for size, each in found.items()
    ]
    lines += ["", f"Machine: {machine()}.", ""]
    return "\n".join(lines)


def machine() -> str:
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores, shared, {memory:.0f} GiB,"
        f" Python {platform.python_version()}"
    )


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (what it is for)


if __name__ == "__main__":
    main()
