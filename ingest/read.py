"""One source, read once: asked if it is due, its answer parsed and stored, and what that means for the next time kept.

When to ask and what to make of an answer is decided by ``policy``; this carries it out. Which sources there are, and
what becomes of what they said, is left to ``refresh``.
"""

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, TypedDict
from urllib.parse import urlsplit

from ingest import policy
from ingest.fetcher import PER_HOST, Fetcher, HttpStatus, NotModified
from ingest.observation import Parsed
from ingest.policy import Answer, Failure, FetchState
from ingest.retention import kept_for
from ingest.sources.base import Source
from ingest.states import FetchStates
from ingest.store import ObservationStore
from trendrag.errors import ConfigurationError, ParseError, SourceError
from trendrag.settings import IngestSettings
from trendrag.text import age

Status = Literal["ok", "unchanged", "failed", "not_due", "waiting", "muted"]
"""``ok`` and ``unchanged``: it was asked and answered. ``failed``: it was asked in vain. The others were not asked:
``not_due``, since its last answer is still good; ``waiting``, after errors; ``muted``, until its entry is changed."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """How one source did. ``newest`` is the latest time that its items speak of; ``error`` None where all is well.
    ``next_due`` is when it may be asked again, ``wait`` how long that is from this refresh; None where nobody knows."""

    source: str
    items: int = 0
    new: int = 0
    newest: datetime | None = None
    error: str | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    status: Status = "ok"
    next_due: datetime | None = None
    wait: timedelta | None = None

    @property
    def well(self) -> bool:
        return self.status in ("ok", "unchanged", "not_due")

    @property
    def says(self) -> str:
        """Its status in words, as tables and logs show it."""
        when = f"in {age(self.wait)}" if self.wait is not None else "later"
        match self.status:
            case "failed":
                return self.error or "failed"
            case "not_due":
                return f"not due ({when})"
            case "waiting":
                return f"waiting ({self.error}, {when})"
            case "muted":
                return f"muted: {self.error}; change or remove its entry in the sources file"
            case status:
                return status


class _Next(TypedDict):
    next_due: datetime | None
    wait: timedelta | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report, with the source's state before, whether it was asked, and why it failed, if it did."""

    source: Source
    report: SourceReport
    before: FetchState
    asked: bool = True
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """What reading a source needs. ``states`` None: nothing is known of any source, and nothing remembered.

    ``everything`` is as in ``policy.due``; ``jitter`` gives a random number in [0, 1). Use within one event loop.
    ``free`` are the places for sources that are read at a time, ``hosts`` those for sources of one host: these wait for
    each other's turn, and would hold all places meanwhile.
    """

    settings: IngestSettings
    fetcher: Fetcher
    store: ObservationStore
    states: FetchStates | None
    now: datetime
    everything: bool
    jitter: Callable[[], float]
    free: asyncio.Semaphore
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    hosts: dict[str | None, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(PER_HOST))
    )

    async def read(self, source: Source, state: FetchState) -> Outcome:
        """Never raises a ``SourceError``: that is in the report."""
        if not policy.due(state, self.now, everything=self.everything):
            return Outcome(source, self._not_asked(source, state), state, asked=False)
        try:
            source.headers(self.settings)
        except ConfigurationError as error:
            return await self._without_key(source, state, error)
        async with self.hosts[urlsplit(source.urls(self.now)[0]).hostname], self.free:
            try:
                answer, seen_at = await self._ask(source, state)
                parsed = await self._parsed(source, state, answer, seen_at)
            except SourceError as error:
                return await self._failed(source, state, error)
            return await self._succeeded(source, state, answer, parsed, seen_at)

    async def forgive(self, outcome: Outcome) -> Outcome:
        """Takes back what a failure did to a source's state, where the failure was not the source's."""
        if self.states is None or outcome.failure is None:
            return outcome
        state = policy.after_outage(outcome.before, outcome.failure, self.now, self.jitter())
        await asyncio.to_thread(self.states.save, outcome.source, state)
        return replace(outcome, report=replace(outcome.report, **self._next(state)))

    async def _ask(self, source: Source, state: FetchState) -> tuple[Answer, datetime]:
        *earlier, last = source.urls(self.now)
        for url in earlier:
            try:
                return await self._get(source, state, url)
            except HttpStatus as error:
                if error.status != 404:
                    raise
        return await self._get(source, state, last)

    async def _get(self, source: Source, state: FetchState, url: str) -> tuple[Answer, datetime]:
        """The answer, and when it came: for a 304 that is the time of this refresh."""
        conditions = policy.conditions(state, url, live=source.live)
        keys = source.headers(self.settings)
        try:
            fetched = await self.fetcher.get(policy.address(state, url), headers={**keys, **conditions})
        except NotModified as error:
            if not conditions:
                raise
            return Answer(url, error.headers, source.every, None, moved=() if keys else error.moved), self.now
        checksum = hashlib.sha256(fetched.body).hexdigest()
        # What has a key is never taken to have moved: the key would be sent to wherever a redirect has led.
        moved = () if keys else fetched.moved
        return Answer(url, fetched.headers, source.every, checksum, fetched.body, moved), fetched.fetched_at

    async def _parsed(self, source: Source, state: FetchState, answer: Answer, seen_at: datetime) -> Parsed | None:
        """What the list says now; None where it is of dated items and has nothing new."""
        if policy.unchanged(state, answer) and not source.live:
            return None
        body = state.body if answer.body is None else answer.body
        # In a thread: a large feed takes seconds to parse.
        return await asyncio.to_thread(source.parse, body or b"", seen_at)

    async def _succeeded(
        self, source: Source, state: FetchState, answer: Answer, parsed: Parsed | None, seen_at: datetime
    ) -> Outcome:
        answer = replace(answer, ttl=parsed.ttl) if parsed else answer
        after = policy.after_answer(state, answer, self.now, self.jitter())
        if not source.live:
            after = replace(after, body=None)
        seen = parsed.observations if parsed else ()
        # What would be removed at once is not stored: a feed may list its whole past every time.
        oldest = self.now - kept_for(self.settings)
        async with self.storing:
            new = await asyncio.to_thread(self.store.add, [each for each in seen if each.at >= oldest])
            items = len(seen) if parsed else None
            size = None if answer.body is None else len(answer.body)
            await asyncio.to_thread(self.store.succeeded, source.id, seen_at, items=items, new=new, size=size)
            # Last: what was stored and not marked as read is read again, never the other way round.
            if self.states:
                await asyncio.to_thread(self.states.save, source, after)
        report = SourceReport(
            source.id,
            len(seen),
            new,
            max((each.published_at or each.at for each in seen), default=None),
            dropped=parsed.dropped if parsed else Counter(),
            status="unchanged" if policy.unchanged(state, answer) else "ok",
            **self._next(after),
        )
        return Outcome(source, report, state)

    async def _failed(self, source: Source, state: FetchState, error: SourceError) -> Outcome:
        failure = _failure(error)
        after = policy.after_error(state, failure, self.now, self.jitter())
        async with self.storing:
            await asyncio.to_thread(self.store.failed, source.id, self.now, str(error))
            if self.states:
                await asyncio.to_thread(self.states.save, source, after)
        if self.states and after.muted:
            report = SourceReport(source.id, error=after.muted, status="muted")
        else:
            report = SourceReport(source.id, error=str(error), status="failed", **self._next(after))
        return Outcome(source, report, state, failure=failure)

    async def _without_key(self, source: Source, state: FetchState, error: ConfigurationError) -> Outcome:
        """It can't be asked. Its state stays, so that it is asked as soon as the key is there."""
        async with self.storing:
            await asyncio.to_thread(self.store.failed, source.id, self.now, str(error))
        return Outcome(source, SourceReport(source.id, error=str(error), status="failed"), state, asked=False)

    def _not_asked(self, source: Source, state: FetchState) -> SourceReport:
        if state.muted:
            return SourceReport(source.id, error=state.muted, status="muted")
        if state.reason:
            return SourceReport(source.id, error=state.reason, status="waiting", **self._next(state))
        return SourceReport(source.id, status="not_due", **self._next(state))

    def _next(self, state: FetchState) -> _Next:
        due = state.next_due if self.states else None
        return {"next_due": due, "wait": due - self.now if due else None}


def _failure(error: SourceError) -> Failure:
    if isinstance(error, HttpStatus):
        return Failure(str(error.status), error.status, error.headers)
    if isinstance(error, ParseError):
        return Failure("an answer that can't be read")
    return Failure("no answer", answered=False)
