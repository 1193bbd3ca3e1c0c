"""The load generator against real servers on loopback."""

import asyncio
import json
import random
from dataclasses import replace

import pytest

from evals.tasks.photos import read_photos
from evals.tasks.serving import Load, Measured, measure
from serving.service import open_service
from tests.serving.faulty_server import Fault, FaultyServer, serving
from tests.serving.running import settings_for, the_app
from trendrag.settings import Settings

LOAD = Load(
    url="", api="openai", model="tiny", key="k", requests=6, clients=2, rate=None, timeout_s=60, seed=1
)  # fmt: skip


async def against(server: FaultyServer, settings: Settings, load: Load = LOAD) -> Measured:
    photos = read_photos(None, None, limit=2)
    return await measure(replace(load, url=server.base_url), photos, settings.image)


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_every_request_is_sent_once_with_a_photo_of_its_own(settings: Settings, rate: float | None) -> None:
    async with serving(FaultyServer()) as server:
        found = await against(server, settings, replace(LOAD, rate=rate))
    assert [item.id for item in found.items] == [f"{number:05d}" for number in range(6)]
    assert len({json.dumps(request["messages"]) for request in server.requests}) == 6
    assert {item.output for item in found.items} == {"Morning light, slow coffee."}
    for item in found.items:
        assert item.first_token_s is not None
        assert item.latency_s is not None
        assert 0 < item.first_token_s <= item.latency_s
        assert item.tokens is not None
        assert item.tokens.completion == 5
    assert found.figures["requests/s"] == pytest.approx(6 / found.figures["seconds"])
    assert server.headers[0]["authorization"] == "bearer k"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("status", "HTTP 500: "),
        ("drop", "Error"),
        ("end_early", "broke off"),
        ("error_event", ""),
        ("malformed", "Error"),
        ("closed", "Error"),
        ("empty", "no text"),
    ],
)
async def test_what_is_no_whole_answer_is_a_failure(settings: Settings, fault: Fault, why: str) -> None:
    async with serving(FaultyServer(fault=fault)) as server:
        found = await against(server, settings)
    assert len(found.items) == 6
    assert all(why in (item.error or "nothing") for item in found.items)
    assert {item.scores["failed"] for item in found.items} == {1.0}
    assert found.figures["requests/s"] == 0


async def test_a_server_that_is_silent_runs_into_the_time_limit(settings: Settings) -> None:
    async with serving(FaultyServer(fault="hang")) as server:
        found = await against(server, settings, replace(LOAD, requests=2, timeout_s=0.5))
    assert all("0.5 s" in (item.error or "") or "Timeout" in (item.error or "") for item in found.items)


async def test_in_the_open_loop_requests_are_sent_when_they_are_due_whoever_is_still_waited_for(
    settings: Settings,
) -> None:
    """The server answers nobody before all six have asked: a loop that waited for one would never end."""

    class Together(FaultyServer):
        async def _chat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert self.next_word is not None
            if len(self.requests) == LOAD.requests:
                self.next_word.set()
            await super()._chat(reader, writer)

    async with serving(Together(fault="held", next_word=asyncio.Event())) as server:
        found = await against(server, settings, replace(LOAD, rate=100.0))
    assert [item.error for item in found.items] == [None] * 6
    gaps = random.Random(LOAD.seed)  # noqa: S311 - arrivals, no secrets
    until_the_last = sum(gaps.expovariate(100.0) for _ in range(LOAD.requests - 1))
    assert (found.items[0].first_token_s or 0.0) >= until_the_last  # nobody was answered before


async def test_our_own_server_is_read_as_well(settings: Settings) -> None:
    async with serving(FaultyServer()) as model:
        own = settings_for(settings, model.base_url)
        async with open_service(own) as service, the_app(own, service) as url:
            load = replace(LOAD, url=url, api="trendrag", model=None, key=None, requests=3)
            found = await measure(load, read_photos(None, None, limit=1), settings.image)
            wrong = await measure(replace(load, url=f"{url}/nowhere"), read_photos(None, None, limit=1), settings.image)
    assert [item.error for item in found.items] == [None] * 3
    assert {item.output for item in found.items} == {"Morning light, slow coffee."}
    assert all(item.tokens and item.tokens.completion >= 5 for item in found.items)
    assert all((item.error or "").startswith("HTTP 404") for item in wrong.items)
