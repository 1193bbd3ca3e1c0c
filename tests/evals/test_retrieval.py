"""Retrieval is measured on trends that went through the live steps, by the rules that evals/retrieval.py states."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.retrieval import RetrievalReport, read_cases, run
from indexes.embedder import Vectors
from trendrag.errors import RequestError
from trendrag.settings import RetrievalSettings, Settings

WORDS = ["tea", "coffee", "chess", "ferry", "park"]


class WordEmbedder:
    """A text's vector says which of ``WORDS`` are in it."""

    name, sha256, dim = "words", "0" * 64, len(WORDS) + 1

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = [[*(word in text.lower() for word in WORDS), 0.01] for text in texts]
        vectors = np.asarray(counts, dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def trend(id_: str, phrase: str, **fields: Any) -> Mapping[str, Any]:
    plain = {"source_type": "rss", "language": "en", "summary": f"Everybody enjoys {phrase} at home"}
    return {"id": id_, "phrase": phrase, "first_seen_hours_ago": 20, "last_seen_hours_ago": 2} | plain | fields


def query(id_: str, description: str, relevant: Mapping[str, int], *forbidden: str) -> Mapping[str, Any]:
    return {"id": id_, "description": description, "relevant": relevant, "forbidden": forbidden}


def report(folder: Path, trends: Sequence[Mapping[str, Any]], queries: Sequence[Mapping[str, Any]]) -> RetrievalReport:
    write(folder, trends, queries)
    settings = Settings(data_dir=folder / "var", retrieval=RetrievalSettings(threshold=0.4))
    return run(read_cases(folder), settings, WordEmbedder())


def write(folder: Path, trends: Sequence[Mapping[str, Any]], queries: Sequence[Mapping[str, Any]]) -> None:
    for name, cases in (("trends", trends), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), "utf-8")


def test_what_fits_is_found_and_nothing_where_nothing_fits(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        [trend("t", "Green Tea"), trend("c", "Chess Final")],
        [query("q1", "a pot of tea", {"t": 2}), query("q2", "an empty road", {})],
    )
    assert [each.shown for each in found.results] == [("t",), ()]
    assert found.ndcg is not None
    assert (found.ndcg.value, found.ndcg.n) == (1, 1)
    assert (found.abstention_precision, found.abstention_recall) == (1, 1)


def test_an_empty_answer_to_what_has_one_scores_nothing(tmp_path: Path) -> None:
    found = report(tmp_path, [trend("t", "Green Tea")], [query("q", "an empty road", {"t": 1})])
    assert found.ndcg is not None
    assert found.ndcg.value == 0
    assert found.abstention_precision == 0


def test_stale_and_unsafe_trends_never_reach_the_snapshot(tmp_path: Path) -> None:
    trends = [
        trend("old", "Coffee Week", first_seen_hours_ago=200, last_seen_hours_ago=100),
        trend("bad", "Harbour Ferry", summary="Six dead as ferry sinks", safe=False),
        trend("t", "Green Tea"),
    ]
    found = report(tmp_path, trends, [query("q", "a ferry, coffee and tea", {"t": 1}, "bad")])
    assert found.results[0].shown == ("t",)
    assert (found.stale, found.unsafe, found.forbidden, found.safe_missing) == (0, 0, 0, ())


def test_a_duplicate_counts_for_its_root_and_once(tmp_path: Path) -> None:
    trends = [trend("t", "Green Tea"), trend("again", "Coffee Everywhere", dup_of="t"), trend("c", "Chess")]
    found = report(tmp_path, trends, [query("q", "tea or coffee", {"t": 2})])
    (answer,) = found.results
    assert set(answer.shown) >= {"t", "again"}
    assert found.duplicates > 0
    assert answer.ndcg is not None
    assert answer.ndcg <= 1


def test_a_safe_trend_that_was_withheld_is_named(tmp_path: Path) -> None:
    found = report(tmp_path, [trend("t", "Tea Murder", safe=True)], [query("q", "tea", {"t": 1})])
    assert found.safe_missing == ("t",)


@pytest.mark.parametrize(
    ("trends", "queries", "complaint"),
    [
        ([{"id": "t"}], [], "trends.jsonl, line 1 is not a case"),
        ([trend("t", "Tea"), trend("t", "Tea")], [], "t is there twice"),
        ([trend("t", "Tea")], [query("q", "tea", {"x": 1})], "x is named but is not in trends.jsonl"),
        ([trend("t", "Tea", last_seen_hours_ago=-1)], [], "line 1 is not a case"),
    ],
)
def test_bad_cases_are_named(
    tmp_path: Path, trends: Sequence[Mapping[str, Any]], queries: Sequence[Mapping[str, Any]], complaint: str
) -> None:
    write(tmp_path, trends, queries)
    with pytest.raises(RequestError, match=complaint):
        read_cases(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"trends\.jsonl can't be read"):
        read_cases(tmp_path)


def test_scenes_bring_photos_to_trends_that_share_no_word_with_them(tmp_path: Path) -> None:
    write(tmp_path, [trend("t", "Green Tea"), trend("c", "Chess Final")], [query("q", "a walk in the park", {"c": 2})])
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"id": "c", "scenes": ["Two old men in the park"]}) + "\n")
    settings = Settings(data_dir=tmp_path / "var", retrieval=RetrievalSettings(threshold=0.4))
    shown = [
        run(read_cases(tmp_path, with_scenes=asked), settings, WordEmbedder()).results[0].shown
        for asked in (False, True)
    ]
    assert shown == [(), ("c",)]


def test_scenes_of_a_trend_that_is_not_there_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [trend("t", "Green Tea")], [])
    (tmp_path / "scenes.jsonl").write_text('{"id": "x", "scenes": []}\n')
    with pytest.raises(RequestError, match="x is named"):
        read_cases(tmp_path, with_scenes=True)
