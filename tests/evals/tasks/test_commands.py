"""``trendrag evals run`` and what strangers give it: each error says what to do, and nothing is recorded of it."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evals.commands import evals
from evals.record import load, runs_folder, saved
from tests.serving.faulty_server import FaultyServer, serving
from trendrag.errors import TrendragError


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "var"
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(folder))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("INSPECT_CACHE_DIR", "INSPECT_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what a run sets is taken back
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(evals, ["run", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tagging", "--model", "tiny"), "give PROVIDER/NAME, such as server/NAME"),
        (("tagging", "--model", "trendrag"), "server/NAME asks its model"),
        (("tagging", "--model", "openai/gpt-4o", "--limit", "1"), "No OPENAI_API_KEY, AZUREAI_OPENAI_API_KEY"),
        (("tagging", "--model", "server/tiny", "--limit", "1"), "TRENDRAG_MODEL__BASE_URL"),
        (("tagging", "--resume"), "leave out --resume"),
        (("trends", "--model", "server/tiny"), "only the caption chain uses trends"),
        (("trends", "--judge", "trendrag"), "it answers no questions"),
        (("trends", "--as-of", "now"), "trendrag refresh"),
        (("serving",), "Missing option '--url'"),
        (("serving", "--url", "127.0.0.1:8000"), "begins with http://"),
        (("serving", "--url", "http://127.0.0.1:1", "--key-env", "NOBODY_SETS_THIS"), "that variable is not set"),
        (("serving", "--url", "http://127.0.0.1:1/v1", "--model", "tiny", "--requests", "2"), "Is the server up"),
    ],
)
def test_what_can_not_be_run_is_said_with_what_to_do(data: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, TrendragError | SystemExit)
    told = f"{result.output}{result.exception}"
    assert said in " ".join(told.split())
    assert saved(runs_folder(data)) == []


@pytest.mark.parametrize("task", ["tagging", "highlight"])
def test_where_nothing_can_be_kept_it_says_so(data: Path, task: str) -> None:
    data.mkdir()
    (data / "evals").write_text("a file, where a folder should be")
    result = run(task)
    assert "set TRENDRAG_DATA_DIR to a folder that can be written" in str(result.exception)
    assert isinstance(result.exception, TrendragError)


@pytest.mark.parametrize(
    ("loop", "task", "label"),
    [(("--clients", "2"), "serving closed", "2 clients"), (("--rate", "50"), "serving open", "50 requests/s")],
)
async def test_the_two_loops_are_tasks_of_their_own(data: Path, loop: tuple[str, str], task: str, label: str) -> None:
    async with serving(FaultyServer()) as server:
        options = ("--url", server.base_url, "--model", "tiny", "--requests", "4", "--json")
        result = await asyncio.to_thread(run, "serving", *options, *loop)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["run"]
    assert (told["task"], told["label"]) == (task, label)
    assert [load(name, runs_folder(data)).run.id for name in saved(runs_folder(data))] == [told["id"]]
