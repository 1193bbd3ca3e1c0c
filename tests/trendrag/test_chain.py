import asyncio
import math
from contextlib import aclosing

import pytest
from langchain_core.runnables import Runnable

from tests.fakes import IMAGE, FakeDescriber, FakeJudge, FakeRetriever, FakeWriter, found
from trendrag.chain import JUDGED_NONE, build_caption_chain, stands_alone
from trendrag.errors import ModelInterrupted, ModelTimeout, ModelUnavailable
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    Highlight,
    TrendsRetrieved,
)

NOTE_THAT_SAYS_ENOUGH = "Grandmother playing chess against Peter outside yesterday"


async def events_of(chain: Runnable[CaptionRequest, CaptionEvent], request: CaptionRequest) -> list[CaptionEvent]:
    return [event async for event in chain.astream(request)]


async def test_events_come_in_order_and_add_up() -> None:
    writer = FakeWriter(chunks=("Time for lat", "te a", "rt, and Latte-Art again"))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("latte art")), writer)
    events = await events_of(chain, CaptionRequest(image=IMAGE))

    assert [type(event) for event in events if not isinstance(event, Delta)] == [
        Described,
        TrendsRetrieved,
        Highlight,
        Highlight,
        CandidateDone,
        Done,
    ]
    text = "".join(event.text for event in events if isinstance(event, Delta))
    finished = next(event for event in events if isinstance(event, CandidateDone))
    assert finished.text == text == "Time for latte art, and Latte-Art again"
    assert finished.confidence == pytest.approx(math.exp(-0.5))
    marked = [text[event.start : event.end] for event in events if isinstance(event, Highlight)]
    assert marked == ["latte art", "Latte-Art"]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == 110
    assert done.usage.cached_tokens == 64
    assert done.timings.first_token is not None
    assert done.timings.first_token <= done.timings.total


async def test_a_highlight_never_precedes_its_text() -> None:
    chain = build_caption_chain(
        FakeDescriber(), FakeRetriever(found("tea")), FakeWriter(chunks=tuple("tea, tea and more teas"))
    )
    length = 0
    async for event in chain.astream(CaptionRequest(image=IMAGE)):
        if isinstance(event, Delta):
            length += len(event.text)
        elif isinstance(event, Highlight):
            assert event.end <= length


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (("\n", " A", " cup ", "\n", "of tea", ".", " \n", "\n"), "A cup \nof tea."),
        (("nul\0 esc\x1b[2J", " bidi\u202e", " 👩\u200d🚀"), "nul esc[2J bidi 👩\u200d🚀"),
    ],
)
async def test_what_the_model_writes_is_trimmed_and_made_harmless(chunks: tuple[str, ...], text: str) -> None:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("tea")), FakeWriter(chunks=chunks))
    events = await events_of(chain, CaptionRequest(image=IMAGE))
    assert "".join(event.text for event in events if isinstance(event, Delta)) == text
    assert next(event for event in events if isinstance(event, CandidateDone)).text == text
    assert all(event.text for event in events if isinstance(event, Delta))
    for event in events:
        if isinstance(event, Highlight):
            assert text[event.start : event.end] == "tea"


@pytest.mark.parametrize("chunks", [(), ("",), (" ", "\n")])
async def test_an_empty_caption_is_a_failure(chunks: tuple[str, ...]) -> None:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), FakeWriter(chunks=chunks))
    events = await events_of(chain, CaptionRequest(image=IMAGE))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "model_error"


async def test_candidates_are_all_written_and_kept_apart() -> None:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), FakeWriter())
    events = await events_of(chain, CaptionRequest(image=IMAGE, candidates=3))
    assert sorted(e.candidate for e in events if isinstance(e, CandidateDone)) == [0, 1, 2]
    for number in range(3):
        text = "".join(e.text for e in events if isinstance(e, Delta) and e.candidate == number)
        assert text == "A caption."


async def test_a_note_that_says_enough_spares_the_description() -> None:
    describer, retriever = FakeDescriber(), FakeRetriever()
    chain = build_caption_chain(describer, retriever, FakeWriter())
    events = await events_of(chain, CaptionRequest(image=IMAGE, note=NOTE_THAT_SAYS_ENOUGH))
    assert events[0] == Described(text="", source="note")
    assert describer.calls == 0
    assert retriever.queries == [NOTE_THAT_SAYS_ENOUGH]


async def test_a_writer_that_cannot_see_gets_the_description_all_the_same() -> None:
    describer = FakeDescriber(always=True)
    chain = build_caption_chain(describer, FakeRetriever(), FakeWriter())
    await events_of(chain, CaptionRequest(image=IMAGE, note=NOTE_THAT_SAYS_ENOUGH, trends=False))
    assert describer.calls == 1


async def test_a_description_that_no_model_was_asked_for_says_so() -> None:
    chain = build_caption_chain(FakeDescriber(cached=True), FakeRetriever(), FakeWriter())
    events = await events_of(chain, CaptionRequest(image=IMAGE))
    assert events[0] == Described(text="a cup of coffee", source="cache")


