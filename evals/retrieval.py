"""How well the trends that are offered for a photo are those that an editor would pick, and none where none fits.

A set of cases is a folder of two files, and perhaps a third, a JSON object a line in each:

    trends.jsonl    id, phrase, aliases, summary, category, region, language, source_type, traffic,
                    first_seen_hours_ago, last_seen_hours_ago; and for the judge alone: safe, unsafe_reason, dup_of
    queries.jsonl   id, description, relevant {trend id: 1 | 2}, forbidden [trend ids]
    scenes.jsonl    id of a trend, scenes as a model wrote them for it; read only where they are asked for

The trends become observations and go through our own merge, safety gate, score and freshness, into a real snapshot; the
descriptions are asked of the real retriever. A hit counts for its root (``dup_of`` or itself), once. Unsafe and stale
hits gain nothing, and an empty answer to a query that has relevant trends scores 0.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydantic import Field

from evals.bootstrap import Mean, mean, paired_difference
from evals.labelled import Record, read_lines
from evals.measures.abstention import abstention
from evals.measures.ndcg import ndcg
from evals.measures.recall import recall
from evals.measures.shares import repeats, share
from indexes.concepts import Concepts
from indexes.embedder import Embedder
from indexes.publishing import publish
from indexes.relevance import distinct, relevance, wanted
from indexes.retriever import LOOKED_AT, TrendRetriever
from indexes.snapshot import Snapshot, open_newest
from indexes.table import Table
from ingest.observation import Intake, Kind, Observation, Origin, joined_form
from ingest.pipeline import decide
from ingest.safety import built_in_gate
from ingest.score import Point
from trendrag.errors import RequestError
from trendrag.settings import Settings
from trendrag.types import Trend, TrendFilters

K = 5
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_PLACE = "https://cases.invalid/"


class CaseTrend(Record):
    id: str
    phrase: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    category: str | None = None
    region: str | None = None
    language: str = "und"
    source_type: str = "rss"
    traffic: int | None = None
    first_seen_hours_ago: float = Field(ge=0)
    last_seen_hours_ago: float = Field(ge=0)
    safe: bool = True
    unsafe_reason: str | None = None
    dup_of: str | None = None


class CaseQuery(Record):
    id: str
    description: str
    relevant: Mapping[str, int] = Field(default_factory=dict)
    forbidden: tuple[str, ...] = ()


class CaseScenes(Record):
    id: str
    scenes: tuple[str, ...]


class Cases(Record):
    """``scenes`` by the id of their trend."""

    trends: tuple[CaseTrend, ...]
    queries: tuple[CaseQuery, ...]
    scenes: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class QueryResult(Record):
    """``shown`` are the case ids of the first ``K`` hits. ``ndcg`` and ``recall`` are None where nothing fits."""

    id: str
    shown: tuple[str, ...]
    similarities: tuple[float, ...]
    ndcg: float | None
    recall: float | None
    forbidden: tuple[str, ...]
    reason: str | None


class RetrievalReport(Record):
    """Means with 95% bootstrap intervals over queries. The shares are of all hits that were shown.

    ``trends`` came in, ``offered`` topics were in the snapshot; ``safe_missing`` are safe and fresh ones that were not,
    under any of their names.
    """

    trends: int
    offered: int
    queries: int
    safe_missing: tuple[str, ...]
    ndcg: Mean | None
    recall: Mean | None
    abstention_precision: float | None
    abstention_recall: float | None
    empty: int
    nothing_fits: int
    hits: int
    forbidden: float
    duplicates: float
    stale: float
    unsafe: float
    results: tuple[QueryResult, ...]


def read_cases(folder: Path, *, with_scenes: bool = False) -> Cases:
    """The cases in ``folder``.

    Raises:
        RequestError: a file is missing, a line is no case (the message names it), or an id is unknown or given twice.
    """
    trends = read_lines(folder / "trends.jsonl", CaseTrend)
    queries = read_lines(folder / "queries.jsonl", CaseQuery)
    known = _unique("trends.jsonl", (trend.id for trend in trends))
    _unique("queries.jsonl", (query.id for query in queries))
    named = [trend.dup_of for trend in trends if trend.dup_of]
    scenes = read_lines(folder / "scenes.jsonl", CaseScenes) if with_scenes else []
    _unique("scenes.jsonl", (each.id for each in scenes))
    named += [each.id for each in scenes]
    named += [id_ for query in queries for id_ in (*query.relevant, *query.forbidden)]
    if unknown := sorted(set(named) - known):
        raise RequestError(f"{folder}: {unknown[0]} is named but is not in trends.jsonl")
    return Cases(trends=tuple(trends), queries=tuple(queries), scenes={each.id: each.scenes for each in scenes})


def _unique(file: str, ids: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise RequestError(f"{file}: {id_} is there twice")
        seen.add(id_)
    return seen


def run(cases: Cases, settings: Settings, embedder: Embedder, concepts: Concepts | None = None) -> RetrievalReport:
    """Asks the retriever, as ``settings`` make it, every query of ``cases``."""
    by_id = {trend.id: trend for trend in cases.trends}
    max_age = timedelta(hours=settings.ingest.max_age_hours)
    snapshot, case_of = offered(cases, settings, embedder)
    retriever = TrendRetriever(
        settings.snapshots_dir,
        embedder,
        k=settings.retrieval.k,
        threshold=settings.retrieval.threshold,
        max_age=max_age,
        concepts=concepts,
        now=lambda: NOW,
    )
    results = []
    for query in cases.queries:
        answer = retriever.search(snapshot, query.description, TrendFilters())
        shown = tuple(case_of[hit.trend.id] for hit in answer.trends[:K])
        found = tuple(round(hit.similarity, 4) for hit in answer.trends[:K])
        results.append(_result(query, shown, found, by_id, max_age, answer.reason))
    return _report(cases, by_id, results, set(case_of.values()), len(snapshot.trends), max_age)


class Ablation(Record):
    """What is left of nDCG@5 without one part, and the difference that it makes (paired, 95% bootstrap interval)."""

    without: str
    ndcg: Mean
    brings: Mean


def ablate(cases: Cases, settings: Settings, embedder: Embedder, concepts: Concepts) -> tuple[Ablation, ...]:
    """The ranking (no threshold) without each of its parts in turn; the first of all is with all parts."""
    by_id = {trend.id: trend for trend in cases.trends}
    max_age = timedelta(hours=settings.ingest.max_age_hours)
    snapshot, case_of = offered(cases, settings, embedder)
    tables = {True: Table(snapshot, concepts), False: Table(snapshot, None)}

    def ndcgs(part: str) -> list[float]:
        table = tables[part not in ("concepts", "anything but the cosine")]
        found = []
        for query in cases.queries:
            if not query.relevant:
                continue
            signals = table.signals(
                query.description, embedder, glossed=part != "glosses", split=part != "clauses of the query"
            )
            if part == "BM25":
                signals = replace(signals, lexical=np.zeros_like(signals.lexical))
            chances = signals.cosine if part == "anything but the cosine" else relevance(signals)
            if part != "score and freshness":
                left = 1 - (NOW.timestamp() - table.last_seen) / max_age.total_seconds()
                chances = chances * wanted(table.scores, left.astype(np.float32))
            order = np.argsort(-chances, kind="stable")[: LOOKED_AT * K].tolist()
            if part != "one of those that say the same":
                order = distinct(order, snapshot.trends, table.vectors_of(order), K)
            shown = tuple(case_of[snapshot.trends[row].id] for row in order[:K])
            result = _result(query, shown, (), by_id, max_age, None)
            found.append(result.ndcg or 0.0)
        return found

    parts = (
        "nothing",
        "concepts",
        "clauses of the query",
        "glosses",
        "BM25",
        "score and freshness",
        "one of those that say the same",
        "anything but the cosine",
    )
    full = ndcgs("nothing")
    rows = []
    for part in parts:
        rest = ndcgs(part)
        value, brings = mean(rest), paired_difference(full, rest)
        if value and brings:
            rows.append(Ablation(without=part, ndcg=value, brings=brings))
    return tuple(rows)


def offered(cases: Cases, settings: Settings, embedder: Embedder) -> tuple[Snapshot, Mapping[str, str]]:
    """A snapshot of what our steps leave of the cases' trends, and the case that each of its trends is shown as."""
    with tempfile.TemporaryDirectory() as folder:
        case_of = publish_cases(Path(folder), cases, settings, embedder)
        return open_newest(Path(folder), embedder), case_of


