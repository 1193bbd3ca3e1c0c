"""A caption at DEBUG, through the real HTTP client and model library: what its log says, and what it does not."""

import logging

import httpx2
import pytest

from serving.service import open_service
from tests.serving.conftest import LogLines
from tests.serving.faulty_server import WORDS, Fault, FaultyServer, serving
from tests.serving.running import KEY, asked_for, settings_for, the_app
from trendrag.settings import Settings

NOTE = "grandmother's secret recipe for plum dumplings"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings_for(settings, "http://127.0.0.1:9/v1")


@pytest.mark.parametrize("fault", ["none", "status", "drop", "malformed", "error_event"])
async def test_no_key_note_image_or_caption_is_in_the_log(
    settings: Settings, log_lines: LogLines, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chatty in ("openai", "httpx2", "httpcore2", "langchain", "asyncio", "PIL"):
        monkeypatch.setattr(logging.getLogger(chatty), "level", logging.NOTSET)  # put back afterwards
        logging.getLogger(chatty).setLevel(logging.DEBUG)  # as OPENAI_LOG=debug does
    # A server that quotes what it refuses, as vLLM does.
    async with serving(FaultyServer(fault, message=f"can't read {NOTE!r}")) as model:
        settings = settings_for(settings, model.base_url)
        async with open_service(settings) as service, the_app(settings, service) as base_url:
            body = asked_for(NOTE)
            async with httpx2.AsyncClient(timeout=60) as client:
                for path in ("caption", "caption/stream"):
                    await client.post(
                        f"{base_url}/api/v1/{path}",
                        json=body,
                        headers={"X-API-Key": "caller-key-12345", "Authorization": "Bearer caller-key-12345"},
                    )
    lines = log_lines()
    told = [line for line in lines if line["message"].startswith("caption:")]
    assert [line["outcome"] == "done" for line in told] == [fault == "none"] * 2
    assert len({line["request_id"] for line in told}) == 2
    heard = {line["logger"].partition(".")[0] for line in lines}
    assert heard <= {"serving", "trendrag", "indexes", "uvicorn"}, "libraries print at DEBUG what they like"
    log = repr(lines)
    image = str(body["image"])
    for secret in (KEY, "caller-key-12345", "recipe", "dumplings", image[:60], image[1000:1060], *WORDS):
        assert secret.strip() not in log


async def test_probes_are_told_only_at_debug(settings: Settings, log_lines: LogLines) -> None:
    async with (
        open_service(settings) as service,
        the_app(settings, service) as base_url,
        httpx2.AsyncClient(timeout=60) as client,
    ):
        await client.get(f"{base_url}/healthz")
        await client.get(f"{base_url}/nothing", headers={"X-Request-ID": "r-1"})
    requests = {line["route"]: line for line in log_lines() if "route" in line}
    assert requests["/healthz"]["level"] == "debug"
    assert requests["unmatched"]["level"] == "info"
    assert (requests["unmatched"]["request_id"], requests["unmatched"]["status"]) == ("r-1", 404)
