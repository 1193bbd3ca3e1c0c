"""What a request may ask of the chain: a length, words, changes, another try; and what fails without the rest."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import pytest

from tests.fakes import IMAGE, NOW, FakeDescriber, FakeJudge, FakeRetriever, FakeWriter, found, make_trend
from tests.trendrag.test_chain import events_of
from trendrag.chain import ALL_EXCLUDED, build_caption_chain
from trendrag.errors import ModelTimeout, TrendragError
from trendrag.ports import Chunk
from trendrag.types import (
    CandidateDone,
    CandidateFailed,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    Frozen,
    Highlight,
    Regenerate,
    Retrieval,
    RetrievedTrend,
    TrendFilters,
    TrendsRetrieved,
    Turn,
    Usage,
)

E = TypeVar("E", bound=Frozen)

SENTENCES = (
    "A cup of tea. ",
    "The ferry ",
    "is late ",
    "again today. ",
    "Nobody minds ",
    "that very ",
    "much, though.",
)


@dataclass
class Answering(FakeRetriever):
    """Finds the trends of which the query has a word, and notes how many were asked for."""

    asked: list[int | None] = field(default_factory=list)

    async def retrieve(self, query: str, filters: TrendFilters) -> Retrieval:
        self.asked.append(filters.k)
        self.queries.append(query)
        hits = [hit for hit in self.answer.trends if set(hit.trend.phrase.split()) & set(query.split())]
        return self.answer.model_copy(update={"trends": tuple(hits[: filters.k])})


@dataclass
class Scripted(FakeWriter):
    """Writes another text for each candidate; an error in its place is raised after one word."""

    texts: tuple[str | TrendragError | RuntimeError, ...] = ()
    seen: list[CaptionRequest] = field(default_factory=list)

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        self.seen.append(request)
        text = self.texts[candidate]
        if not isinstance(text, str):
            yield Chunk("Well")
            raise text
        yield Chunk(text, usage=Usage(completion_tokens=1))


def one(events: Sequence[CaptionEvent], kind: type[E]) -> E:
    (event,) = (event for event in events if isinstance(event, kind))
    return event


async def written(request: CaptionRequest, *chunks: str, retrieval: Retrieval | None = None) -> list[CaptionEvent]:
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(retrieval or found()), FakeWriter(chunks=chunks))
    return await events_of(chain, request)


async def test_a_caption_that_grows_too_long_ends_with_what_fits_and_the_model_is_stopped() -> None:
    writer = FakeWriter(chunks=SENTENCES + ("more ",) * 100)
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found("ferry")), writer)
    events = await events_of(chain, CaptionRequest(image=IMAGE, max_chars=60))
    done = one(events, CandidateDone)
    assert (done.text, done.cut) == ("A cup of tea. The ferry is late again today.", True)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == done.text
    marks = [done.text[event.start : event.end] for event in events if isinstance(event, Highlight)]
    assert marks == ["ferry"]
    assert writer.open_streams == 0
    # The rest was not read: of the usage, what was read of this candidate is known.
    assert one(events, Done).usage.completion_tokens < 20


async def test_a_caption_within_its_length_is_not_cut() -> None:
    done = one(await written(CaptionRequest(image=IMAGE, max_chars=200), *SENTENCES), CandidateDone)
    assert (done.text, done.cut) == ("".join(SENTENCES), False)


async def test_a_model_that_ran_out_of_tokens_is_told() -> None:
    @dataclass
    class Exhausted(FakeWriter):
        async def write(self, *args: object) -> AsyncGenerator[Chunk, None]:
            yield Chunk("A cup of")
            yield Chunk("", cut=True)

    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), Exhausted())
    assert one(await events_of(chain, CaptionRequest(image=IMAGE)), CandidateDone).cut


async def test_the_platform_says_how_long_and_the_writer_is_told() -> None:
    writer = Scripted(texts=("Hi",))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), writer)
    await events_of(chain, CaptionRequest(image=IMAGE, platform="linkedin"))
    assert writer.seen[0].max_chars == 500


async def test_more_than_the_platform_takes_is_refused_before_anything_is_asked() -> None:
    describer = FakeDescriber()
    chain = build_caption_chain(describer, FakeRetriever(found()), FakeWriter())
    events = await events_of(chain, CaptionRequest(image=IMAGE, platform="x", max_chars=500))
    assert one(events, Failed).code == "invalid_request"
    assert len(events) == 1
    assert describer.calls == 0


async def test_emoji_and_hashtags_that_are_not_wanted_never_reach_the_reader() -> None:
    request = CaptionRequest(image=IMAGE, emoji=False, hashtags=False)
    events = await written(request, "Tea 🎃 time with #gree", "nTea. #yum", "my #tea", retrieval=found("green tea"))
    done = one(events, CandidateDone)
    assert done.text == "Tea time with green Tea."
    mark = one(events, Highlight)
    assert done.text[mark.start : mark.end] == "green Tea"


async def test_alt_text_has_no_trends_no_hashtags_and_no_emoji() -> None:
    retriever, writer = FakeRetriever(found("tea")), FakeWriter(chunks=("A cup of tea ☕ on a table. #tea",))
    chain = build_caption_chain(FakeDescriber(), retriever, writer)
    events = await events_of(chain, CaptionRequest(image=IMAGE, alt_text=True))
    assert one(events, CandidateDone).text == "A cup of tea on a table."
    assert one(events, Described) == Described(text="", source="note"), "nothing is to be searched for"
    assert retriever.queries == []
    assert writer.offered == [()]
    assert one(events, TrendsRetrieved).reason == "Alt text uses no trends."


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), ["green tea", "#GreenFerry", "chess"]),
        (("tea",), ["#GreenFerry", "chess"]),
        (("GREEN",), ["chess"]),
        (("teas", "chess"), ["green tea", "#GreenFerry"]),
        ((make_trend("green tea").id,), ["#GreenFerry", "chess"]),
        (("gambit",), ["green tea", "#GreenFerry"]),
        (("green tea", "green ferry", "chess"), []),
    ],
)
async def test_trends_never_to_use_are_not_offered(exclude: tuple[str, ...], left: list[str]) -> None:
    hits = found("green tea", "#GreenFerry", "chess")
    chess = hits.trends[2].model_copy(update={"trend": make_trend("chess", aliases=("queen's gambit",))})
    retrieval = hits.model_copy(update={"trends": (*hits.trends[:2], chess)})
    writer, judge = FakeWriter(chunks=("Green tea, chess.",)), FakeJudge(frozenset(range(3)))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(retrieval), writer, judge)
    events = await events_of(chain, CaptionRequest(image=IMAGE, exclude=exclude))
    assert writer.offered == [tuple(left)]
    assert all(shown == tuple(left) for shown in judge.shown)
    assert one(events, TrendsRetrieved).reason == (None if left else ALL_EXCLUDED)
    ids = {make_trend(phrase).id for phrase in left}
    assert {event.trend_id for event in events if isinstance(event, Highlight)} <= ids


async def test_taking_trends_out_leaves_as_many_as_were_asked_for() -> None:
    retriever = Answering(found("tea one", "tea two", "tea three", "tea four"))
    chain = build_caption_chain(FakeDescriber(text="some tea"), retriever, FakeWriter())
    request = CaptionRequest(image=IMAGE, filters=TrendFilters(k=2), exclude=("two",))
    events = await events_of(chain, request)
    assert [hit.trend.phrase for hit in one(events, TrendsRetrieved).trends] == ["tea one", "tea three"]
    assert retriever.asked == [3]


async def test_words_asked_for_or_not_wanted_are_told_as_they_are() -> None:
    request = CaptionRequest(image=IMAGE, include=("my shop", "Ferry", "\0"), exclude=("tea", "coffee"))
    done = one(await written(request, *SENTENCES), CandidateDone)
    assert (done.missing, done.unwanted) == (("my shop",), ("tea",))


async def test_the_trends_of_the_caption_to_be_changed_stay_offered_past_the_judge() -> None:
    retriever = Answering(found("pumpkin spice", "ferry", "chess"))
    judge, writer = FakeJudge(), FakeWriter(chunks=("Pumpkin spice!",))
    chain = build_caption_chain(FakeDescriber(text="a ferry"), retriever, writer, judge)
    turns = (Turn(role="assistant", text="My pumpkin spice latte and chess"), Turn(role="user", text="shorter"))
    events = await events_of(chain, CaptionRequest(image=IMAGE, turns=turns))
    assert writer.offered == [("pumpkin spice", "chess")]
    assert judge.shown == [("ferry",)], "it chooses among the others only"
    assert one(events, TrendsRetrieved).reason is None
    assert one(events, CandidateDone).trend_ids == (make_trend("pumpkin spice").id,)


async def test_kept_trends_come_first_and_count() -> None:
    retriever = Answering(found("ferry", "ferry ride", "chess"))
    writer = FakeWriter()
    chain = build_caption_chain(FakeDescriber(text="a ferry"), retriever, writer)
    turns = (Turn(role="assistant", text="Just chess"), Turn(role="user", text="more"))
    await events_of(chain, CaptionRequest(image=IMAGE, turns=turns, filters=TrendFilters(k=2)))
    assert writer.offered == [("chess", "ferry")]


async def test_another_try_is_one_candidate_with_the_number_asked_for() -> None:
    writer = Scripted(texts=("a", "b", "c"))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), writer)
    events = await events_of(
        chain, CaptionRequest(image=IMAGE, candidates=3, regenerate=Regenerate(candidate=2, avoid=("x",)))
    )
    assert [(event.candidate, event.text) for event in events if isinstance(event, CandidateDone)] == [(2, "c")]
    assert len(writer.seen) == 1


async def test_one_candidate_that_fails_does_not_end_the_others() -> None:
    writer = Scripted(texts=("Tea.", ModelTimeout("too slow"), RuntimeError("secret"), "Ferry."))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), writer)
    events = await events_of(chain, CaptionRequest(image=IMAGE, candidates=4))
    assert {event.candidate: event.text for event in events if isinstance(event, CandidateDone)} == {
        0: "Tea.",
        3: "Ferry.",
    }
    failed = {event.candidate: event for event in events if isinstance(event, CandidateFailed)}
    assert {number: event.code for number, event in failed.items()} == {1: "model_timeout", 2: "internal"}
    assert failed[1].message == "too slow"
    assert "secret" not in failed[2].message
    assert isinstance(events[-1], Done)


async def test_where_all_fail_the_request_fails_as_the_first_did() -> None:
    writer = Scripted(texts=(ModelTimeout("too slow"), ModelTimeout("too slow")))
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), writer)
    events = await events_of(chain, CaptionRequest(image=IMAGE, candidates=2))
    assert sum(isinstance(event, CandidateFailed) for event in events) == 2
    assert isinstance(events[-1], Failed)
    assert one(events, Failed).code == "model_timeout"


@pytest.mark.parametrize(
    ("degraded", "model", "draft"),
    [((), "fake", False), ((1,), "fake", True), ((0, 1), "small", True)],
)
async def test_an_answer_says_who_wrote_it(degraded: tuple[int, ...], model: str, draft: bool) -> None:
    @dataclass
    class Falling(FakeWriter):
        async def write(
            self, request: CaptionRequest, description: str, trends: object, candidate: int
        ) -> AsyncGenerator[Chunk, None]:
            fallen = candidate in degraded
            yield Chunk("Tea.", degraded=fallen, model="small" if fallen else None)

    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), Falling())
    events = await events_of(chain, CaptionRequest(image=IMAGE, candidates=2))
    done = one(events, Done)
    assert (done.model, done.draft, done.degraded) == (model, draft, bool(degraded))
    told = {event.candidate: (event.degraded, event.model) for event in events if isinstance(event, CandidateDone)}
    assert told == {number: (number in degraded, "small" if number in degraded else None) for number in range(2)}


async def test_an_answer_says_how_old_its_trends_are() -> None:
    chain = build_caption_chain(
        FakeDescriber(), FakeRetriever(found("tea")), FakeWriter(), now=lambda: NOW + timedelta(minutes=5)
    )
    done = one(await events_of(chain, CaptionRequest(image=IMAGE)), Done)
    assert (done.snapshot_id, done.snapshot_age_s) == (found("tea").snapshot.id, 300.0)  # type: ignore[union-attr]
    none = one(await events_of(chain, CaptionRequest(image=IMAGE, trends=False)), Done)
    assert (none.snapshot_id, none.snapshot_age_s) == (None, None)


async def test_closing_the_stream_after_a_cut_stops_the_others_too() -> None:
    writer = FakeWriter(chunks=("word ",) * 500)
    chain = build_caption_chain(FakeDescriber(), FakeRetriever(found()), writer)
    async with aclosing(chain.astream(CaptionRequest(image=IMAGE, candidates=3, max_chars=40))) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, CandidateDone):
                break
    assert writer.open_streams == 0


@pytest.mark.parametrize(
    "turns",
    [
        [("user", "shorter")],
        [("assistant", "Tea.")],
        [("assistant", "Tea."), ("user", "shorter"), ("user", "shorter")],
        [("assistant", "Tea."), ("user", "x" * 1001)],
    ],
)
def test_turns_that_are_no_conversation_are_refused(turns: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="turns"):
        CaptionRequest.model_validate({"image": IMAGE, "turns": [{"role": r, "text": t} for r, t in turns]})