def publish_cases(folder: Path, cases: Cases, settings: Settings, embedder: Embedder) -> Mapping[str, str]:
    """Publishes into ``folder`` what our steps leave of the cases' trends; says which case each is shown as."""
    by_id = {trend.id: trend for trend in cases.trends}
    trends = [_with_scenes(trend, cases, by_id) for trend in _live(cases.trends, settings, embedder)]
    publish(folder, trends, embedder, origin="live", recorded_at=NOW, now=NOW, keep=1)
    return {trend.id: _case_of(trend, by_id) for trend in trends}


def _live(trends: Sequence[CaseTrend], settings: Settings, embedder: Embedder) -> tuple[Trend, ...]:
    """The trends of a snapshot, made of the cases by the steps that live ones go through."""
    observations: list[Observation] = []
    points: list[Point] = []
    for case in trends:
        seen = _observation(case)
        if seen is None:
            continue
        observations.append(seen)
        # Seen at every full hour from the first time to the last.
        hours = int(max(case.first_seen_hours_ago - case.last_seen_hours_ago, 0))
        for back in range(hours, -1, -1):
            form = joined_form(seen.title)
            points.append(Point(seen.source, seen.family, seen.key, form, seen.at - back * _HOUR, seen.volume, None))
    decision = decide(
        observations,
        points,
        *built_in_gate(embedder, settings.models_dir),
        now=NOW,
        half_life=timedelta(hours=settings.ingest.half_life_hours),
        max_age=timedelta(hours=settings.ingest.max_age_hours),
        min_score=0.0,  # each case is a trend by its makers' word; how it came to be one is not told
    )
    by_id = {trend.id: trend for trend in trends}
    return tuple(_with_aliases(trend, by_id) for trend in decision.trends)


