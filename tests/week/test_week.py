"""A week in a few minutes: nobody looks after it, and whatever happens, it neither lies nor grows.

Writes its report to TRENDRAG_WEEK_REPORT, where that names a file: a row a day.
"""

import asyncio
import os
from pathlib import Path

import pytest

from indexes.embedder import open_minilm
from tests.week.life import live
from tests.week.report import Week, day, report, table
from tests.week.world import GONE_FROM, HOUR, OUTAGE, RUBBISH_FROM, START
from trendrag.settings import IngestSettings, Settings, default_data_dir

HOURS = 7 * 24
GROWTH = 16 * 2**20
"""What the process may have grown by in bytes from the end of day 4, when as many trends leave as come, to the end of
day 7. In that time the past that scores are measured against still grows."""


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Week:
    """Lived once, with the real embedder; every test looks at the same one."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("week"), ingest=IngestSettings(allow_private=True, host_delay_s=0)
    )

    async def lived() -> Week:
        return [after async for after in live(settings, HOURS, open_minilm(default_data_dir() / "models"))]

    week = asyncio.run(lived())
    print(table(week))  # noqa: T201  (for `pytest -s`)
    if file := os.environ.get("TRENDRAG_WEEK_REPORT"):
        Path(file).write_text(report(week), "utf-8")
    return week


def test_no_trend_is_served_as_seen_later_than_it_was(week: Week) -> None:
    assert [(after.hour, after.lies) for after in week if after.lies] == []


def test_no_snapshot_holds_a_trend_beyond_the_age_limit(week: Week) -> None:
    assert [(after.hour, after.stale) for after in week if after.stale] == []


def test_in_the_outage_the_trends_stay_with_their_age_and_soon_nothing_is_published(week: Week) -> None:
    before, outage = week[OUTAGE.start - 1], week[OUTAGE.start : OUTAGE.stop]
    assert all(after.recorded_at == before.recorded_at for after in outage)
    assert {after.label for after in outage} == {before.label}
    assert f"{START + (OUTAGE.start - 1) * HOUR:%Y-%m-%d %H}" in before.label
    assert all(after.trends > 0 for after in outage)
    # Sources that are not due for hours are well until they are asked; until then scores decay and are published.
    assert [after.outcome for after in outage[3:]] == ["nothing"] * (len(outage) - 3)
    assert all(after.observations == before.observations for after in outage)


def test_after_the_outage_everybody_is_asked_within_an_hour(week: Week) -> None:
    first = week[OUTAGE.stop]
    assert first.outcome == "published"
    assert first.recorded_at is not None
    assert first.recorded_at >= START + OUTAGE.stop * HOUR
    well = {each.source for each in first.report.sources if each.well}
    assert {each.source for each in first.report.sources} - well == {"gone", "rubbish"}


def test_a_source_that_is_gone_or_broken_is_told_and_costs_the_others_nothing(week: Week) -> None:
    for after in week:
        bad = {each.source: each for each in after.report.sources if not each.well}
        if after.hour in OUTAGE:
            continue
        assert set(bad) <= {"gone", "rubbish"}
        assert ("gone" in bad) == (after.hour >= GONE_FROM)
        if after.hour > RUBBISH_FROM:
            assert bad["rubbish"].status in ("failed", "waiting")


def test_a_feed_that_says_the_same_for_days_is_new_once(week: Week) -> None:
    new = [each.new for after in week for each in after.report.sources if each.source == "stale"]
    assert (new[0], sum(new)) == (5, 5)


def test_dates_of_other_centuries_are_refused_and_never_become_now(week: Week) -> None:
    skewed = [each for after in week for each in after.report.sources if each.source == "skewed" and each.items]
    assert sum(each.dropped["date before 2000"] for each in skewed) > 100
    assert sum(each.dropped["date in the future"] for each in skewed) > 100
    for each in skewed:
        assert each.newest is not None  # five minutes ahead is a clock, and counts as now
        assert START < each.newest < START + HOURS * HOUR


def test_news_comes_every_hour_and_is_published(week: Week) -> None:
    quiet = [after.hour for after in week if after.outcome != "published" and after.hour not in OUTAGE]
    assert quiet == []


def test_nothing_grows_that_should_not(week: Week) -> None:
    assert max(after.snapshots for after in week) == IngestSettings().keep_snapshots
    steady = [after for after in week if after.hour >= 80]  # the age limit is past: as many trends leave as come
    assert max(each.files for each in steady) < 1.5 * min(each.files for each in steady)
    # A row of an observation is not kept twice, nor does a body stay that is not needed.
    assert week[-1].database < 1_000 * week[-1].observations
    assert day(week, 7)[-1].rss - day(week, 4)[-1].rss < GROWTH
