"""Retries, circuit and fallback around the ports. Time is a number here; nobody waits."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models.breaker import BreakerRules
from serving.models.resilience import (
    ResilientDescriber,
    ResilientJudge,
    ResilientWriter,
    RetryBudget,
    RetryRules,
    Upstream,
)
from tests.fakes import IMAGE, FakeDescriber, FakeJudge, FakeWriter, found
from trendrag.errors import (
    ModelError,
    ModelInterrupted,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    NotSupported,
    TrendragError,
    WeightsError,
)
from trendrag.ports import Chunk, Description
from trendrag.settings import ModelSettings
from trendrag.types import CaptionRequest, PreparedImage, RetrievedTrend

REQUEST = CaptionRequest(image=IMAGE)
AWAY = ModelUnavailable("gone", retriable=True)
NEVER = BreakerRules(least=10**9)


@dataclass
class Time:
    """A clock that moves by what was slept, and by ``step`` at each look."""

    at: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


@dataclass
class Script:
    """A writer and describer that fails as it is told, call by call, and then writes. An error after text is a pair."""

    failures: list[TrendragError | tuple[str, TrendragError]] = field(default_factory=list)
    time: Time = field(default_factory=Time)
    takes: float = 0.0
    calls: int = 0
    open_streams: int = 0
    name: str = "scripted"
    draft: bool = False
    always: bool = False

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        self.open_streams += 1
        try:
            self.time.at += self.takes
            match self.failures.pop(0) if self.failures else None:
                case (text, error):
                    yield Chunk(text)
                    raise error
                case TrendragError() as error:
                    raise error
                case None:
                    yield Chunk("A ")
                    yield Chunk("caption.")
        finally:
            self.open_streams -= 1

    async def describe(self, image: PreparedImage) -> Description:
        async with aclosing(self.write(REQUEST, "", (), 0)) as chunks:
            return Description("".join([chunk.text async for chunk in chunks]))


class HangingDescriber(FakeDescriber):
    async def describe(self, image: PreparedImage) -> Description:
        await asyncio.Event().wait()
        raise AssertionError


def upstream(
    time: Time,
    *,
    random: Callable[[], float] = lambda: 0.5,
    breaker: BreakerRules = NEVER,
    retries: RetryRules | None = None,
    **settings: float,
) -> Upstream:
    return Upstream(
        ModelSettings.model_validate(settings),
        now=time.now,
        random=random,
        sleep=time.sleep,
        breaker=breaker,
        retries=retries,
    )


async def text_of(writer: ResilientWriter) -> str:
    async with aclosing(writer.write(REQUEST, "", (), 0)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


def writing(script: Script, **options: object) -> tuple[ResilientWriter, Upstream]:
    server = upstream(script.time, **options)  # type: ignore[arg-type]  # checked where they are named
    return ResilientWriter(server, script), server


class TestRetries:
    async def test_a_failure_that_passes_is_not_noticed(self) -> None:
        script = Script([AWAY, AWAY])
        writer, server = writing(script)
        assert await text_of(writer) == "A caption."
        assert (script.calls, server.counts.retries, server.counts.failures) == (3, 2, 2)

    async def test_it_gives_up_after_some_tries_with_the_last_error(self) -> None:
        last = ModelUnavailable("the last", retriable=True)
        script = Script([AWAY, AWAY, last])
        writer, _ = writing(script)
        with pytest.raises(ModelUnavailable) as caught:
            await text_of(writer)
        assert caught.value is last
        assert script.calls == 3

    @pytest.mark.parametrize(
        "error", [ModelRejected("no"), ModelTimeout("late"), ModelInterrupted("odd"), ModelUnavailable("500")]
    )
    async def test_what_would_fail_again_is_not_tried_again(self, error: ModelError) -> None:
        script = Script([error])
        writer, _ = writing(script)
        with pytest.raises(type(error)):
            await text_of(writer)
        assert script.calls == 1

    async def test_never_after_the_first_text(self) -> None:
        script = Script([("Half a ", AWAY)])
        writer, server = writing(script)
        got = ""
        with pytest.raises(ModelUnavailable):
            async for chunk in writer.write(REQUEST, "", (), 0):
                got += chunk.text
        assert (got, script.calls, server.counts.retries) == ("Half a ", 1, 0)

    async def test_waits_grow_and_are_spread(self) -> None:
        rules = RetryRules(tries=6, first_wait_s=1, longest_wait_s=4)
        for share in (0.0, 0.25, 0.999):
            script = Script([AWAY] * 5)
            writer, _ = writing(script, random=lambda share=share: share, retries=rules)
            await text_of(writer)
            assert script.time.slept == [share * longest for longest in (1, 2, 4, 4, 4)]

    async def test_the_wait_that_the_server_asks_for_is_kept(self) -> None:
        script = Script([ModelUnavailable("429", retriable=True, retry_after=3)])
        writer, _ = writing(script)
        assert await text_of(writer) == "A caption."
        (slept,) = script.time.slept
        assert 3 <= slept <= 3.2

    @pytest.mark.parametrize(("asked", "settings"), [(30, {}), (4, {"total_timeout_s": 3})])
    async def test_a_wait_that_is_too_long_is_told_instead(self, asked: float, settings: dict[str, float]) -> None:
        script = Script([ModelUnavailable("429", retriable=True, retry_after=asked)])
        writer, _ = writing(script, **settings)
        with pytest.raises(ModelUnavailable) as caught:
            await text_of(writer)
        assert (caught.value.retry_after, script.time.slept) == (asked, [])

    async def test_no_try_begins_after_the_deadline_for_the_first_token(self) -> None:
        script = Script([AWAY] * 9, takes=4)
        writer, _ = writing(script, first_token_timeout_s=7, retries=RetryRules(tries=9))
        with pytest.raises(ModelUnavailable):
            await text_of(writer)
        assert script.calls == 2

    async def test_the_deadlines_bind_all_tries_together(self) -> None:
        """The second try hangs; its own time limits would let it."""

        @dataclass
        class Hangs(Script):
            async def write(
                self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
            ) -> AsyncGenerator[Chunk, None]:
                if self.calls:
                    await asyncio.Event().wait()
                async with aclosing(super().write(request, description, trends, candidate)) as chunks:
                    async for chunk in chunks:
                        yield chunk

        writer, _ = writing(Hangs([AWAY]), first_token_timeout_s=0.2)
        with pytest.raises(ModelTimeout):
            await text_of(writer)

    async def test_retries_never_double_the_load_of_a_server_that_is_down(self) -> None:
        script = Script([AWAY] * 10_000)
        writer, server = writing(script)
        for _ in range(1000):
            with pytest.raises(ModelUnavailable):
                await text_of(writer)
        assert script.calls <= 1000 * 1.2 + 10
        assert server.counts.tries == script.calls

    async def test_a_description_is_retried_and_a_judge_is_not(self) -> None:
        script = Script([AWAY])
        server = upstream(script.time)
        assert (await ResilientDescriber(server, script).describe(IMAGE)).text == "A caption."
        judge = FakeJudge(error=AWAY)
        with pytest.raises(ModelUnavailable):
            await ResilientJudge(server, judge).judge(REQUEST, found("tea").trends)
        assert len(judge.shown) == 1


@given(st.lists(st.booleans(), max_size=300))
def test_the_budget_is_never_overdrawn(history: Sequence[bool]) -> None:
    rules = RetryRules(share=0.1, reserve=3)
    budget = RetryBudget(rules)
    calls = spent = 0
    for is_call in history:
        if is_call:
            budget.earn()
            calls += 1
        else:
            spent += budget.spend()
        assert spent <= rules.reserve + rules.share * calls + 1e-6


class TestCircuit:
    BREAKER = BreakerRules(least=3, open_s=5)

    async def opened(self, script: Script) -> tuple[ResilientWriter, Upstream]:
        writer, server = writing(script, breaker=self.BREAKER, retries=RetryRules(tries=1))
        script.failures = [ModelUnavailable("no engine") for _ in range(3)]
        for _ in range(3):
            with pytest.raises(ModelUnavailable, match=r"^no engine$"):
                await text_of(writer)
        return writer, server

    async def test_open_it_answers_at_once_with_when_to_ask_again_and_why(self) -> None:
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 1.5
        with pytest.raises(ModelUnavailable, match=r"left alone for 4 s.*no engine") as caught:
            await text_of(writer)
        assert caught.value.retry_after == 4
        assert (script.calls, server.counts.refused, server.circuit) == (3, 1, "open")
        with pytest.raises(ModelUnavailable, match="no engine"):
            server.refuse_while_open()

    async def test_it_closes_again_by_itself(self) -> None:
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 5
        server.refuse_while_open()  # readiness must not keep the probe away
        assert await text_of(writer) == "A caption."
        assert server.circuit == "closed"

    async def test_the_probe_lets_others_in_with_its_first_token(self) -> None:
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 5
        async with aclosing(writer.write(REQUEST, "", (), 0)) as probe:
            await anext(probe)
            assert await text_of(writer) == "A caption."
            assert server.circuit == "closed"

    async def test_calls_of_the_same_moment_wait_for_the_answer_to_the_probe(self) -> None:
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 5
        texts = await asyncio.gather(*(text_of(writer) for _ in range(8)))
        assert texts == ["A caption."] * 8
        assert server.counts.refused == 0

    async def test_and_are_refused_with_it(self) -> None:
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 5
        script.failures = [ModelUnavailable("still no engine")]
        ended = await asyncio.gather(*(text_of(writer) for _ in range(8)), return_exceptions=True)
        assert all(isinstance(each, ModelUnavailable) for each in ended)
        assert script.calls == 4, "one probe"
        assert server.counts.refused == 7

    async def test_where_the_client_of_the_probe_leaves_the_next_call_is_the_probe(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serving.models.resilience.PROBE_PATIENCE_S", 1e6)
        script = Script()
        writer, server = await self.opened(script)
        script.time.at += 5
        probe = asyncio.create_task(ResilientDescriber(server, HangingDescriber()).describe(IMAGE))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(text_of(writer))
        await asyncio.sleep(0)
        assert not waiting.done()
        probe.cancel()
        async with asyncio.timeout(60):
            assert await waiting == "A caption."

    async def test_clients_that_leave_and_refusals_do_not_open_it(self) -> None:
        script = Script([ModelRejected("400")] * 20)
        writer, server = writing(script, breaker=self.BREAKER)
        for _ in range(20):
            with pytest.raises(ModelRejected):
                await text_of(writer)
        for _ in range(20):
            async with aclosing(writer.write(REQUEST, "", (), 0)) as chunks:
                await anext(chunks)
        for _ in range(20):
            task = asyncio.create_task(ResilientDescriber(server, HangingDescriber()).describe(IMAGE))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        assert server.circuit == "closed"
        assert script.open_streams == 0

    async def test_streams_closed_early_speak_for_the_server(self) -> None:
        """A caption that is long enough is cut by its reader. Did that say nothing, a few failures would be all."""
        script = Script()
        writer, server = writing(script, breaker=self.BREAKER)
        for _ in range(6):
            async with aclosing(writer.write(REQUEST, "", (), 0)) as chunks:
                await anext(chunks)
        script.failures = [ModelUnavailable("a bad moment") for _ in range(5)]
        for _ in range(5):
            with pytest.raises(ModelUnavailable):
                await text_of(writer)
        assert server.circuit == "closed"

    async def test_breaking_off_in_mid_stream_opens_it(self) -> None:
        script = Script([("Half", ModelInterrupted("eof")) for _ in range(3)])
        writer, server = writing(script, breaker=self.BREAKER)
        for _ in range(3):
            with pytest.raises(ModelInterrupted):
                await text_of(writer)
        assert server.circuit == "open"


class TestFallback:
    def drafting(self, script: Script, draft: FakeWriter | None = None) -> tuple[ResilientWriter, Upstream]:
        server = upstream(script.time, retries=RetryRules(tries=1), breaker=BreakerRules(least=2))
        tags = FakeDescriber("espresso")
        draft = draft or FakeWriter(name="tiny draft", draft=True)
        return ResilientWriter(server, script, (tags, draft)), server

    @pytest.mark.parametrize("error", [AWAY, ModelTimeout("late"), ModelInterrupted("reset")])
    async def test_it_writes_where_the_server_can_not_begin_and_says_so(self, error: ModelError) -> None:
        writer, server = self.drafting(Script([error]))
        chunks = [chunk async for chunk in writer.write(REQUEST, "", (), 0)]
        assert "".join(chunk.text for chunk in chunks) == "A caption."
        assert {(chunk.degraded, chunk.model) for chunk in chunks} == {(True, "tiny draft")}
        assert server.counts.fallbacks == 1

    async def test_it_writes_at_once_while_the_circuit_is_open(self) -> None:
        script = Script([AWAY, AWAY])
        writer, server = self.drafting(script)
        for _ in range(3):
            assert await text_of(writer) == "A caption."
        assert (script.calls, server.counts.fallbacks) == (2, 3)

    async def test_what_the_server_writes_is_not_degraded(self) -> None:
        writer, server = self.drafting(Script())
        chunks = [chunk async for chunk in writer.write(REQUEST, "", (), 0)]
        assert {(chunk.degraded, chunk.model) for chunk in chunks} == {(False, None)}
        assert server.counts.fallbacks == 0

    async def test_never_in_mid_stream(self) -> None:
        writer, server = self.drafting(Script([("Half", ModelInterrupted("eof"))]))
        with pytest.raises(ModelInterrupted, match="eof"):
            await text_of(writer)
        assert server.counts.fallbacks == 0

    async def test_what_the_server_refuses_is_not_papered_over(self) -> None:
        writer, _ = self.drafting(Script([ModelRejected("wrong key")]))
        with pytest.raises(ModelRejected, match="wrong key"):
            await text_of(writer)

    @pytest.mark.parametrize("error", [WeightsError("missing"), NotSupported("it can't refine")])
    async def test_a_fallback_that_fails_too_leaves_the_first_error(self, error: TrendragError) -> None:
        writer, server = self.drafting(Script([ModelUnavailable("gone")]), FakeWriter(chunks=(), error=error))
        with pytest.raises(ModelUnavailable, match="gone"):
            await text_of(writer)
        assert server.counts.fallbacks == 0

    async def test_the_draft_is_made_from_words_of_its_own_describer(self) -> None:
        class Echo(FakeWriter):
            async def write(
                self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
            ) -> AsyncGenerator[Chunk, None]:
                yield Chunk(description)

        class Slow(FakeDescriber):
            async def describe(self, image: PreparedImage) -> Description:
                await asyncio.sleep(0)
                return await super().describe(image)

        script = Script([AWAY, AWAY, AWAY])
        tags = Slow("espresso")
        writer = ResilientWriter(upstream(script.time, retries=RetryRules(tries=1)), script, (tags, Echo()))
        assert await asyncio.gather(*(text_of(writer) for _ in range(3))) == ["espresso"] * 3
        assert tags.calls == 1, "once for all candidates of an image"

    async def test_descriptions_fall_back_too(self) -> None:
        script = Script([AWAY])
        server = upstream(script.time, retries=RetryRules(tries=1))
        describer = ResilientDescriber(server, script, FakeDescriber("espresso"))
        first = await describer.describe(IMAGE)
        assert (first.text, first.degraded) == ("espresso", True)
        assert not (await describer.describe(IMAGE)).degraded
