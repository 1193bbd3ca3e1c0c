"""Tasks on the real Inspect AI, with a model server on loopback that fails in chosen ways."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from evals.tasks.inspecting import Answers, Asked, answers
from evals.tasks.photos import read_photos
from evals.tasks.tagging import TaggingTask
from evals.tasks.trends import TrendsTask
from tests.serving.faulty_server import Fault, FaultyServer, serving
from trendrag.errors import ConfigurationError
from trendrag.settings import ModelSettings, Settings, default_data_dir

TAGS = ('{"tags": ["cup",', ' "spoon"]}')


class FailsAt(FaultyServer):
    """Answers all requests but those of the numbers ``at``, from 0, which it refuses."""

    at: frozenset[int] = frozenset()

    def _fault_now(self) -> Fault:
        return "status" if len(self.requests) - 1 in self.at else "none"


@pytest.fixture(autouse=True)
def inspect_keeps_to_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("INSPECT_CACHE_DIR", "INSPECT_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what a run sets is taken back


def for_server(settings: Settings, server: FaultyServer) -> Settings:
    told = {"provider": "openai", "base_url": server.base_url, "name": "tiny", "api_key": SecretStr("k")}
    return settings.model_copy(update={"model": ModelSettings.model_validate(told)})


async def ask(
    task: TaggingTask | TrendsTask, settings: Settings, *, model: str = "server/tiny", of: str = "one"
) -> Answers:
    home = settings.data_dir / "evals"
    asked = Asked(model=model, scope={"of": of}, answers=home / "answers", logs=home / "logs", seed=1, concurrency=1)
    return await answers(task, asked, settings, lambda done, of: None)


async def test_a_refused_photo_is_a_failed_item_and_the_others_go_on(settings: Settings) -> None:
    async with serving(FailsAt(status=400, words=TAGS, message="no such photo")) as server:
        assert isinstance(server, FailsAt)
        server.at = frozenset({1})
        task = TaggingTask(read_photos(None, None, limit=3))
        found = await ask(task, for_server(settings, server))
    assert [item.error is None for item in found.items] == [True, False, True]
    assert "no such photo" in (found.items[1].error or "")
    items = [task.scored(item, said) for item, said in zip(found.items, found.said, strict=True)]
    assert [item.scores.get("recall") for item in items] == [pytest.approx(2 / 5), None, 0]
    sent = server.requests[0]["messages"][0]["content"]
    assert sent[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "10 words" in sent[1]["text"]


async def test_an_answer_is_paid_for_once_in_what_belongs_together(settings: Settings) -> None:
    async with serving(FaultyServer(words=TAGS)) as server:
        task = TaggingTask(read_photos(None, None, limit=2))
        at_server = for_server(settings, server)
        first = await ask(task, at_server)
        again = await ask(task, at_server)
        assert len(server.requests) == 2
        assert again.kept == 2
        assert again.items == first.items  # the times too: they are those of the answers
        other = await ask(task, at_server, of="another run")
        assert len(server.requests) == 4
        assert other.kept == 0


async def test_the_chain_is_a_model_of_inspects(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.data_dir.mkdir()
    settings.models_dir.symlink_to(default_data_dir() / "models")
    async with serving(FaultyServer()) as server:
        told = {"PROVIDER": "openai", "BASE_URL": server.base_url, "NAME": "tiny"}
        for name, value in told.items():
            monkeypatch.setenv(f"TRENDRAG_MODEL__{name}", value)
        monkeypatch.setenv("TRENDRAG_DATA_DIR", str(settings.data_dir))
        found = await ask(TrendsTask(read_photos(None, None, limit=1)), settings, model="trendrag/tiny")
    on, off = found.items
    assert on.output == off.output == "Morning light, slow coffee."
    assert on.tokens is not None
    assert on.tokens.prompt >= 120
    assert on.first_token_s is not None
    assert on.latency_s is not None
    assert 0 < on.first_token_s <= on.latency_s
    assert found.said[0]["offered"] == {}
    assert {request["seed"] for request in server.requests if "seed" in request} == {8}  # of seed 1, candidate 0


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("nobody/tiny", "server/NAME"),
        ("server/tiny", "TRENDRAG_MODEL__BASE_URL"),
        ("trendrag/tiny", "TRENDRAG_MODEL__PROVIDER=openai"),
    ],
)
async def test_a_model_that_is_none_is_an_error_that_says_so(settings: Settings, model: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await ask(TaggingTask(read_photos(None, None, limit=1)), settings, model=model)
