"""The caption chain: describe the image, retrieve the trends that fit, write candidates, highlight as they stream.

Where there is a judge, it looks at the trends that were retrieved before the writer is offered them. What the writer
streams is shaped to what was asked for (``shaping``) before anybody sees it.

It knows the ports of ``trendrag.ports`` and the order of events, and nothing of model servers, indexes or HTTP.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from langchain_core.runnables import Runnable, RunnableGenerator

from trendrag.errors import ModelError, TrendragError
from trendrag.highlight import Highlighter, find_spans
from trendrag.platforms import Platforms, built_in_platforms
from trendrag.ports import Describer, Judge, Retriever, Writer
from trendrag.shaping import Shaper
from trendrag.text import clean_line, clean_note, normal_form
from trendrag.types import (
    CandidateDone,
    CandidateFailed,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    Highlight,
    Judged,
    Retrieval,
    RetrievedTrend,
    SnapshotInfo,
    Timings,
    Trend,
    TrendFilters,
    TrendsRetrieved,
    Usage,
    surfaces,
)

logger = logging.getLogger(__name__)

STANDALONE_WORDS = 5
"""A note of so many words of four letters or more says enough to search with; the image is then not described."""

ALL_EXCLUDED = "The trends that fit this photo are among those never to use."
INTERNAL = "Something went wrong on our side; the log says what."
JUDGED_NONE = "No trend fits this photo: the model looked at those that came near and chose none."


def build_caption_chain(
    describer: Describer,
    retriever: Retriever,
    writer: Writer,
    judge: Judge | None = None,
    platforms: Platforms | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Runnable[CaptionRequest, CaptionEvent]:
    """A LangChain runnable from a request to its events; use ``astream``, and close it to stop the model calls.

    Events: `Described`, `TrendsRetrieved`, then `Delta` and `Highlight` of all candidates interleaved with a
    `CandidateDone` or `CandidateFailed` each, then `Done`. `Failed` may take the place of everything that would follow,
    and is then the last; it follows too where every candidate failed. No `TrendragError` is raised. A highlight comes
    after the deltas that hold its text. A judge that fails costs nothing but its time: the trends are offered as found,
    and `TrendsRetrieved` says so. Without ``platforms`` the built-in rules hold.
    """
    chain = _CaptionChain(describer, retriever, writer, judge, platforms or built_in_platforms(), now)

    async def transform(requests: AsyncIterator[CaptionRequest]) -> AsyncIterator[CaptionEvent]:
        async for request in requests:
            async with aclosing(chain.run(request)) as events:
                async for event in events:
                    yield event

    return RunnableGenerator(transform, name="caption")


@dataclass(slots=True)
class _Clock:
    started: float = field(default_factory=time.monotonic)
    describe: float | None = None
    retrieve: float | None = None
    judge: float | None = None
    first_token: float | None = None

    def now(self) -> float:
        return time.monotonic() - self.started

    def timings(self) -> Timings:
        return Timings(
            describe=self.describe,
            retrieve=self.retrieve,
            judge=self.judge,
            first_token=self.first_token,
            total=self.now(),
        )


class _CaptionChain:
    def __init__(
        self,
        describer: Describer,
        retriever: Retriever,
        writer: Writer,
        judge: Judge | None,
        platforms: Platforms,
        now: Callable[[], datetime],
    ) -> None:
        self._describer = describer
        self._retriever = retriever
        self._writer = writer
        self._judge = judge
        self._platforms = platforms
        self._now = now
        self._judge_failing = False

    async def run(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """All events of one request."""
        clock = _Clock()
        finished: list[CandidateDone] = []
        failed: CandidateFailed | None = None
        try:
            request = self._platforms.filled_in(request)
            described, usage = await self._describe(request)
            clock.describe = clock.now()
            yield described
            retrieval = await self._retrieve(request, described.text)
            kept = await self._kept(request)
            clock.retrieve = clock.now() - clock.describe
            retrieval, judged, spent = await self._last_look(request, _without(retrieval, kept))
            retrieval = _with_first(kept, retrieval, request.filters.k)
            usage += spent
            if judged:
                clock.judge = clock.now() - clock.describe - clock.retrieve
            yield TrendsRetrieved(
                trends=retrieval.trends, snapshot=retrieval.snapshot, reason=retrieval.reason, judged=judged
            )
            async with aclosing(self._write_all(request, described.text, retrieval, clock)) as events:
                async for event in events:
                    if isinstance(event, Usage):
                        usage += event
                        continue
                    if isinstance(event, CandidateDone):
                        finished.append(event)
                    elif isinstance(event, CandidateFailed):
                        failed = failed or event
                    yield event
        except TrendragError as error:
            yield Failed(code=error.code, message=str(error), retry_after=error.retry_after)
            return
        except Exception:  # the last line of defence: a stream never just stops
            logger.exception("the caption chain failed")
            yield Failed(code="internal", message=INTERNAL)
            return
        if failed and not finished:
            yield Failed(code=failed.code, message=failed.message, retry_after=failed.retry_after)
            return
        yield self._done(finished, usage, clock, retrieval.snapshot)

    def _done(
        self, finished: Sequence[CandidateDone], usage: Usage, clock: _Clock, snapshot: SnapshotInfo | None
    ) -> Done:
        stand_ins = [candidate.model for candidate in finished if candidate.degraded]
        seen = snapshot.recorded_at if snapshot else None
        return Done(
            usage=usage,
            timings=clock.timings(),
            snapshot_id=snapshot.id if snapshot else None,
            snapshot_age_s=max(0.0, (self._now() - seen).total_seconds()) if seen else None,
            model=(len(stand_ins) == len(finished) and stand_ins[0]) or self._writer.name,
            draft=self._writer.draft or bool(stand_ins),
            degraded=bool(stand_ins),
        )

    async def _describe(self, request: CaptionRequest) -> tuple[Described, Usage]:
        wanted = self._describer.always or (_wants_trends(request) and not stands_alone(request.note))
        if not wanted:
            return Described(text="", source="note"), Usage()
        description = await self._describer.describe(request.image)
        source: Literal["cache", "model"] = "cache" if description.cached else "model"
        return Described(text=description.text, source=source), description.usage

    async def _retrieve(self, request: CaptionRequest, description: str) -> Retrieval:
        if not _wants_trends(request):
            return Retrieval(reason="Alt text uses no trends." if request.alt_text else "Trends are switched off.")
        query = ". ".join(part for part in (description, clean_note(request.note or "")) if part)
        retrieval = await self._retriever.retrieve(query, _filters(request))
        allowed = _allowed(retrieval.trends, request.exclude)[: request.filters.k]
        reason = retrieval.reason if allowed or not retrieval.trends else ALL_EXCLUDED
        return retrieval.model_copy(update={"trends": allowed, "reason": reason})

    async def _kept(self, request: CaptionRequest) -> tuple[RetrievedTrend, ...]:
        """The trends that the caption to be changed mentions: they stay offered, whatever else is found now."""
        earlier = next((turn.text for turn in reversed(request.turns) if turn.role == "assistant"), "")
        if not earlier or not _wants_trends(request):
            return ()
        retrieval = await self._retriever.retrieve(clean_note(earlier), _filters(request))
        mentioned = {span.trend_id for span in find_spans(earlier, surfaces([hit.trend for hit in retrieval.trends]))}
        return _allowed([hit for hit in retrieval.trends if hit.trend.id in mentioned], request.exclude)

    async def _last_look(self, request: CaptionRequest, retrieval: Retrieval) -> tuple[Retrieval, Judged | None, Usage]:
        """What is left of a retrieval, in its order, once the judge has chosen; all of it where the judge fails."""
        if self._judge is None or not retrieval.trends:
            return retrieval, None, Usage()
        try:
            judgement = await self._judge.judge(request, retrieval.trends)
        except TrendragError as error:
            if not self._judge_failing:  # once, not for every caption until it is cured
                # The code and not the message, which may quote the server, which may quote the note.
                logger.warning("trends are offered without the model's last look: %s", error.code)
            self._judge_failing = True
            return retrieval, "failed", Usage()
        if self._judge_failing:
            logger.info("the model looks at the trends again")
        self._judge_failing = False
        chosen = tuple(found for place, found in enumerate(retrieval.trends) if place in judgement.chosen)
        reason = retrieval.reason if chosen else JUDGED_NONE
        return retrieval.model_copy(update={"trends": chosen, "reason": reason}), "model", judgement.usage

    async def _write_all(
        self, request: CaptionRequest, description: str, retrieval: Retrieval, clock: _Clock
    ) -> AsyncGenerator[CaptionEvent | Usage, None]:
        """Writes all candidates at once; their events in the order in which they come. One that fails ends alone."""
        # A small queue: a reader that does not keep up slows the model down instead of filling memory.
        queue: asyncio.Queue[CaptionEvent | Usage | None] = asyncio.Queue(maxsize=64)

        async def write(candidate: int) -> None:
            try:
                async with aclosing(self._write(request, description, retrieval, candidate)) as events:
                    async for event in events:
                        await queue.put(event)
            except TrendragError as error:
                told = CandidateFailed(
                    candidate=candidate, code=error.code, message=str(error), retry_after=error.retry_after
                )
                await queue.put(told)
            except Exception:
                logger.exception("a candidate failed")
                await queue.put(CandidateFailed(candidate=candidate, code="internal", message=INTERNAL))
            await queue.put(None)

        tasks = [asyncio.create_task(write(candidate)) for candidate in request.numbers]
        try:
            running = len(tasks)
            while running:
                event = await queue.get()
                if event is None:
                    running -= 1
                else:
                    if clock.first_token is None and isinstance(event, Delta):
                        clock.first_token = clock.now()
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            # Waits until the upstream requests are really closed.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(
        self, request: CaptionRequest, description: str, retrieval: Retrieval, candidate: int
    ) -> AsyncGenerator[CaptionEvent | Usage, None]:
        highlighter = Highlighter(surfaces([found.trend for found in retrieval.trends]))
        shaper = Shaper(
            request.limit,
            emoji=request.emoji and not request.alt_text,
            hashtags=request.hashtags and not request.alt_text,
        )
        parts: list[str] = []
        mentioned: dict[str, None] = {}

        def sent(text: str) -> list[CaptionEvent]:
            """``text`` and what it makes certain of the trends, as events. Spans index what is sent."""
            spans = highlighter.feed(text) if text else []
            mentioned.update(dict.fromkeys(span.trend_id for span in spans))
            parts.append(text)
            delta: list[CaptionEvent] = [Delta(candidate=candidate, text=text)] if text else []
            return delta + [_highlight(candidate, span) for span in spans]

        logprob, tokens, usage = 0.0, 0, None
        cut = degraded = False
        model = None
        chunks = self._writer.write(request, description, retrieval.trends, candidate)
        async with aclosing(chunks) as stream:
            async for chunk in stream:
                for event in sent(shaper.feed(chunk.text)):
                    yield event
                logprob += chunk.logprob
                tokens += chunk.tokens
                usage = chunk.usage or usage
                cut = cut or chunk.cut
                degraded = degraded or chunk.degraded
                model = chunk.model or model
                if shaper.cut:  # the rest would be thrown away; closing the stream stops the model
                    break
        for event in sent(shaper.close()):
            yield event
        # A stream that was closed may have told none yet: what is known then are the tokens that were read.
        yield usage or Usage(completion_tokens=tokens)
        text = "".join(parts)
        if not text:
            raise ModelError("The model wrote nothing. Try again, or with another note.")
        for span in highlighter.close():
            mentioned[span.trend_id] = None
            yield _highlight(candidate, span)
        yield CandidateDone(
            candidate=candidate,
            text=text,
            # A sum of log-probabilities is never above 0; servers round.
            confidence=min(1.0, math.exp(logprob / tokens)) if tokens else None,
            trend_ids=tuple(mentioned),
            cut=cut or shaper.cut,
            missing=tuple(words for words in request.include if clean_line(words, 80) and not _says(text, words)),
            unwanted=tuple(words for words in request.exclude if _says(text, words)),
            degraded=degraded,
            model=model if degraded else None,
        )


def _highlight(candidate: int, span: tuple[int, int, str]) -> Highlight:
    start, end, trend_id = span
    return Highlight(candidate=candidate, start=start, end=end, trend_id=trend_id)


def _wants_trends(request: CaptionRequest) -> bool:
    return request.trends and not request.alt_text


def _filters(request: CaptionRequest) -> TrendFilters:
    """Asks for more than are wanted where some of them may be taken out."""
    k = request.filters.k
    if k is None or not request.exclude:
        return request.filters
    return request.filters.model_copy(update={"k": k + len(request.exclude)})


def _allowed(trends: Sequence[RetrievedTrend], exclude: Sequence[str]) -> tuple[RetrievedTrend, ...]:
    """Those that ``exclude`` does not name by their id, nor by words of their phrase or of another spelling."""
    if not exclude:
        return tuple(trends)

    def excluded(trend: Trend) -> bool:
        spellings = (trend.phrase, *trend.aliases)
        # The normal form too: it takes a hashtag apart.
        texts = [*spellings, *map(normal_form, spellings)]
        return trend.id in exclude or any(_says(text, words) for text in texts for words in exclude)

    return tuple(hit for hit in trends if not excluded(hit.trend))


def _says(text: str, words: str) -> bool:
    """Whether the text has the words, by the rules of highlighting."""
    return bool(find_spans(text, [("", (words,))]))


def _without(retrieval: Retrieval, kept: Sequence[RetrievedTrend]) -> Retrieval:
    ids = {hit.trend.id for hit in kept}
    return retrieval.model_copy(update={"trends": tuple(hit for hit in retrieval.trends if hit.trend.id not in ids)})


def _with_first(kept: tuple[RetrievedTrend, ...], retrieval: Retrieval, k: int | None) -> Retrieval:
    if not kept:
        return retrieval
    return retrieval.model_copy(update={"trends": (*kept, *retrieval.trends)[:k], "reason": None})


def stands_alone(note: str | None) -> bool:
    """Whether a note says enough about the image to search trends with it alone."""
    words = {word for word in normal_form(note or "").split() if len(word) >= 4}
    return len(words) >= STANDALONE_WORDS
