"""What stands between the caption chain and a model server that fails: retries, a circuit breaker, a fallback.

`Upstream` is one model server as its calls see it. The classes below wrap ``trendrag.ports`` around it, so that neither
the chain nor the chat models know of it. Nothing is tried again, and nobody else takes over, once a call has brought
its first text: half a caption by one and half by another would be none.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from serving.models.breaker import Breaker, BreakerRules, Circuit, Ticket
from trendrag.errors import ModelError, ModelRejected, ModelTimeout, ModelUnavailable, TrendragError
from trendrag.ports import Chunk, Describer, Description, Judge, Judgement, Writer
from trendrag.settings import ModelSettings
from trendrag.types import CaptionRequest, PreparedImage, RetrievedTrend

PROBE_PATIENCE_S = 5.0
"""How long calls wait for the answer to another's probe: the candidates of one request are calls of the same moment."""

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryRules:
    """A call is made ``tries`` times at most. Before the n-th retry it waits between 0 and ``first_wait_s`` * 2^(n-1)
    seconds, ``longest_wait_s`` at most, all alike probable ("full jitter", M. Brooker, "Exponential Backoff and
    Jitter", 2015), after the time that the server asked for; where that was more than ``longest_asked_s``, the caller
    is told instead of kept.

    Each call brings ``share`` of a retry into the budget, which holds ``reserve`` at most and at first. So there are
    never more than ``reserve`` + ``share`` * calls retries, however many calls fail.
    """

    tries: int = 3
    first_wait_s: float = 0.2
    longest_wait_s: float = 2.0
    longest_asked_s: float = 5.0
    share: float = 0.2
    reserve: float = 10.0


class RetryBudget:
    def __init__(self, rules: RetryRules) -> None:
        self._rules = rules
        self._left = rules.reserve

    def earn(self) -> None:
        """A call was made."""
        self._left = min(self._rules.reserve, self._left + self._rules.share)

    def spend(self) -> bool:
        """Whether one more retry is within the budget; it is then taken from it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class Counts:
    """Since the start: calls made of us, tries begun, retries among them, calls refused because the circuit was open,
    tries that failed through the server's fault, and captions and descriptions that the fallback made."""

    calls: int = 0
    tries: int = 0
    retries: int = 0
    refused: int = 0
    failures: int = 0
    fallbacks: int = 0


