"""The caption chain: describe the image, retrieve the trends that fit, write candidates, highlight as they stream.

Where there is a judge, it looks at the trends that were retrieved before the writer is offered them.

It knows the ports of ``trendrag.ports`` and the order of events, and nothing of model servers, indexes or HTTP.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from langchain_core.runnables import Runnable, RunnableGenerator

from trendrag.errors import ModelError, TrendragError
from trendrag.highlight import Highlighter
from trendrag.ports import Describer, Judge, Retriever, Writer
from trendrag.text import clean_note, clean_output, normal_form
from trendrag.types import (
    CandidateDone,
    CaptionEvent,
    CaptionRequest,
    Delta,
    Described,
    Done,
    Failed,
    Highlight,
    Judged,
    Retrieval,
    Timings,
    TrendsRetrieved,
    Usage,
    surfaces,
)

logger = logging.getLogger(__name__)

STANDALONE_WORDS = 5
"""A note of so many words of four letters or more says enough to search with; the image is then not described."""

DESCRIPTIONS_CACHED = 512
JUDGED_NONE = "No trend fits this photo: the model looked at those that came near and chose none."


def build_caption_chain(
    describer: Describer, retriever: Retriever, writer: Writer, judge: Judge | None = None
) -> Runnable[CaptionRequest, CaptionEvent]:
    """A LangChain runnable from a request to its events; use ``astream``, and close it to stop the model calls.

    Events: `Described`, `TrendsRetrieved`, then `Delta` and `Highlight` of all candidates interleaved with a
    `CandidateDone` each, then `Done`. `Failed` may take the place of everything that would follow, and is then the
    last. No `TrendragError` is raised. A highlight comes after the deltas that hold its text. A judge that fails costs
    nothing but its time: the trends are offered as found, and `TrendsRetrieved` says so.
    """
    chain = _CaptionChain(describer, retriever, writer, judge)

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
    def __init__(self, describer: Describer, retriever: Retriever, writer: Writer, judge: Judge | None) -> None:
        self._describer = describer
        self._retriever = retriever
        self._writer = writer
        self._judge = judge
        self._judge_failing = False
        self._descriptions: OrderedDict[str, str] = OrderedDict()  # by image hash, oldest first

    async def run(self, request: CaptionRequest) -> AsyncGenerator[CaptionEvent, None]:
        """All events of one request."""
        clock = _Clock()
        try:
            described, usage = await self._describe(request)
            clock.describe = clock.now()
            yield described
            retrieval = await self._retrieve(request, described.text)
            clock.retrieve = clock.now() - clock.describe
            retrieval, judged, spent = await self._last_look(request, retrieval)
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
                    else:
                        yield event
        except TrendragError as error:
            yield Failed(code=error.code, message=str(error))
            return
        except Exception:  # the last line of defence: a stream never just stops
            logger.exception("the caption chain failed")
            yield Failed(code="internal", message="Something went wrong on our side; the log says what.")
            return
        yield Done(
            usage=usage,
            timings=clock.timings(),
            snapshot_id=retrieval.snapshot.id if retrieval.snapshot else None,
            model=self._writer.name,
            draft=self._writer.draft,
        )

    async def _describe(self, request: CaptionRequest) -> tuple[Described, Usage]:
        wanted = self._describer.always or (request.trends and not stands_alone(request.note))
        if not wanted:
            return Described(text="", source="note"), Usage()
        image = request.image
        cached = self._descriptions.get(image.sha256)
        if cached is not None:
            self._descriptions.move_to_end(image.sha256)
            return Described(text=cached, source="cache"), Usage()
        description = await self._describer.describe(image)
        self._descriptions[image.sha256] = description.text
        while len(self._descriptions) > DESCRIPTIONS_CACHED:
            self._descriptions.popitem(last=False)
        return Described(text=description.text, source="model"), description.usage

    async def _retrieve(self, request: CaptionRequest, description: str) -> Retrieval:
        if not request.trends:
            return Retrieval(reason="Trends are switched off.")
        query = ". ".join(part for part in (description, clean_note(request.note or "")) if part)
        return await self._retriever.retrieve(query, request.filters)

    async def _last_look(self, request: CaptionRequest, retrieval: Retrieval) -> tuple[Retrieval, Judged | None, Usage]:
        """What is left of a retrieval, in its order, once the judge has chosen; all of it where the judge fails."""
        if self._judge is None or not retrieval.trends:
            return retrieval, None, Usage()
        try:
            judgement = await self._judge.judge(request, retrieval.trends)
        except TrendragError as error:
            if not self._judge_failing:  # once, not for every caption until it is cured
                logger.warning("trends are offered without the model's last look: %s", error)
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
        """Writes all candidates at once; their events in the order in which they come. The first failure ends all."""
        # A small queue: a reader that does not keep up slows the model down instead of filling memory.
        queue: asyncio.Queue[CaptionEvent | Usage | BaseException | None] = asyncio.Queue(maxsize=64)

        async def write(candidate: int) -> None:
            try:
                async with aclosing(self._write(request, description, retrieval, candidate)) as events:
                    async for event in events:
                        await queue.put(event)
            except Exception as error:  # noqa: BLE001  (handed to the reader, which raises it)
                await queue.put(error)
            else:
                await queue.put(None)

        tasks = [asyncio.create_task(write(candidate)) for candidate in range(request.candidates)]
        try:
            running = len(tasks)
            while running:
                event = await queue.get()
                if event is None:
                    running -= 1
                elif isinstance(event, BaseException):
                    raise event
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
        parts: list[str] = []
        held = ""
        logprob, tokens = 0.0, 0
        mentioned: dict[str, None] = {}
        chunks = self._writer.write(request, description, retrieval.trends, candidate)
        async with aclosing(chunks) as stream:
            async for chunk in stream:
                # White space at either end belongs to the model's manners, not to the caption: what may turn out to be
                # the end is held back until more text follows. Spans index what is sent.
                text = held + clean_output(chunk.text)
                text = text if parts else text.lstrip()
                held = text[len(text.rstrip()) :]
                if text := text.rstrip():
                    parts.append(text)
                    yield Delta(candidate=candidate, text=text)
                    for span in highlighter.feed(text):
                        mentioned[span.trend_id] = None
                        yield _highlight(candidate, span)
                logprob += chunk.logprob
                tokens += chunk.tokens
                if chunk.usage:
                    yield chunk.usage
        if not parts:
            raise ModelError("The model wrote nothing. Try again, or with another note.")
        for span in highlighter.close():
            mentioned[span.trend_id] = None
            yield _highlight(candidate, span)
        yield CandidateDone(
            candidate=candidate,
            text="".join(parts),
            # A sum of log-probabilities is never above 0; servers round.
            confidence=min(1.0, math.exp(logprob / tokens)) if tokens else None,
            trend_ids=tuple(mentioned),
        )


def _highlight(candidate: int, span: tuple[int, int, str]) -> Highlight:
    start, end, trend_id = span
    return Highlight(candidate=candidate, start=start, end=end, trend_id=trend_id)


def stands_alone(note: str | None) -> bool:
    """Whether a note says enough about the image to search trends with it alone."""
    words = {word for word in normal_form(note or "").split() if len(word) >= 4}
    return len(words) >= STANDALONE_WORDS
