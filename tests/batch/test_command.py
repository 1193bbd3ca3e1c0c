"""What the command says: the plan, wrong usage, and how a run goes."""

from click.testing import CliRunner

from serving.batch.commands import GPU_NAMES, batch
from serving.batch.display import Display, cost
from serving.batch.engine import Progress
from serving.batch.plan import GPUS, duration, plan
from serving.batch.run import Watched
from trendrag.settings import BatchSettings
from trendrag.types import Usage


def test_the_plan_is_rows_by_rate_and_states_what_it_assumes() -> None:
    assert tuple(gpu.name for gpu in GPUS) == GPU_NAMES
    made = plan(36_000, GPUS[1], gpus=2, price=2.0, rate=5.0)
    assert made.hours == (1.0, 1.0)
    assert made.cost == (4.0, 4.0)
    assert [duration(hours) for hours in (0.01, 0.5, 3.44, 96)] == ["36 s", "30 min", "3.4 h", "4.0 d"]
    said = CliRunner().invoke(batch, ["--plan", "1000000", "--gpu", "A100", "--gpus", "4", "--gpu-price", "1"])
    assert said.exit_code == 0
    assert "4 × A100" in said.output
    assert "H100" not in said.output
    assert "vLLM 0.7.2" in said.output


def test_wrong_usage_is_told() -> None:
    for arguments in ([], ["in.jsonl"], ["in.jsonl", "out.jsonl", "--engine", "spark"]):
        assert CliRunner().invoke(batch, arguments).exit_code == 2


class _Half:
    read = 0.5

    def lines(self) -> None: ...


def test_progress_tells_rate_time_to_go_failures_and_cost() -> None:
    prices = BatchSettings(prompt_price=1.0, completion_price=2.0)
    progress = Progress(selected=1_000, done=0)
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=250_000)
    watched = Watched(progress, _Half(), lambda: usage, None)  # type: ignore[arg-type]  # it reads no lines
    display = Display(None, prices)  # type: ignore[arg-type]  # it draws nothing here
    display.line(watched, 100.0)
    progress.done, progress.failed = 290, 10
    assert display.line(watched, 130.0) == "290 of 2,000 captions, 10 failed, 10.0/s, 3 min to go, cost 1.50"
    assert cost(usage, BatchSettings()) is None
