"""Is B another than A, and does it pass the gate?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.compare import compare
from evals.record import Item, Measure, Recorded, Run, runs_folder, save
from trendrag.errors import RequestError

QUALITY = Measure(name="quality")
COST = Measure(name="cost", better="lower")


def a_run(name: str, values: Sequence[float], costs: Sequence[float] = (), failed: int = 0, **more: object) -> Recorded:
    items = [
        Item(id=f"case {number}", scores={"quality": value, "cost": cost})
        for number, (value, cost) in enumerate(zip(values, costs or [1.0] * len(values), strict=True))
    ]
    items += [Item(id=f"failed {number}", error="away") for number in range(failed)]
    at = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(minutes=ord(name[0]))
    fields = {"id": name, "task": "caption", "created_at": at, "measures": (QUALITY, COST)} | more
    return Recorded(run=Run.model_validate(fields), items=tuple(items))


LOW, HIGH = [number / 20 for number in range(20)], [number / 20 + 0.3 for number in range(20)]


def test_better_and_worse_follow_the_direction_of_the_measure() -> None:
    found = compare(a_run("a", LOW, LOW), a_run("b", HIGH, HIGH, settings={"k": 8}))
    assert [(each.measure.name, each.verdict) for each in found.changes] == [("quality", "better"), ("cost", "worse")]
    assert found.changes[0].change.value == pytest.approx(0.3)
    assert found.settings == ("setting k: – → 8",)


def test_the_items_that_moved_most_are_first_and_others_are_left_out() -> None:
    after = [*LOW]
    after[3] -= 0.5
    after[7] += 0.2
    found = compare(a_run("a", LOW), a_run("b", after))
    assert [(each.id, round(each.by, 3)) for each in found.moved] == [("case 3", -0.5), ("case 7", 0.2)]
    assert found.by == "quality"
    assert found.changes[0].verdict == "no difference seen"
    assert compare(a_run("a", LOW), a_run("b", after), by="cost").moved == ()


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(RequestError, match="not over the same cases"):
        compare(a_run("a", LOW), a_run("b", LOW[:-1]))
    with pytest.raises(RequestError, match="runs of one task"):
        compare(a_run("a", LOW), a_run("b", LOW, task="retrieval"))
    with pytest.raises(RequestError, match=r"No measure 'taste'.*quality, cost"):
        compare(a_run("a", LOW), a_run("b", LOW), by="taste")
    with pytest.raises(RequestError, match="no measure in common"):
        compare(a_run("a", LOW), a_run("b", LOW, measures=(Measure(name="other"),)))


def test_few_items_are_said_to_be_few() -> None:
    found = compare(a_run("a", LOW[:5]), a_run("b", HIGH[:5]))
    assert {each.verdict for each in found.changes} == {"too few items"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    for each in (a_run("a", LOW), a_run("b", HIGH, failed=0), a_run("c", HIGH, failed=2, label="worn")):
        save(each.run, each.items, runs_folder(tmp_path))
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(evals, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_line_compares_and_lists(data: Path) -> None:
    code, output = invoke("compare", "a", "b")
    assert code == 0
    assert "+0.3000 [+0.3000, +0.3000], n = 20  better" in output
    code, output = invoke("runs")
    assert [line.split()[0] for line in output.splitlines()] == ["c", "b", "a"]
    assert "22 items, 2 failed" in output
    assert "No runs" in invoke("runs", "--task", "tagging")[1]


def gate(data: Path, toml: str) -> tuple[int, str]:
    path = data / "thresholds.toml"
    path.write_text(toml, "utf-8")
    return invoke("gate", str(path))


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        ('run = "b"\nmeasure = "quality"\nat_least = 0.7', ""),
        ('run = "b"\nmeasure = "quality"\nat_least = 0.7\nsure = true', "below 0.7"),
        ('run = "b"\nmeasure = "quality"\nat_least = 0.9', "n = 20: below 0.9"),
        ('run = "b"\nmeasure = "cost"\nat_most = 0.5', "above 0.5"),
        ('run = "b"\nmeasure = "quality"\nat_least = 0.1\nmin_n = 50', "20 items, fewer than 50"),
        ('task = "caption"\nmax_failed = 0.05', "2 of 22 items failed (9.1%)"),
        ('task = "caption"\nlabel = "worn"\nmax_failed = 0.1', ""),
        ('run = "b"\nmeasure = "quality"\nnot_worse_than = "a"', ""),
        ('run = "a"\nmeasure = "quality"\nnot_worse_than = "b"', "worse than b by -0.3"),
    ],
)
def test_the_gate_passes_or_says_why_not(data: Path, threshold: str, reason: str) -> None:
    code, output = gate(data, f"[[threshold]]\n{threshold}\n")
    assert code == (1 if reason else 0)
    assert ("MISSED" if reason else "passed") in output
    assert reason in output


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("", "threshold: Field required"),
        ("[[threshold]\n", "not TOML"),
        ('[[threshold]]\ntask = "caption"', "nothing is asked"),
        ('[[threshold]]\ntask = "caption"\nat_least = 1', "need a measure"),
        ('[[threshold]]\nmeasure = "quality"\nat_least = 1', "name a task"),
        ('[[threshold]]\ntask = "caption"\nmeasure = "quality"\natleast = 1', "atleast"),
        ('[[threshold]]\ntask = "caption"\nmeasure = "taste"\nat_least = 1', "no measure 'taste'; it has: quality"),
        ('[[threshold]]\ntask = "tagging"\nmax_failed = 0', "no run of 'tagging'"),
    ],
)
def test_a_gate_that_can_not_be_read_is_no_gate_passed(data: Path, toml: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        gate(data, toml)