async def test_trends_off_offers_none_and_says_so() -> None:
    retriever, writer = FakeRetriever(found("tea")), FakeWriter()
    events = await events_of(
        build_caption_chain(FakeDescriber(), retriever, writer), CaptionRequest(image=IMAGE, trends=False)
    )
    assert events[1] == TrendsRetrieved(trends=(), snapshot=None, reason="Trends are switched off.")
    assert retriever.queries == []
    assert writer.offered == [()]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ModelInterrupted("gone"), "model_interrupted"), (ModelUnavailable("no"), "model_unavailable")],
)
async def test_a_failure_in_mid_stream_is_told_and_ends_the_stream(error: Exception, code: str) -> None:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), FakeWriter(error=error))
    events = await events_of(chain, CaptionRequest(image=IMAGE, candidates=2))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == code
    assert not any(isinstance(event, Done) for event in events)


async def test_an_unforeseen_error_tells_no_internals() -> None:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), FakeWriter(error=RuntimeError("secret path")))
    events = await events_of(chain, CaptionRequest(image=IMAGE))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "internal"
    assert "secret" not in events[-1].message


async def test_closing_the_stream_stops_every_writer() -> None:
    writer = FakeWriter(hangs=True)
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), writer)
    async with aclosing(chain.astream(CaptionRequest(image=IMAGE, candidates=3))) as events:  # type: ignore[type-var]
        deltas = 0
        async for event in events:
            deltas += isinstance(event, Delta)
            if deltas == 6:
                break
        assert writer.open_streams == 3
    assert writer.open_streams == 0


async def test_cancelling_the_reader_stops_every_writer() -> None:
    writer = FakeWriter(hangs=True)
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(), writer)
    started = asyncio.Event()

    async def read() -> None:
        async with aclosing(chain.astream(CaptionRequest(image=IMAGE, candidates=2))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    started.set()

    reader = asyncio.create_task(read())
    await started.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert writer.open_streams == 0


async def judged(judge: FakeJudge, request: CaptionRequest | None = None) -> tuple[TrendsRetrieved, Done, FakeWriter]:
    """What three trends become under a judge, and how the request ends."""
    writer = FakeWriter()
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("tea", "chess", "ferry")), writer, judge)
    events = await events_of(chain, request or CaptionRequest(image=IMAGE))
    (trends,) = (event for event in events if isinstance(event, TrendsRetrieved))
    assert isinstance(events[-1], Done)
    return trends, events[-1], writer


async def test_what_a_judge_chooses_is_offered_in_the_order_in_which_it_was_found() -> None:
    judge = FakeJudge(chosen=frozenset({2, 0}))
    trends, done, writer = await judged(judge)
    assert judge.shown == [("tea", "chess", "ferry")]
    assert [hit.trend.phrase for hit in trends.trends] == ["tea", "ferry"]
    assert (trends.judged, trends.reason) == ("model", None)
    assert writer.offered == [("tea", "ferry")]
    assert done.usage.prompt_tokens == 10 + 50 + 100
    assert done.timings.judge is not None
    assert done.timings.first_token is not None
    assert done.timings.judge <= done.timings.first_token


async def test_a_judge_that_chooses_none_leaves_none_and_the_answer_says_who_said_so() -> None:
    trends, _, writer = await judged(FakeJudge())
    assert (trends.trends, trends.judged, trends.reason) == ((), "model", JUDGED_NONE)
    assert trends.snapshot is not None
    assert writer.offered == [()]


async def test_a_judge_is_not_asked_about_nothing() -> None:
    judge = FakeJudge()
    trends, done, _ = await judged(judge, CaptionRequest(image=IMAGE, trends=False))
    assert (judge.shown, trends.judged, done.timings.judge) == ([], None, None)


async def test_where_the_judge_fails_the_trends_are_offered_as_found() -> None:
    trends, done, writer = await judged(FakeJudge(error=ModelTimeout("too slow")))
    assert [hit.trend.phrase for hit in trends.trends] == ["tea", "chess", "ferry"]
    assert (trends.judged, trends.reason) == ("failed", None)
    assert writer.offered == [("tea", "chess", "ferry")]
    assert done.timings.judge is not None


async def test_a_judge_that_goes_on_failing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = FakeJudge(error=ModelTimeout("too slow"))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("tea")), FakeWriter(), judge)
    said = []
    for error in (judge.error, judge.error, None, None, judge.error):
        judge.error = error
        caplog.clear()
        with caplog.at_level("INFO", logger="trendrag.chain"):
            await events_of(chain, CaptionRequest(image=IMAGE))
        said.append([record.levelname for record in caplog.records])
    assert said == [["WARNING"], [], ["INFO"], [], ["WARNING"]]
    assert "model_timeout" in caplog.text
    assert "too slow" not in caplog.text  # a message may quote the server, which may quote the note


async def test_cancelling_the_reader_stops_the_judge() -> None:
    judge = FakeJudge(hangs=True)
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("tea")), FakeWriter(), judge)
    reader = asyncio.create_task(events_of(chain, CaptionRequest(image=IMAGE)))
    await judge.looking.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert judge.stopped


@pytest.mark.parametrize(
    ("note", "enough"),
    [(None, False), ("", False), ("at the beach", False), (NOTE_THAT_SAYS_ENOUGH, True), ("tea " * 40, False)],
)
def test_which_notes_stand_alone(note: str | None, enough: bool) -> None:
    assert stands_alone(note) is enough
