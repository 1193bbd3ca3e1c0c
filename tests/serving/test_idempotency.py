"""A claim is one caller's at a time, an answer stays for a day, and nobody is answered with another's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest

from serving.store.database import Database
from serving.store.idempotency import KEEP, Idempotency, Kept, UnderWay
from tests.fakes import NOW
from tests.serving.conftest import Serve
from tests.serving.fakes import FakeService, GatedWriter
from tests.serving.test_http_captions import body
from trendrag.errors import KeyReused
from trendrag.settings import Settings

SOON = NOW + timedelta(seconds=30)
ANSWER = Kept(200, "application/json", b'{"status":"success"}', {"x-caption-id": "a1"})


@pytest.fixture
async def remembered(service_settings: Settings) -> AsyncIterator[Idempotency]:
    database = Database.of(service_settings)
    yield Idempotency(database)
    await database.aclose()


async def test_the_first_answers_and_the_others_get_its_answer(remembered: Idempotency) -> None:
    assert await remembered.claim("me", "k", "f", NOW, SOON) is None
    assert await remembered.claim("me", "k", "f", NOW, SOON) == UnderWay()
    await remembered.keep("me", "k", ANSWER)
    assert await remembered.claim("me", "k", "f", SOON + timedelta(hours=1), SOON) == ANSWER


async def test_of_many_at_once_one_is_the_first(remembered: Idempotency) -> None:
    claims = await asyncio.gather(*(remembered.claim("me", "k", "f", NOW, SOON) for _ in range(8)))
    assert sorted(claims, key=str) == sorted([None, *[UnderWay()] * 7], key=str)


async def test_another_request_or_owner(remembered: Idempotency) -> None:
    await remembered.claim("me", "k", "f", NOW, SOON)
    await remembered.keep("me", "k", ANSWER)
    with pytest.raises(KeyReused):
        await remembered.claim("me", "k", "g", NOW, SOON)
    assert await remembered.claim("you", "k", "g", NOW, SOON) is None


async def test_who_goes_without_a_word_or_gives_up_is_followed_by_the_next(remembered: Idempotency) -> None:
    await remembered.claim("me", "k", "f", NOW, SOON)
    await remembered.renew("me", "k", SOON + timedelta(seconds=30))
    assert await remembered.claim("me", "k", "f", SOON + timedelta(seconds=1), SOON) == UnderWay()
    late = SOON + timedelta(minutes=1)
    assert await remembered.claim("me", "k", "f", late, late) is None
    await remembered.give_up("me", "k")
    assert await remembered.claim("me", "k", "other", late, late) is None


async def test_an_answer_stays_for_a_day(remembered: Idempotency) -> None:
    for key in ("old", "new"):
        at = NOW if key == "old" else NOW + timedelta(minutes=1)
        await remembered.claim("me", key, "f", at, SOON)
        await remembered.keep("me", key, ANSWER)
    after = NOW + KEEP + timedelta(seconds=1)
    assert await remembered.prune(after) == 1
    assert await remembered.prune(after) == 0
    assert await remembered.claim("me", "new", "f", after, after) == ANSWER
    assert await remembered.claim("me", "new", "g", after + KEEP, after) is None


@pytest.mark.parametrize("path", ["/api/v1/caption", "/api/v1/caption/stream"])
async def test_who_asks_again_while_the_first_is_answered_is_told_to_wait(serve: Serve, path: str) -> None:
    writer = GatedWriter()
    port = serve(FakeService(writer))
    origin, key = f"http://127.0.0.1:{port}", {"Idempotency-Key": "k"}
    async with httpx2.AsyncClient(base_url=origin, headers=key, timeout=60) as client:
        first = asyncio.create_task(client.post(path, json=body()))
        await writer.begun.wait()
        second = await client.post(path, json=body())
        assert (second.status_code, second.json()["code"]) == (409, "in_progress")
        assert int(second.headers["retry-after"]) > 0
        writer.gate.set()
        answer = await first
        again = await client.post(path, json=body())
    assert (answer.status_code, again.status_code, again.content) == (200, 200, answer.content)