class Upstream:
    """One model server.

    Args:
        now: seconds on a clock that never goes back, the event loop's in production.
        sleep: waits so many seconds.
        random: a number in [0, 1), each time another.

    ``counts`` and ``circuit`` are for metrics; ``on_circuit``, where it is set, is told each change.
    """

    def __init__(
        self,
        settings: ModelSettings,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        breaker: BreakerRules | None = None,
        retries: RetryRules | None = None,
    ) -> None:
        self._settings = settings
        self._now = now
        self._random = random
        self._sleep = sleep
        self._rules = retries or RetryRules()
        self._budget = RetryBudget(self._rules)
        self._breaker = Breaker(now, breaker, self._circuit_changed)
        self._last_failure = ""
        self._probe_over = asyncio.Event()
        self.counts = Counts()
        self.on_circuit: Callable[[Circuit], None] | None = None

    @property
    def circuit(self) -> Circuit:
        return self._breaker.state

    def refuse_while_open(self) -> None:
        """
        Raises:
            ModelUnavailable: the circuit is open: calls made now would be refused.
        """
        if self._breaker.state == "open":
            raise self._left_alone()

    async def call(self, ask: Callable[[], Awaitable[T]], *, retry: bool = True) -> T:
        """What ``ask`` brings, made anew for each try. ``retry`` False makes a single one."""
        tries = _Tries(self._now(), self._settings)
        self._called()
        while True:
            try:
                with self._watched(await self._let_through(tries)):
                    return await self._bounded(tries, ask())
            except ModelError as error:
                if not retry:
                    raise
                wait = self._wait_before_retry(tries, error)
            await self._sleep(wait)

    async def stream(self, ask: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """The pieces of ``ask``'s stream, which is made anew for each try; a try that has brought a piece is the last.

        Raises:
            ModelError: the last try's, or ModelUnavailable at once while the circuit is open.
        """
        tries = _Tries(self._now(), self._settings)
        self._called()
        while True:
            begun = False
            try:
                ticket = await self._let_through(tries)
                with self._watched(ticket):
                    async with aclosing(ask()) as chunks:
                        while (chunk := await self._bounded(tries, anext(chunks, None), begun=begun)) is not None:
                            if not begun:
                                begun = True
                                self._breaker.answered(ticket)
                            yield chunk
                return
            except ModelError as error:
                if begun:
                    raise
                wait = self._wait_before_retry(tries, error)
            await self._sleep(wait)

    def _called(self) -> None:
        self.counts.calls += 1
        self._budget.earn()

    async def _let_through(self, tries: "_Tries") -> Ticket:
        """The breaker's leave for one try; at once, but for the time that another call's probe takes.

        Raises:
            ModelUnavailable: there is none.
        """
        until = min(tries.first_by, self._now() + PROBE_PATIENCE_S)
        while (ticket := self._breaker.enter()) is None:
            if self._breaker.state == "open" or self._now() >= until:
                self.counts.refused += 1
                raise self._left_alone()
            with suppress(TimeoutError):
                async with asyncio.timeout(until - self._now()):
                    await self._probe_over.wait()
        self.counts.tries += 1
        return ticket

    @contextmanager
    def _watched(self, ticket: Ticket) -> Iterator[None]:
        """One try, of which the breaker hears how it went."""
        try:
            yield
        except ModelError as error:
            if error.server_failed:
                self.counts.failures += 1
                self._last_failure = str(error)
            self._breaker.ended(ticket, failed=error.server_failed)
            raise
        except GeneratorExit:  # closed by its reader, who has enough or is gone: the server had just delivered
            self._breaker.ended(ticket, failed=False)
            raise
        except BaseException:  # cancelled while it waited, or a fault of ours
            self._breaker.left(ticket)
            self._tell_those_who_wait()
            raise
        self._breaker.ended(ticket, failed=False)

    async def _bounded(self, tries: "_Tries", step: Awaitable[T], *, begun: bool = False) -> T:
        """``step`` within what is left of the call's time. The first try bounds itself, and is spared the timers."""
        if not tries.made:
            return await step
        until = tries.total_by if begun else min(tries.total_by, tries.first_by)
        try:
            async with asyncio.timeout(until - self._now()):
                return await step
        except TimeoutError as error:
            raise ModelTimeout(
                f"The model server gave no answer within the time that a caption has, in {tries.made + 1} tries. It "
                "may be overloaded. Try again in a moment.",
                server_failed=not begun,
            ) from error

    def _wait_before_retry(self, tries: "_Tries", error: ModelError) -> float:
        """Seconds to wait before the next try; raises the error where there is to be none."""
        rules, asked = self._rules, error.retry_after or 0.0
        longest = min(rules.longest_wait_s, rules.first_wait_s * 2.0**tries.made)
        wait = asked + longest * self._random()
        tries.made += 1
        if (
            not error.retriable
            or tries.made >= rules.tries
            or asked > rules.longest_asked_s
            or self._now() + wait >= min(tries.total_by, tries.first_by)
            or not self._budget.spend()
        ):
            raise error
        self.counts.retries += 1
        return wait

    def _left_alone(self) -> ModelUnavailable:
        seconds = max(1, math.ceil(self._breaker.retry_after))
        return ModelUnavailable(
            f"The model server has failed too often and is left alone for {seconds} s. The last failure: "
            f"{self._last_failure}",
            retry_after=seconds,
            server_failed=False,
        )

    def _tell_those_who_wait(self) -> None:
        told, self._probe_over = self._probe_over, asyncio.Event()
        told.set()

    def _circuit_changed(self, circuit: Circuit) -> None:
        if circuit != "half_open":
            self._tell_those_who_wait()
        match circuit:
            case "open":
                wait = self._breaker.retry_after
                log.warning("the model server is left alone for %.0f s; the last failure: %s", wait, self._last_failure)
            case "half_open":
                log.info("the model server is tried again")
            case "closed":
                log.info("the model server answers again")
        if self.on_circuit:
            self.on_circuit(circuit)


class _Tries:
    """One call: how many of its tries failed, and by when it has to bring its first piece, and all."""

    __slots__ = ("first_by", "made", "total_by")

    def __init__(self, now: float, settings: ModelSettings) -> None:
        self.made = 0
        self.first_by = now + settings.first_token_timeout_s
        self.total_by = now + settings.total_timeout_s


class ResilientDescriber:
    """``trendrag.ports.Describer`` over one that asks ``upstream``; ``fallback`` describes where that can't."""

    def __init__(self, upstream: Upstream, describer: Describer, fallback: Describer | None = None) -> None:
        self._upstream = upstream
        self._describer = describer
        self._fallback = fallback

    @property
    def always(self) -> bool:
        return self._describer.always

    async def describe(self, image: PreparedImage) -> Description:
        try:
            return await self._upstream.call(lambda: self._describer.describe(image))
        except ModelError as error:
            if self._fallback is None or not _away(error):
                raise
            with _instead_of(error):
                description = await self._fallback.describe(image)
        self._upstream.counts.fallbacks += 1
        return replace(description, degraded=True)


class ResilientJudge:
    """``trendrag.ports.Judge``. Without retries: captions do without a judge, and it must not take long."""

    def __init__(self, upstream: Upstream, judge: Judge) -> None:
        self._upstream = upstream
        self._judge = judge

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        return await self._upstream.call(lambda: self._judge.judge(request, trends), retry=False)


class ResilientWriter:
    """``trendrag.ports.Writer`` over one that asks ``upstream``; ``fallback`` writes where that can't begin.

    The fallback is given its own describer's words: it can't see the image, and those of another describer, or none
    where a note stood alone, are not what it was made for.
    """

    def __init__(self, upstream: Upstream, writer: Writer, fallback: tuple[Describer, Writer] | None = None) -> None:
        self._upstream = upstream
        self._writer = writer
        self._fallback = fallback
        self._descriptions: OrderedDict[str, str] = OrderedDict()  # by image hash: one image has up to 8 candidates
        self._describing = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._writer.name

    @property
    def draft(self) -> bool:
        return self._writer.draft

    async def write(
        self, request: CaptionRequest, description: str, trends: tuple[RetrievedTrend, ...], candidate: int
    ) -> AsyncGenerator[Chunk, None]:
        begun = False
        try:
            asked = self._upstream.stream(lambda: self._writer.write(request, description, trends, candidate))
            async with aclosing(asked) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
            return
        except ModelError as error:
            if begun or self._fallback is None or not _away(error):
                raise
            failed = error
        describer, writer = self._fallback
        with _instead_of(failed):
            known = await self._described(describer, request.image)
            async with aclosing(writer.write(request, known, trends, candidate)) as chunks:
                async for chunk in chunks:
                    self._upstream.counts.fallbacks += not begun
                    begun = True
                    yield replace(chunk, degraded=True, model=writer.name)

    async def _described(self, describer: Describer, image: PreparedImage) -> str:
        async with self._describing:
            known = self._descriptions.get(image.sha256)
            if known is None:
                known = self._descriptions[image.sha256] = (await describer.describe(image)).text
                while len(self._descriptions) > 16:
                    self._descriptions.popitem(last=False)
        return known


def _away(error: ModelError) -> bool:
    """Whether the server could not, rather than would not: what it refuses is for somebody to mend."""
    return not isinstance(error, ModelRejected)


@contextmanager
def _instead_of(failed: ModelError) -> Iterator[None]:
    """Where the fallback fails too (its weights are missing, or it can't do what is asked), the first failure is what
    the caller should hear of."""
    try:
        yield
    except TrendragError as error:
        log.warning("the draft engine could not take over: %s", error)
        raise failed from error