def _observation(case: CaseTrend) -> Observation | None:
    """None where the phrase is nothing that a source could name, as live."""
    kinds: dict[str, Kind] = {"wikimedia": "article"}
    kind: Kind = "hashtag" if case.phrase.startswith("#") else kinds.get(case.source_type, "phrase")
    at = NOW - case.last_seen_hours_ago * _HOUR
    source = f"{case.source_type}-{(case.region or 'all').lower()}"
    intake = Intake(
        Origin(source, case.source_type, case.source_type, case.source_type, at, case.region, case.language)
    )
    place = _PLACE + case.id
    intake.add(
        kind,
        case.phrase,
        identity=case.id,
        url=place,
        volume=case.traffic,
        evidence=intake.evidence(case.summary, url=place) if case.summary else (),
        categories=(case.category,) if case.category else (),
    )
    return next(iter(intake.parsed().observations), None)


def _with_aliases(trend: Trend, by_id: Mapping[str, CaseTrend]) -> Trend:
    names = (*trend.aliases, *(alias for id_ in _ids(trend) for alias in by_id[id_].aliases))
    return trend.model_copy(update={"aliases": tuple(dict.fromkeys(names))})


def _with_scenes(trend: Trend, cases: Cases, by_id: Mapping[str, CaseTrend]) -> Trend:
    return trend.model_copy(update={"scenes": cases.scenes.get(_case_of(trend, by_id), ())})


def _ids(trend: Trend) -> list[str]:
    places = (each.url for each in trend.evidence if each.url)
    return list(dict.fromkeys(url.removeprefix(_PLACE) for url in places))


def _case_of(trend: Trend, by_id: Mapping[str, CaseTrend]) -> str:
    """The case that a topic is shown as: of those that were merged into it the one that has its name."""
    ids = _ids(trend)
    return next((id_ for id_ in ids if joined_form(by_id[id_].phrase) == joined_form(trend.phrase)), ids[0])


def _root(id_: str, by_id: Mapping[str, CaseTrend]) -> str:
    return by_id[id_].dup_of or id_


def _stale(case: CaseTrend, max_age: timedelta) -> bool:
    return case.last_seen_hours_ago * _HOUR > max_age


def _result(
    query: CaseQuery,
    shown: tuple[str, ...],
    similarities: tuple[float, ...],
    by_id: Mapping[str, CaseTrend],
    max_age: timedelta,
    reason: str | None,
) -> QueryResult:
    grades: dict[str, int] = defaultdict(int)
    for id_, grade in query.relevant.items():
        grades[_root(id_, by_id)] = max(grades[_root(id_, by_id)], grade)
    roots = [_root(id_, by_id) for id_ in shown]
    usable = [by_id[id_].safe and not _stale(by_id[id_], max_age) for id_ in shown]
    gains = [
        float(grades.get(root, 0)) if good and not again else 0.0
        for root, good, again in zip(roots, usable, repeats(roots), strict=True)
    ]
    good_roots = [root for root, good in zip(roots, usable, strict=True) if good]
    return QueryResult(
        id=query.id,
        shown=shown,
        similarities=similarities,
        ndcg=ndcg(gains, list(grades.values()), K) if grades else None,
        recall=recall(good_roots, grades, K) if grades else None,
        forbidden=tuple(id_ for id_ in shown if id_ in query.forbidden),
        reason=reason,
    )


def _report(
    cases: Cases,
    by_id: Mapping[str, CaseTrend],
    results: Sequence[QueryResult],
    offered: set[str],
    topics: int,
    max_age: timedelta,
) -> RetrievalReport:
    relevant = {query.id: bool(query.relevant) for query in cases.queries}
    empty = abstention((not each.shown, not relevant[each.id]) for each in results)
    hits = [id_ for each in results for id_ in each.shown]
    roots = {_root(id_, by_id) for id_ in offered}
    missing = [
        each.id
        for each in cases.trends
        if each.safe and not each.dup_of and not _stale(each, max_age) and each.id not in roots
    ]
    again = [flag for each in results for flag in repeats([_root(id_, by_id) for id_ in each.shown])]
    return RetrievalReport(
        trends=len(cases.trends),
        offered=topics,
        queries=len(results),
        safe_missing=tuple(missing),
        ndcg=mean([each.ndcg for each in results if each.ndcg is not None]),
        recall=mean([each.recall for each in results if each.recall is not None]),
        abstention_precision=empty.precision,
        abstention_recall=empty.recall,
        empty=empty.empty,
        nothing_fits=empty.due,
        hits=len(hits),
        forbidden=share(id_ in each.forbidden for each in results for id_ in each.shown),
        duplicates=share(again),
        stale=share(_stale(by_id[id_], max_age) for id_ in hits),
        unsafe=share(not by_id[id_].safe for id_ in hits),
        results=tuple(results),
    )
