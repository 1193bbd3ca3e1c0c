"""Looking through a snapshot gives what reading all of its trends would."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexes import snapshot as module
from indexes.lexical import words
from indexes.listing import Listing, Place
from indexes.manifest import current_id
from indexes.segments import key_of, rated
from indexes.snapshot import open_newest
from indexes.table import passes
from indexes.withheld import WITHHELD_FILE
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.test_retriever import open_retriever, publish_trends
from tests.indexes.test_segments import follow, worlds
from tests.indexes.test_withheld import HELD, published
from trendrag.errors import NoSnapshot
from trendrag.types import Evidence, Stage, Trend, TrendFilters

EMBEDDER = HashEmbedder()
NOTHING = TrendFilters()


def listing_of(directory: Path) -> Listing:
    snapshot = open_newest(directory, EMBEDDER)
    return Listing.of(snapshot, directory / snapshot.info.id)


def plain(
    trends: Sequence[Trend], filters: TrendFilters = NOTHING, stage: Stage | None = None, text: str = ""
) -> list[Trend]:
    """Those that pass, the strongest first."""

    def says(trend: Trend) -> bool:
        own = words(" ".join((trend.phrase, *trend.aliases, trend.summary)))
        return not text or (bool(words(text)) and all(word in own for word in words(text)))

    found = [each for each in trends if passes(each, filters) and stage in (None, each.stage) and says(each)]
    return sorted(found, key=lambda trend: (-trend.score, key_of(trend.id)))


def walk(listing: Listing, limit: int, **asked: object) -> list[Trend]:
    found: list[Trend] = []
    after: Place | None = None
    while True:
        page = listing.page(limit, after, **asked)  # type: ignore[arg-type]
        found += page.trends
        after = page.next
        if after is None:
            assert len(found) == page.passing
            return found
        assert len(page.trends) == limit


@given(worlds(), st.sampled_from(["", "latte", "in the park", "art NIGHT", "the", "%"]), st.integers(1, 4))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_pages_are_what_reading_everything_gives(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Trend]], text: str, limit: int
) -> None:
    directory = tmp_path_factory.mktemp("snapshots")
    for hour, trends in enumerate(rounds):
        follow(directory, trends, hours=hour)
    listing = listing_of(directory)
    stages: tuple[Stage | None, ...] = (None, "rising", "fading", "peaking")
    for stage in stages:
        assert walk(listing, limit, stage=stage, text=text) == plain(rounds[-1], stage=stage, text=text)
    assert [each.trends for each in listing.sources()] == [len(rounds[-1])] * bool(rounds[-1])
    for trend in rounds[-1]:
        assert listing.find(trend.id) == trend
    gone = {trend.id for trends in rounds for trend in trends} - {trend.id for trend in rounds[-1]}
    assert all(listing.find(each) is None for each in gone)


def test_filters_are_those_of_retrieval(tmp_path: Path) -> None:
    trends = [
        make_trend(f"{region} {language} {category}", region=region, language=language, categories=(category,))
        for region in ("US", "GB", None)
        for language in ("en", "de", "und")
        for category in ("food", "sport")
    ]
    publish_trends(tmp_path, *trends)
    listing = listing_of(tmp_path)
    for filters in (
        TrendFilters(region="US"),
        TrendFilters(language="de"),
        TrendFilters(categories=("food", "art")),
        TrendFilters(region="GB", language="en", categories=("sport",)),
        TrendFilters(region="JP", categories=("art",)),
    ):
        assert walk(listing, 4, filters=filters) == plain(trends, filters)


def test_a_page_goes_on_in_the_next_snapshot_where_it_ended_in_this_one(tmp_path: Path) -> None:
    trends = [make_trend(f"topic {number}", score=number / 10) for number in range(9)]
    publish_trends(tmp_path, *trends)
    after = listing_of(tmp_path).page(3).next  # 0.8, 0.7, 0.6
    publish_trends(tmp_path, *trends[:4], make_trend("new", score=0.35), now=NOW + timedelta(hours=1))
    page = listing_of(tmp_path).page(3, after)
    assert [trend.phrase for trend in page.trends] == ["new", "topic 3", "topic 2"]


def test_only_what_is_shown_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_trends(tmp_path, *[make_trend(f"topic {number}", score=number / 100) for number in range(100)])
    decoded: list[object] = []

    def counting(line: bytes, row: object) -> Trend:
        decoded.append(row)
        return rated(line, row)

    monkeypatch.setattr(module, "rated", counting)
    listing = listing_of(tmp_path)
    assert len(listing.page(5, text="topic").trends) == 5
    assert listing.find(make_trend("topic 7").id)
    assert len(decoded) == 6


def test_scenes_are_shown_to_nobody(tmp_path: Path) -> None:
    club = make_trend("cold plunge clubs", scenes=("steam over a frozen lake",))
    publish_trends(tmp_path, club)
    listing = listing_of(tmp_path)
    found = listing.find(club.id)
    assert found
    assert found.scenes == listing.page(1).trends[0].scenes == ()


async def test_the_retriever_lists_what_it_uses_and_follows_refreshes(tmp_path: Path) -> None:
    retriever = open_retriever(tmp_path)
    with pytest.raises(NoSnapshot, match="trendrag refresh"):
        await retriever.listing()
    publish_trends(tmp_path, make_trend("one"))
    retriever.load()
    first = await retriever.listing()
    assert first.info.id == current_id(tmp_path)
    assert await retriever.listing() is first
    publish_trends(tmp_path, make_trend("two"), now=NOW + timedelta(hours=1))
    retriever.load()
    second = await retriever.listing()
    assert [trend.phrase for trend in second.page(9).trends] == ["two"]
    assert first.page(9).trends[0].phrase == "one"  # who still reads it


def test_sources_are_counted_and_their_newest_piece_is_known(tmp_path: Path) -> None:
    def seen(source: str, seconds: float | None) -> Evidence:
        at = None if seconds is None else NOW + timedelta(seconds=seconds)
        return Evidence(source=source, title="a title", published_at=at)

    publish_trends(
        tmp_path,
        make_trend("one", evidence=(seen("feed", 7), seen("feed", 9), seen("wiki", None))),
        make_trend("two", evidence=(seen("feed", 9.5), seen("toots", 8))),
        make_trend("three", evidence=()),
    )
    assert [each.model_dump() for each in listing_of(tmp_path).sources()] == [
        {"source": "feed", "trends": 2, "newest": NOW + timedelta(seconds=9.5)},
        {"source": "toots", "trends": 1, "newest": NOW + timedelta(seconds=8)},
        {"source": "wiki", "trends": 1, "newest": None},
    ]


def test_how_much_was_withheld_is_known_or_said_not_to_be(tmp_path: Path) -> None:
    directory = published(tmp_path)
    assert listing_of(tmp_path).withheld == len(HELD)
    (directory / WITHHELD_FILE).write_bytes(b"not what the manifest says")
    assert listing_of(tmp_path).withheld is None
