import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.highlight import Case, run
from evals.labelled import read_cases
from trendrag.errors import RequestError


def test_our_cases_pass() -> None:
    import evals.highlight

    report = run(read_cases(Path(evals.highlight.__file__).parent / "cases" / "highlight.jsonl", Case))
    assert [result.id for result in report.results if not result.passed] == []
    assert report.cases >= 20


def test_a_wrong_span_is_counted_and_shown(tmp_path: Path) -> None:
    case = {
        "id": 1,
        "caption": "tea and tea",
        "trends": [{"id": "t", "phrase": "tea"}],
        "expected": [{"start": 0, "end": 3, "id": "t"}, {"start": 4, "end": 7, "id": "t"}],
    }
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(case) + "\n\n")
    result = CliRunner().invoke(evals, ["run", "highlight", "--cases", str(path), "--json"])
    report = json.loads(result.output)
    assert (report["passed"], report["precision"], report["recall"]) == (0, 0.5, 0.5)
    assert report["results"][0]["missing"] == [{"start": 4, "end": 7, "id": "t"}]
    assert report["results"][0]["unexpected"] == [{"start": 8, "end": 11, "id": "t"}]
    assert "FAILED 1" in CliRunner().invoke(evals, ["run", "highlight", "--cases", str(path)]).output


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"id": 1, "caption": 5}', "[]", "\xff"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\n" + line.encode("latin-1"))
    with pytest.raises(RequestError, match="line 2"):
        read_cases(path, Case)
