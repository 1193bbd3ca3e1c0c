"""What is counted for a caption, however it ends, and what other parts may show beside it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.http.metrics import Metrics
from serving.models.queue import ModelQueue
from serving.watched import WatchedService
from tests.fakes import IMAGE, NOW, FakeDescriber, FakeRetriever, FakeWriter, found
from tests.serving.conftest import LogLines
from tests.serving.fakes import BrokenService, FakeService
from trendrag.errors import ModelTimeout, TrendragError
from trendrag.types import (
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    Timings,
    TrendsRetrieved,
    Usage,
)

LONG_NOTE = "pumpkin spice latte beside falling autumn leaves"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: NOW)


def samples(metrics: Metrics) -> dict[str, float]:
    """By name and labels' values: ``trendrag_candidates_total used``."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def roomy() -> ModelQueue:
    """A line that lets everybody pass."""
    return ModelQueue(100, 0, 1.0, lambda: 0.0)


async def caption(service: FakeService, metrics: Metrics, **request: object) -> None:
    asked = CaptionRequest.model_validate({"image": IMAGE, **request})
    with suppress(Exception):
        async with aclosing(WatchedService(service, metrics, roomy()).stream(asked)) as events:
            async for _ in events:
                pass


async def test_what_became_of_the_trends_that_were_offered(metrics: Metrics) -> None:
    spice = FakeRetriever(found("pumpkin spice"))
    await caption(FakeService(), metrics, candidates=2)
    await caption(FakeService(FakeWriter(), retriever=spice), metrics, candidates=3)
    await caption(FakeService(retriever=FakeRetriever(found())), metrics)
    await caption(FakeService(), metrics, trends=False, candidates=4)
    seen = samples(metrics)
    became = {use: seen[f"trendrag_candidates_total {use}"] for use in ("used", "unused", "none", "off")}
    assert became == {"used": 2, "unused": 3, "none": 1, "off": 4}
    assert seen["trendrag_highlights_total"] == 2
    # One who wants no trends is no abstention, and has no retrieval whose time would count.
    assert seen["trendrag_trends_retrieved_count"] == 3
    assert seen["trendrag_trends_retrieved_bucket 0.0"] == 1
    assert seen["trendrag_retrieve_seconds_count"] == 3


async def test_a_step_is_timed_where_it_took_place(metrics: Metrics) -> None:
    await caption(FakeService(), metrics)
    await caption(FakeService(), metrics, note=LONG_NOTE)
    await caption(FakeService(), metrics, trends=False)
    seen = samples(metrics)
    assert seen["trendrag_describe_seconds_count"] == seen["trendrag_descriptions_total model"] == 1
    assert seen["trendrag_descriptions_total note"] == 2
    assert seen["trendrag_retrieve_seconds_count"] == 2
    assert seen["trendrag_judge_seconds_count"] == 0
    assert seen["trendrag_first_token_seconds_count"] == seen["trendrag_caption_seconds_count"] == 3


async def test_tokens_and_who_wrote(metrics: Metrics) -> None:
    await caption(FakeService(describer=FakeDescriber(always=True)), metrics, candidates=2)
    await caption(FakeService(FakeWriter(draft=True)), metrics, note=LONG_NOTE)
    seen = samples(metrics)
    assert seen["trendrag_prompt_tokens_total"] == 10 + 3 * 100
    assert seen["trendrag_cached_tokens_total"] == 3 * 64
    assert seen["trendrag_completion_tokens_total"] == 2 + 2 * 3 + 2
    assert (seen["trendrag_captions_total model"], seen["trendrag_captions_total draft"]) == (1, 1)


async def test_failures_are_counted_by_codes_that_are_known(metrics: Metrics) -> None:
    for error in (ModelTimeout("x"), RuntimeError("x"), None):
        await caption(BrokenService(error=error), metrics)
    for code in ("model_timeout", "made_up_by_a_caller"):
        await caption(BrokenService(events=(Failed(code=code, message="x"),)), metrics)
    seen = samples(metrics)
    failed = {name.split()[1]: value for name, value in seen.items() if name.startswith("trendrag_failures_total")}
    assert {code: value for code, value in failed.items() if value} == {"model_timeout": 2, "other": 1, "internal": 2}
    assert "made_up_by_a_caller" not in failed


