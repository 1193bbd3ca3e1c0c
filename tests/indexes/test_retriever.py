from datetime import datetime, timedelta
from pathlib import Path

import pytest

from indexes.publishing import publish
from indexes.retriever import TrendRetriever
from tests.fakes import NOW, HashEmbedder, make_trend
from trendrag.types import Origin, Trend, TrendFilters

EMBEDDER = HashEmbedder()
ALL = TrendFilters()


def publish_trends(directory: Path, *trends: Trend, origin: Origin = "live", now: datetime = NOW) -> str:
    return publish(directory, trends, EMBEDDER, origin=origin, recorded_at=NOW, now=now, keep=5).id


def open_retriever(directory: Path, *, now: datetime = NOW, k: int = 8, threshold: float = 0.3) -> TrendRetriever:
    return TrendRetriever(directory, EMBEDDER, k=k, threshold=threshold, max_age=timedelta(hours=72), now=lambda: now)


async def test_what_fits_is_found_best_first_and_the_rest_is_left_out(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("coffee mug"), make_trend("coffee cup"), make_trend("world cricket final"))
    answer = await open_retriever(tmp_path).retrieve("coffee cup", ALL)
    assert [hit.trend.phrase for hit in answer.trends] == ["coffee cup", "coffee mug"]
    assert answer.trends[0].similarity == pytest.approx(1, abs=1e-5)
    assert answer.reason is None


async def test_no_trend_is_an_answer_with_a_reason(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("world cricket final"))
    answer = await open_retriever(tmp_path).retrieve("coffee cup", ALL)
    assert answer.trends == ()
    assert answer.reason == "No trend fits this photo."
    assert answer.snapshot is not None


async def test_of_equal_fits_the_hotter_comes_first(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("coffee one", score=0.1), make_trend("coffee two", score=0.9))
    answer = await open_retriever(tmp_path).retrieve("coffee", ALL)
    assert [hit.trend.phrase for hit in answer.trends] == ["coffee two", "coffee one"]


async def test_trends_that_say_the_same_are_offered_once(tmp_path: Path) -> None:
    publish_trends(
        tmp_path,
        make_trend("morning coffee cup", score=0.9),
        make_trend("coffee cup morning", score=0.1),
        make_trend("coffee mug", aliases=("#flatwhite",)),
        make_trend("coffee beans", aliases=("Flat White",), score=0.1),
    )
    answer = await open_retriever(tmp_path).retrieve("coffee", ALL)
    assert {hit.trend.phrase for hit in answer.trends} == {"morning coffee cup", "coffee mug"}


async def test_scenes_are_found_by_and_shown_to_nobody(tmp_path: Path) -> None:
    club = make_trend("cold plunge clubs", scenes=("steam over a frozen lake",))
    publish_trends(tmp_path, club, make_trend("world cricket final"))
    (hit,) = (await open_retriever(tmp_path).retrieve("steam over a frozen lake", ALL)).trends
    assert hit.trend == make_trend("cold plunge clubs")
    assert "scenes" not in hit.model_dump_json()
    assert (await open_retriever(tmp_path).retrieve("cold plunge clubs", ALL)).trends[0].similarity > hit.similarity


async def test_trends_with_one_scene_are_not_the_same_trend(tmp_path: Path) -> None:
    scenes = ("steam over a frozen lake",)
    publish_trends(tmp_path, make_trend("cold plunge", scenes=scenes), make_trend("winter fog", scenes=scenes))
    assert len((await open_retriever(tmp_path).retrieve("steam over a frozen lake", ALL)).trends) == 2


async def test_of_equal_fits_the_fresher_comes_first(tmp_path: Path) -> None:
    old = make_trend("coffee one", last_seen=NOW - timedelta(hours=60), first_seen=NOW - timedelta(hours=60))
    publish_trends(tmp_path, old, make_trend("coffee two"))
    answer = await open_retriever(tmp_path).retrieve("coffee", ALL)
    assert [hit.trend.phrase for hit in answer.trends] == ["coffee two", "coffee one"]


