import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import evals.merge
import evals.phrases
from evals.commands import evals as command
from evals.labelled import quality, read_cases, share
from evals.merge import MergeCase
from evals.phrases import PhraseCase
from tests.fakes import HashEmbedder
from trendrag.errors import RequestError

CASES = Path(evals.merge.__file__).parent / "cases"


def test_our_pairs_reach_what_is_promised() -> None:
    cases = read_cases(CASES / "merge.jsonl", MergeCase)
    report = evals.merge.run(cases, HashEmbedder())
    assert len(cases) >= 300
    assert len({case.id for case in cases}) == len(cases)
    ours, *others = report.methods
    assert [each.method for each in others] == ["normal form", "words", "trigrams", "embedding"]
    for part, others_parts in (
        (ours.dev, [other.dev for other in others]),
        (ours.test, [other.test for other in others]),
    ):
        assert part is not None
        assert part.precision.value >= 0.95
        assert part.recall.value >= 0.8
        assert all(other is not None and other.f1 < part.f1 for other in others_parts)


def test_our_headlines_give_the_phrases_that_are_promised() -> None:
    cases = read_cases(CASES / "phrases.jsonl", PhraseCase)
    report = evals.phrases.run(cases)
    assert len(cases) >= 400
    for part in (report.dev, report.test):
        assert part is not None
        assert part.precision.value >= 0.9
        assert part.coverage.value >= 0.7
        assert part.silence.value >= 0.9


def test_intervals_are_wilsons() -> None:
    # The textbook case: 8 of 10 is between 0.490 and 0.943.
    found = share(8, 10)
    assert (found.value, round(found.low, 3), round(found.high, 3)) == (0.8, 0.49, 0.943)
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)


def test_precision_and_recall() -> None:
    found = quality([(True, True), (True, False), (False, True), (True, True)])
    assert (found.precision.right, found.precision.of) == (2, 3)
    assert (found.recall.right, found.recall.of) == (2, 3)
    assert found.f1 == pytest.approx(2 / 3)


def test_wrong_pairs_and_headlines_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    pair = {"id": "p", "a": {"names": ["Tea"]}, "b": {"names": ["tea"]}, "same": False, "split": "test"}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps(pair))
    headline = {"id": "h", "headline": "Parasol parade: what to wear", "phrases": ["umbrellas"]}
    headlines = tmp_path / "headlines.jsonl"
    headlines.write_text(json.dumps(headline))
    shown = CliRunner().invoke(command, ["run", "merge", "--cases", str(pairs)])
    assert "WRONG p (test): Tea | tea: the same by words" in shown.output
    report = json.loads(CliRunner().invoke(command, ["run", "merge", "--cases", str(pairs), "--json"]).stdout)
    assert report["methods"][0]["test"]["precision"]["value"] == 0.0
    shown = CliRunner().invoke(command, ["run", "phrases", "--cases", str(headlines)])
    assert "WRONG h (test): Parasol parade: what to wear: Parasol parade, not umbrellas" in shown.output
    report = json.loads(CliRunner().invoke(command, ["run", "phrases", "--cases", str(headlines), "--json"]).stdout)
    assert report["results"] == [{"id": "h", "split": "test", "phrase": "Parasol parade", "passed": False}]


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"id": 1, "a": 5}', "[]", "\xff"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\n" + line.encode("latin-1"))
    with pytest.raises(RequestError, match="line 2"):
        read_cases(path, MergeCase)
