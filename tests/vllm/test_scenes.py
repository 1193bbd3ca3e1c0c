"""Scenes asked of a real vLLM server."""

import pytest

from ingest.scenes import ChatPen, open_scenes, question
from tests.fakes import make_trend
from tests.vllm.conftest import model_settings
from tests.vllm.server import Vllm
from trendrag.settings import IngestSettings, Settings

pytestmark = pytest.mark.vllm


async def test_the_server_takes_the_schema_and_binds_the_answer(vllm: Vllm, settings: Settings) -> None:
    changes = {"model": model_settings(vllm), "ingest": IngestSettings(scenes="model")}
    async with open_scenes(settings.model_copy(update=changes)) as scenes:
        assert scenes is not None
        assert isinstance(scenes._pen, ChatPen)
        answer = await scenes._pen.write(question(make_trend("cold plunge clubs")))
        # Weights of chance don't end a line of text, but begin one where the schema says so.
        assert answer.startswith('{"scenes":["')
        assert await scenes.of([make_trend("cold plunge clubs")]) == [()]
