from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evals.tasks.snapshots import as_of
from indexes.publishing import publish
from indexes.retriever import TrendRetriever
from tests.fakes import HashEmbedder, make_trend
from trendrag.errors import NoSnapshot, RequestError
from trendrag.types import TrendFilters

EMBEDDER = HashEmbedder()
DAYS = [datetime(2026, 11, day, 9, tzinfo=UTC) for day in (18, 19, 21)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for day in DAYS:
        seen = make_trend(f"coffee {day:%d}", last_seen=day - timedelta(hours=1))
        publish(tmp_path, [seen], EMBEDDER, origin="live", recorded_at=day, now=day, keep=9)
    return tmp_path


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-11-19", 19),
        ("2026-11-20", 19),  # what people had that day
        ("2026-11-21T08:59", 19),
        ("2026-11-21T09:00:00+00:00", 21),
        ("2026-11-21T10:30+02:00", 19),
        ("2027-01-01", 21),
        ("now", 21),
    ],
)
def test_the_snapshot_is_the_one_that_was_current_then(folder: Path, when: str, day: int) -> None:
    assert as_of(when, folder).name.startswith(f"202611{day}T09")


@pytest.mark.parametrize(("when", "why"), [("2026-11-17", "2026-11-18 09:00 UTC"), ("yesterday", "give a day")])
def test_what_can_t_be_had_is_said(folder: Path, when: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        as_of(when, folder)


def test_where_there_are_none_it_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(NoSnapshot, match="trendrag refresh"):
        as_of("now", tmp_path)


async def test_a_pinned_retriever_answers_as_on_that_day_whatever_is_published_since(folder: Path) -> None:
    def pinned() -> TrendRetriever:
        limits = {"k": 8, "threshold": 0.3, "max_age": timedelta(hours=72)}
        return TrendRetriever(folder, EMBEDDER, pinned=as_of("2026-11-18", folder), **limits)  # type: ignore[arg-type]

    async def asked(retriever: TrendRetriever) -> list[tuple[str, float]]:
        answer = await retriever.retrieve("coffee 18", TrendFilters())
        assert answer.snapshot is not None
        assert answer.snapshot.created_at == DAYS[0]
        return [(hit.trend.phrase, hit.score) for hit in answer.trends]

    retriever = pinned()
    before = await asked(retriever)
    assert [phrase for phrase, _ in before] == ["coffee 18"]  # far older than 72 h by the clock of the test's day
    later = DAYS[-1] + timedelta(days=90)
    publish(folder, [make_trend("coffee 18")], EMBEDDER, origin="live", recorded_at=later, now=later, keep=9)
    assert await asked(retriever) == before
    assert await asked(pinned()) == before
