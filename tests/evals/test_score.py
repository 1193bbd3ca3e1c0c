"""The measures are right where the answer is known, and the simulated world keeps its own rules."""

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

import evals.score
from evals.commands import evals as command
from evals.score import ScoreReport, Scores, raw_volume, run, trend_score
from evals.simulation import DAY, World, moment, simulate


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(3)


def told(world: World, late: int = 0) -> Scores:
    """A method that knows the bursts, or learns of them late."""
    score = np.zeros((world.hours, len(world.kinds)))
    for burst in world.bursts:
        score[burst.onset + late : burst.over, burst.topic] = 1.0
    return Scores(score)


@pytest.fixture(scope="module")
def report() -> ScoreReport:
    def always(world: World) -> Scores:
        return Scores(np.ones((world.hours, len(world.kinds))))

    def never(world: World) -> Scores:
        return Scores(np.zeros((world.hours, len(world.kinds))))

    late = partial(told, late=10)
    return run([3], {"oracle": told, "late": late, "always": always, "never": never, "raw": raw_volume})


def test_who_knows_the_bursts_finds_all_at_once_without_a_false_alarm(report: ScoreReport) -> None:
    result = report.methods[0]
    assert (result.soon, result.day, result.median_delay, result.p90_delay) == (1, 1, 0, 0)
    assert sum(result.false_by_kind.values()) == result.false_at_half == 0


def test_who_learns_of_them_late_is_late_by_that(report: ScoreReport) -> None:
    result = report.methods[1]
    assert (result.soon, result.median_delay) == (0, 10)
    assert result.day > 0.95


def test_who_cries_wolf_all_day_or_never_finds_nothing(report: ScoreReport) -> None:
    for result in report.methods[2:4]:
        assert (result.soon, result.day, result.median_delay) == (0, 0, None)


def test_a_seed_is_a_world() -> None:
    assert simulate(3, weeks=3) == simulate(3, weeks=3) != simulate(4, weeks=3)


def test_nothing_is_known_before_it_happened_nor_read_in_an_outage(world: World) -> None:
    for hour, read in enumerate(world.reads):
        assert all(point.at <= moment(hour) for _, point in read)
    for outage in world.outages:
        heard = {point.family for read in world.reads[outage.start : outage.end] for _, point in read}
        assert not heard if outage.families is None else not heard & set(outage.families)
        after = {point.family for read in world.reads[outage.end : outage.end + DAY] for _, point in read}
        assert after.issuperset(outage.families or ())


def test_bursts_rise_to_a_peak_and_fall(world: World) -> None:
    assert len(world.bursts) > 50
    for burst in world.bursts:
        assert burst.begin <= burst.onset <= burst.peak < burst.over


def test_a_score_depends_on_nothing_that_is_read_later(world: World) -> None:
    cut = DAY
    now = World(world.kinds, (), (), world.newcomer, world.reads[:cut])
    later = World(world.kinds, (), (), world.newcomer, world.reads[: cut + 12])
    assert np.array_equal(trend_score(now).score, trend_score(later).score[:cut])


def test_the_command_prints_json_and_draws(
    report: ScoreReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evals.score, "run", lambda seeds, on_progress: report)
    plot = tmp_path / "plot.svg"
    result = CliRunner().invoke(command, ["run", "score", "--json", "--plot", str(plot)])
    assert [method["method"] for method in json.loads(result.stdout)["methods"]][-1] == "raw"
    lines = ET.fromstring(plot.read_text("utf-8")).findall(".//{*}polyline")  # noqa: S314  (our own)
    assert len(lines) == 2 * len(report.methods)
    text = CliRunner().invoke(command, ["run", "score"]).stdout
    assert "delay 0 h (median)" in text
    assert "never (p90)" in text
