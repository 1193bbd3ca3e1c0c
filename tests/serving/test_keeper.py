"""Captions are kept beside the answers: the database may be slow, full of old ones, or away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from serving.http.schemas import CaptionAnswer, CaptionsAnswer
from serving.records.history import History
from serving.records.keeper import MAX_WAITING, RETRY_S, Keeper
from serving.records.thumbnail import thumbnail
from serving.store.database import Database
from serving.store.housekeeping import EVERY_S, FIRST_S, housekeeping
from tests.databases import SERVER, database_of
from tests.fakes import IMAGE, NOW
from tests.proxy import Proxy
from tests.serving.owners import captioned, opened
from tests.serving.test_history import HISTORY, entry, page, refused, said
from tests.serving.test_http_captions import body
from tests.serving.test_http_wire import ends
from trendrag.errors import StorageError
from trendrag.settings import HistorySettings, ServerSettings, Settings
from trendrag.types import CaptionRequest, Timings, Usage

ASKED = CaptionRequest(image=IMAGE, note="first snow")
ANSWER = CaptionsAnswer(
    captions=[
        CaptionAnswer(
            candidate=0,
            text="A caption.",
            confidence=None,
            highlights=[],
            trends=[],
            cut=False,
            missing=[],
            unwanted=[],
            degraded=False,
        )
    ],
    failed=[],
    snapshot_age_s=None,
    degraded=False,
    description="",
    retrieved=[],
    reason=None,
    judged=None,
    snapshot=None,
    model="fake",
    draft=False,
    usage=Usage(),
    timings=Timings(total=1),
)


@dataclass
class Pauses:
    """Lasts as long as the test says: ``begun`` when there is one of so many seconds, ``over`` to end it."""

    of: float = RETRY_S
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seconds: float) -> None:
        if seconds != self.of:
            await asyncio.Event().wait()
        self.begun.set()
        await self.over.wait()


def status(keeper: Keeper) -> str:
    return keeper.status  # by a call, for mypy takes what a property said for what it says


@asynccontextmanager
async def keeping(
    settings: Settings, outcomes: list[str], pauses: Pauses, now: datetime = NOW, **kept: float
) -> AsyncIterator[tuple[Keeper, History]]:
    database = Database.of(settings)
    history = History(database)
    with ThreadPoolExecutor(1) as pool:
        rules = HistorySettings.model_validate(kept)
        try:
            yield Keeper(history, rules, pool, lambda: now, outcomes.append, pauses), history
        finally:
            await database.aclose()


@ends
async def test_while_the_database_is_away_captions_wait_and_are_kept_when_it_is_back(settings: Settings) -> None:
    settings.service_database_path.mkdir(parents=True)  # no file can be opened there
    outcomes: list[str] = []
    pauses = Pauses()
    async with keeping(settings, outcomes, pauses) as (keeper, history), keeper.running():
        assert status(keeper) == "on"
        for number in range(3):
            keeper.keep(f"{number:032x}", "one", ASKED, ANSWER)
        await pauses.begun.wait()
        assert status(keeper) == "unavailable"
        await keeper.settled("one")  # does not wait
        with pytest.raises(StorageError):
            await history.page("one", 9)
        settings.service_database_path.rmdir()
        pauses.over.set()
        await keeper._queue.join()
        assert status(keeper) == "on"
        assert len(await history.page("one", 9)) == 3
    assert outcomes == ["kept"] * 3


async def test_what_does_not_fit_into_the_queue_is_lost_and_said_to_be(settings: Settings) -> None:
    outcomes: list[str] = []
    async with keeping(settings, outcomes, Pauses()) as (keeper, history):
        for number in range(MAX_WAITING):
            assert status(keeper) == "on"
            keeper.keep(f"{number:032x}", "one", ASKED, ANSWER)
        assert status(keeper) == "unavailable"
        keeper.keep("f" * 32, "one", ASKED, ANSWER)
        assert outcomes == ["lost"]
        async with keeper.running():  # all that wait are written before the end
            pass
        assert len(await history.page("one", 200)) == MAX_WAITING
    assert outcomes == ["lost", *["kept"] * MAX_WAITING]


async def test_who_asks_at_once_waits_until_his_own_are_written(settings: Settings) -> None:
    async with keeping(settings, [], Pauses()) as (keeper, history), keeper.running():
        for number in range(5):
            keeper.keep(f"{number:032x}", "one", ASKED, ANSWER)
            await keeper.settled("one")
            assert keeper._unsettled == {}
            assert len(await history.page("one", 9)) == number + 1


async def test_a_caption_that_the_database_refuses_stops_no_other(settings: Settings) -> None:
    outcomes: list[str] = []
    async with keeping(settings, outcomes, Pauses()) as (keeper, history):
        for number in (1, 2, 2, 3):
            keeper.keep(f"{number:032x}", "one", ASKED, ANSWER)
        async with keeper.running():
            pass
        assert {found.id for found in await history.page("one", 9)} == {f"{number:032x}" for number in (1, 2, 3)}
    assert sorted(outcomes) == ["kept", "kept", "kept", "lost"]


async def test_a_caption_without_a_picture_that_can_be_made_small_is_kept_without(settings: Settings) -> None:
    async with keeping(settings, [], Pauses()) as (keeper, history):
        async with keeper.running():
            keeper.keep("1" * 32, "one", ASKED, ANSWER)
            await keeper.settled("one")
            (found,) = await history.page("one", 9)
        assert not found.has_thumbnail
    assert thumbnail(b"") is None


async def test_what_is_old_or_too_much_is_removed_whosever_it_is(service_settings: Settings) -> None:
    day = 86_400
    ages: dict[str, list[float]] = {"gone": [95, 91, 90.5], "many": [40, 30, 20, 10, 5], "few": [89, 1]}
    entries = [
        entry(number, -int(age * day), owner)
        for number, (owner, age) in enumerate((owner, age) for owner, each in ages.items() for age in each)
    ]
    async with keeping(service_settings, [], Pauses(), keep_days=90, max_per_owner=3) as (keeper, history):
        await history.add(entries)
        while await keeper.prune(NOW):
            pass
        left = {owner: [found.created_at for found in await history.page(owner, 9)] for owner in ages}
    assert left == {
        "gone": [],
        "many": [NOW - timedelta(days=age) for age in (5, 10, 20)],
        "few": [NOW - timedelta(days=age) for age in (1, 89)],
    }


async def test_pruning_goes_on_batch_by_batch_until_nothing_is_left_to_remove(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.records.keeper.PRUNED_AT_ONCE", 2)
    async with keeping(settings, [], Pauses(), max_per_owner=1) as (keeper, history):
        await history.add([entry(number, -number, owner) for number, owner in enumerate(["a"] * 6 + ["b"] * 5)])
        while await keeper.prune(NOW):
            pass
        assert [len(await history.page(owner, 9)) for owner in "ab"] == [1, 1]


@ends
async def test_old_captions_go_without_anybody_coming_back(settings: Settings) -> None:
    pauses = Pauses(of=FIRST_S)
    async with keeping(settings, [], Pauses()) as (keeper, history):
        await history.add([entry(1, 0)])
        async with housekeeping([keeper.prune], lambda: NOW + timedelta(days=91), pauses):
            await pauses.begun.wait()
            pauses.begun.clear()
            pauses.of = EVERY_S  # the next one, after it was done
            pauses.over.set()
            await pauses.begun.wait()
        assert await history.page("one", 9) == []


def test_captions_are_answered_and_say_so_where_there_is_no_database(settings: Settings) -> None:
    away = ServerSettings(database_url=SecretStr("postgresql://me:s3cret@127.0.0.1:1/db"))
    with opened(settings.model_copy(update={"server": away})) as client:
        first = client.post("/api/v1/caption", json=body())
        answer = client.get(HISTORY)  # by then the first was tried
        refused(answer, 503, "storage_unavailable")
        assert answer.headers["retry-after"]
        assert "s3cret" not in answer.text
        second = client.post("/api/v1/caption", json=body())
        stream = client.post("/api/v1/caption/stream", json=body())
    assert (first.status_code, second.status_code, stream.status_code) == (200, 200, 200)
    assert second.json()["history"] == second.headers["x-history"] == stream.headers["x-history"] == "unavailable"
    assert second.json()["captions"][0]["text"] == "My pumpkin spice latte."


@contextmanager
def postgresql(data_dir: Path) -> Iterator[tuple[Settings, Proxy]]:
    """A new, empty database, and the way to it."""
    server = make_url(SERVER)
    with (
        Proxy((server.host or "127.0.0.1", server.port or 5432)).running() as proxy,
        database_of("postgresql", Settings(data_dir=data_dir)) as direct,
    ):
        assert direct.server.database_url
        through = make_url(direct.server.database_url.get_secret_value()).set(host="127.0.0.1", port=proxy.port)
        url = SecretStr(through.render_as_string(False))
        yield direct.model_copy(update={"server": direct.server.model_copy(update={"database_url": url})}), proxy


@pytest.mark.services
def test_postgresql_that_is_silent_holds_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.store.database.TRANSACTION_S", 0.5)
    with postgresql(tmp_path) as (settings, proxy), opened(settings) as client:
        made = [captioned(client)]
        assert len(page(client)) == 1
        proxy.freeze()
        refused(client.get(HISTORY), 503, "storage_unavailable")
        made.append(captioned(client))
        proxy.mend()
        while len(found := page(client)) < 2:  # until the keeper's next try
            pass
        assert [each["id"] for each in found] == made[::-1]


@pytest.mark.services
def test_postgresql_goes_away_and_comes_back(tmp_path: Path) -> None:
    with postgresql(tmp_path) as (settings, proxy), opened(settings) as client:
        made = [captioned(client)]
        assert len(page(client)) == 1
        proxy.cut()
        made.append(captioned(client))
        refused(client.get(HISTORY), 503, "storage_unavailable")
        refused(client.put(f"{HISTORY}/{made[0]}/candidates/0/favourite"), 503, "storage_unavailable")
        refused(client.get("/api/v1/feedback/export"), 503, "storage_unavailable")
        answer = said(client.post("/api/v1/caption", json=body()))
        assert answer["history"] == "unavailable"
        made.append(answer["id"])
        proxy.mend()
        while len(found := page(client)) < 3:  # until the keeper's next try
            pass
        assert [each["id"] for each in found] == made[::-1]
        assert said(client.post("/api/v1/caption", json=body()))["history"] == "on"
