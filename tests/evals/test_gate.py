"""The thresholds that we ship, on real runs of a task that needs nothing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.gate import OURS, check, read_thresholds
from evals.record import Recorded, load, runs_folder, saved
from trendrag.errors import RequestError

CASES = OURS.parent / "cases" / "highlight.jsonl"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    return tmp_path


def reasons(cases: Path, data: Path) -> list[str]:
    """Why highlighting of ``cases`` misses the thresholds that we ship for it."""
    result = CliRunner().invoke(evals, ["run", "highlight", "--cases", str(cases)])
    assert result.exit_code == 0, result.output

    def opened(name: str) -> Recorded:
        return load(name, runs_folder(data))

    run = opened(saved(runs_folder(data))[0])
    ours = [each for each in read_thresholds(OURS) if each.task == "highlight"]
    assert ours
    return [reason for each in ours for reason in check(each, run, opened).reasons]


def test_ours_hold_and_one_wrong_span_does_not_pass(data: Path) -> None:
    assert reasons(CASES, data) == []
    first, *others = CASES.read_text("utf-8").splitlines()
    case = json.loads(first)
    case["expected"] = [*case["expected"], {"start": 0, "end": 1, "id": case["trends"][0]["id"]}]
    worse = data / "worse.jsonl"
    worse.write_text("\n".join([json.dumps(case), *others]), "utf-8")
    assert [reason.partition(":")[2] for reason in reasons(worse, data)] == [" below 1"]
    fewer = data / "fewer.jsonl"
    fewer.write_text("\n".join(others), "utf-8")
    assert reasons(fewer, data) == ["25 items, fewer than 26"]


def test_without_a_file_it_is_ours_and_without_runs_it_says_how_to_make_them() -> None:
    with pytest.raises(RequestError, match=r"no run of 'retrieval tune'.*trendrag evals run"):
        CliRunner().invoke(evals, ["gate"], catch_exceptions=False)