DONE = Done(usage=Usage(), timings=Timings(total=1.0), snapshot_id=None, model="m", draft=False)
EVENTS: tuple[CaptionEvent, ...] = (
    Described(text="", source="note"),
    TrendsRetrieved(trends=(), snapshot=None),
    Delta(candidate=0, text="a"),
)


@given(
    events=st.lists(st.sampled_from(EVENTS), max_size=4),
    last=st.sampled_from([DONE, Failed(code="model_error", message="x"), None]),
    error=st.sampled_from([None, ModelTimeout("x"), RuntimeError("x")]),
    read=st.integers(0, 6),
)
async def test_each_request_is_counted_once_however_it_ends(
    events: list[CaptionEvent], last: CaptionEvent | None, error: Exception | None, read: int
) -> None:
    metrics = Metrics(lambda: NOW)
    sent = [*events, *([last] if last else [])]
    service = WatchedService(BrokenService(events=sent, error=error), metrics, roomy())
    got: list[CaptionEvent] = []
    with suppress(TrendragError, RuntimeError, StopAsyncIteration):
        async with aclosing(service.stream(CaptionRequest(image=IMAGE))) as stream:
            while len(got) < read:
                got.append(await anext(stream))
    seen = samples(metrics)
    counted = {
        "captions": seen["trendrag_captions_total model"],
        "failures": sum(value for name, value in seen.items() if name.startswith("trendrag_failures_total")),
        "left": seen["trendrag_clients_left_total"],
    }
    assert got == sent[:read]
    assert sum(counted.values()) == (1 if read else 0)
    assert bool(counted["captions"]) == (DONE in got)


async def test_a_reader_that_goes_closes_the_stream_behind(metrics: Metrics) -> None:
    writer = FakeWriter(hangs=True)
    stream: AsyncGenerator[CaptionEvent, None]
    async with aclosing(
        WatchedService(FakeService(writer), metrics, roomy()).stream(CaptionRequest(image=IMAGE))
    ) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                break
        assert writer.open_streams == 1
    assert writer.open_streams == 0
    assert samples(metrics)["trendrag_clients_left_total"] == 1


def test_other_parts_show_numbers_states_and_counts(metrics: Metrics) -> None:
    hits = {"description": 3.0, "image": 1.0, "b'\\xff": 2.0, "another": 5.0}
    metrics.watch("trendrag_queue_length", lambda: 7)
    metrics.watch("trendrag_breaker", lambda: "open")
    metrics.watch("trendrag_cache_hits", lambda: hits)
    seen = samples(metrics)
    assert seen["trendrag_queue_length"] == 7
    assert [seen[f"trendrag_breaker {state}"] for state in ("closed", "half_open", "open")] == [0, 0, 1]
    assert seen["trendrag_cache_hits_total description"] == 3
    assert seen["trendrag_cache_hits_total caption"] == 0
    assert seen["trendrag_cache_hits_total other"] == 7  # nobody's made-up name becomes a series
    hits["description"] = 4
    assert samples(metrics)["trendrag_cache_hits_total description"] == 4


def test_a_part_that_cannot_be_read_hides_no_other_and_is_told_once(metrics: Metrics, log_lines: LogLines) -> None:
    def broken() -> float:
        raise OSError("the database is away")

    metrics.watch("trendrag_jobs", broken)
    metrics.watch("trendrag_queue_length", lambda: 1)
    for _ in range(3):
        seen = samples(metrics)
        assert seen["trendrag_queue_length"] == 1
    assert not any(name.startswith("trendrag_jobs") for name in seen)
    assert [line["message"] for line in log_lines()] == ["trendrag_jobs can't be read"]


def test_only_planned_names_are_watched_and_each_once(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.watch("trendrag_something", lambda: 1)
    metrics.watch("trendrag_jobs", lambda: {"queued": 1})
    with pytest.raises(ValueError, match="trendrag_jobs"):
        metrics.watch("trendrag_jobs", lambda: {"queued": 1})