async def test_at_most_k(tmp_path: Path) -> None:
    publish_trends(tmp_path, *(make_trend(f"coffee {i}") for i in range(10)))
    assert len((await open_retriever(tmp_path, k=3).retrieve("coffee", ALL)).trends) == 3
    for k in (1, 5):  # a request's own
        assert len((await open_retriever(tmp_path, k=3).retrieve("coffee", TrendFilters(k=k))).trends) == k


async def test_of_equals_the_first_by_id_is_offered_however_many_there_are(tmp_path: Path) -> None:
    publish_trends(tmp_path, *(make_trend("coffee", id=f"id-{number}") for number in reversed(range(10))))
    answer = await open_retriever(tmp_path, k=1).retrieve("coffee", ALL)
    assert [hit.trend.id for hit in answer.trends] == ["id-0"]


@pytest.mark.parametrize(
    ("filters", "phrases"),
    [
        (TrendFilters(region="US"), {"coffee us", "coffee anywhere"}),
        (TrendFilters(language="de"), {"coffee de", "coffee anywhere"}),
        (TrendFilters(categories=("food",)), {"coffee us"}),
        (TrendFilters(region="FR", categories=("food",)), set()),
    ],
)
async def test_filters(tmp_path: Path, filters: TrendFilters, phrases: set[str]) -> None:
    publish_trends(
        tmp_path,
        make_trend("coffee us", region="US", language="en", categories=("food",)),
        make_trend("coffee de", region="DE", language="de"),
        make_trend("coffee anywhere"),
    )
    answer = await open_retriever(tmp_path).retrieve("coffee", filters)
    assert {hit.trend.phrase for hit in answer.trends} == phrases
    assert (answer.reason is None) == bool(phrases)


async def test_live_trends_that_have_grown_old_are_not_offered_as_current(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("coffee"))
    answer = await open_retriever(tmp_path, now=NOW + timedelta(days=30)).retrieve("coffee", ALL)
    assert answer.trends == ()
    assert answer.reason is not None
    assert "trendrag refresh" in answer.reason


async def test_a_sample_is_offered_as_the_sample_it_is(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("coffee"), origin="sample")
    answer = await open_retriever(tmp_path, now=NOW + timedelta(days=300)).retrieve("coffee", ALL)
    assert answer.trends
    assert answer.snapshot is not None
    assert answer.snapshot.label == "sample trends, recorded 2026-11-20"


async def test_no_snapshot_yet_is_a_reason_not_an_error(tmp_path: Path) -> None:
    retriever = open_retriever(tmp_path)
    answer = await retriever.retrieve("coffee", ALL)
    assert answer.snapshot is None
    assert answer.reason is not None
    assert "trendrag refresh" in answer.reason


async def test_an_empty_query_finds_nothing(tmp_path: Path) -> None:
    publish_trends(tmp_path, make_trend("coffee"))
    assert (await open_retriever(tmp_path).retrieve("  ", ALL)).trends == ()


async def test_a_new_snapshot_takes_over_and_a_damaged_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.retriever.POLL_SECONDS", 0.0)
    retriever = open_retriever(tmp_path)
    first = publish_trends(tmp_path, make_trend("coffee"))
    assert (await retriever.retrieve("coffee", ALL)).trends[0].trend.phrase == "coffee"

    publish_trends(tmp_path, make_trend("coffee beans"), now=NOW + timedelta(hours=1))
    await retriever.follow()
    await retriever.aclose()
    assert (await retriever.retrieve("coffee beans", ALL)).trends[0].trend.phrase == "coffee beans"

    bad = publish_trends(tmp_path, make_trend("tea"), now=NOW + timedelta(hours=2))
    for name in (bad, first):
        (tmp_path / name / "rows.npy").write_bytes(b"")
    await retriever.follow()
    await retriever.aclose()
    answer = await retriever.retrieve("coffee beans", ALL)
    assert answer.trends[0].trend.phrase == "coffee beans"
    assert answer.snapshot is not None
    assert answer.snapshot.warning is not None
    assert bad in answer.snapshot.warning
