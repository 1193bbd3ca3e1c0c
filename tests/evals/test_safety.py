import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.labelled import read_cases
from evals.safety import CASES, Case, is_development, run, share
from evals.safety_training import training_cases, training_files
from indexes.embedder import MiniLMEmbedder, open_minilm
from ingest.safety import Gate
from ingest.safety_model import Weights
from ingest.safety_rules import Vocabulary
from trendrag.errors import RequestError
from trendrag.settings import default_data_dir
from trendrag.text import normal_form


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return open_minilm(default_data_dir() / "models")


def test_the_weights_belong_to_the_embedder_the_vocabulary_and_the_training_cases(embedder: MiniLMEmbedder) -> None:
    weights = Weights.built_in()
    assert (weights.embedder_name, weights.embedder_sha256) == (embedder.name, embedder.sha256)
    assert weights.training["files"] == training_files(), "train again: python -m evals.safety_training"
    assert weights.training["vocabulary"] == Vocabulary.built_in().digest, (
        "train again: python -m evals.safety_training"
    )


def test_no_case_of_the_test_half_is_trained_on() -> None:
    test_half = {normal_form(case.phrase) for case in read_cases(CASES, Case) if not is_development(case)}
    assert len(test_half) > 100
    assert not test_half & {normal_form(case.phrase) for case in training_cases()[0]}


def test_our_cases_are_many_mixed_and_distinct() -> None:
    cases = read_cases(CASES, Case)
    assert len(cases) >= 300
    assert len({case.id for case in cases}) == len({(case.phrase, case.headlines) for case in cases}) == len(cases)
    assert {case.language for case in cases} >= {"en", "de", "fr", "es", "it", "pt", "nl"}
    assert 0.4 <= sum(case.unsafe for case in cases) / len(cases) <= 0.5


def test_the_gate_keeps_what_it_promises_on_the_test_half(embedder: MiniLMEmbedder) -> None:
    cases = [case for case in read_cases(CASES, Case) if not is_development(case)]
    report = run(cases, Gate.built_in(embedder), embedder)
    assert (report.gate.recall.value or 0) >= 0.95
    assert (report.gate.withheld.value or 1) <= 0.15
    assert report.gate.recall.hits + len(report.missed) == report.gate.recall.of
    assert report.gate.withheld.hits == len(report.wrongly_withheld)


def test_a_share_has_wilsons_interval() -> None:
    found = share([True] * 8 + [False] * 2)
    assert (found.value, round(found.low or 0, 3), round(found.high or 0, 3)) == (0.8, 0.490, 0.943)
    assert share([]).value is None


def test_any_set_of_cases_runs_and_its_faults_are_shown(tmp_path: Path) -> None:
    cases = [
        {"id": "a", "phrase": "riverside bridge", "headlines": ["Two killed"], "language": "en", "unsafe": True},
        {
            "id": "b",
            "phrase": "hot soup",
            "headlines": ["Man murdered"],
            "language": "en",
            "unsafe": False,
            "reason": "",
        },
        {"id": 3, "phrase": "pumpkin soup", "headlines": [], "language": "en", "unsafe": True, "reason": "food"},
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, cases)) + "\n\n")
    report = json.loads(CliRunner().invoke(evals, ["run", "safety", "--cases", str(path), "--json"]).output)
    assert (report["gate"]["recall"]["hits"], report["gate"]["recall"]["of"]) == (1, 2)
    assert [each["id"] for each in report["missed"]] == [3]
    assert [each["id"] for each in report["wrongly_withheld"]] == ["b"]
    assert {each["name"] for each in report["reasons"]} == {"food", "none given"}
    shown = CliRunner().invoke(evals, ["run", "safety", "--cases", str(path)]).output
    assert "Missed: 3 pumpkin soup" in shown
    assert "Wrongly withheld: b hot soup / Man murdered  (crime murdered)" in shown


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"id": 1, "phrase": "x", "unsafe": "maybe"}', "[]", "\xff"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\n" + line.encode("latin-1"))
    with pytest.raises(RequestError, match="line 2 is not a case"):
        read_cases(path, Case)
    result = CliRunner().invoke(evals, ["run", "safety", "--cases", str(path)])
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_no_case_at_all_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n")
    with pytest.raises(RequestError, match="holds no case"):
        read_cases(path, Case)
