"""The loop: reads ahead, has rows settled many at a time, notes what is settled, and writes it in input order.

    lines ──feed──▶ window (in order) ──work──▶ journal (as they end) ──keep──▶ output, errors (in order), mark

Whatever happens to the process, what the journal has is true. What stands in the files beyond its mark is cut off when
a run goes on, and what stands in the journal beyond it is written then.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from serving.batch.files import Files
from serving.batch.journal import Journal, Known, Mark, Settled
from serving.batch.pace import Gate
from serving.batch.records import Malformed, Record, parse
from serving.batch.selection import Selection
from serving.batch.source import Source
from serving.batch.work import failed, line_hash, record_hash
from trendrag.errors import RequestError, StorageError, TrendragError

WINDOW_ROWS = 4_096
WINDOW_BYTES = 64 * 2**20
CHUNK_ROWS, CHUNK_BYTES = 256, 4 * 2**20
KEEP_EVERY_S = 0.5

log = logging.getLogger(__name__)
T = TypeVar("T")

Work = Callable[[Record, bytes, Known], Awaitable[Settled]]
"""(record, hash of its line, what the journal has for it) → how it ended. Raises TrendragError where the run has to
end."""


@dataclass(slots=True)
class Progress:
    """Counted while it runs. ``before``: rows that earlier runs had settled, of which this one was told."""

    read: int = 0
    selected: int = 0
    done: int = 0
    failed: int = 0
    before: int = 0
    malformed: int = 0
    codes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Slot:
    """A selected row between reading and writing. ``raw`` is its line, ``line`` that line's hash."""

    number: int
    selected: int
    digest: str
    raw: bytes
    line: bytes
    record: Record | None
    settled: Settled | None = None


class Run:
    """
    Args:
        width: how many rows the work can have under way at once; asked again and again.
        retry: also the rows that failed before.
    """

    def __init__(
        self,
        source: Source,
        selection: Selection,
        journal: Journal,
        files: Files,
        work: Work,
        width: Callable[[], int],
        *,
        retry: bool = False,
        id_field: str = "id",
    ) -> None:
        self._source = source
        self._selection = selection
        self._journal = journal
        self._files = files
        self._work = work
        self._width = width
        self._retry = retry
        self._id_field = id_field
        self._mark = files.mark
        self._window: deque[Slot] = deque()
        self._window_bytes = 0
        self._room = asyncio.Event()
        self._fresh: list[Settled] = []
        self._ahead = Gate(self._places())
        self._fed = False
        self._under_way = 0
        self._over = asyncio.Event()
        self._flushed_at = 0.0
        # SQLite and the files are one thread's, in the order in which they are asked.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.progress = Progress(selected=self._mark.selected)

    async def run(self) -> Progress:
        """Returns when every selected row is settled and written.

        Raises:
            RequestError: the input can't be read any further, or is not the one that the run began with.
            StorageError: the disk is full or fails.
            ModelError: no server is left to ask.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep())
                await self._feed(group)
                self._fed = True
                self._tell_the_end()
        except BaseExceptionGroup as several:
            error = _first(several)
            if not isinstance(error, StorageError):
                await self._settle_up()
            raise error from None
        except asyncio.CancelledError:
            await self._settle_up()
            raise
        finally:
            self._thread.shutdown()
        return self.progress

    # --- reading

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        reader = _Reader(self._source, self._mark)
        selected = self._mark.selected
        last = None if self._selection.limit is None else self._selection.offset + self._selection.limit
        while (last is None or selected < last) and (lines := await asyncio.to_thread(reader.chunk)):
            known = await self._known(lines[0][0], lines[-1][0])
            for number, raw, digest in lines:
                self.progress.read += 1
                if not raw.strip():
                    continue
                record: Record | None = None
                fault = ""
                try:
                    record = parse(number, raw)
                except Malformed as error:
                    fault = str(error)
                if record is not None:
                    if not self._selection.takes(record):
                        continue
                    selected += 1
                    if selected <= self._selection.offset:
                        continue
                    self.progress.selected += 1
                slot = Slot(number, selected, digest, raw, line_hash(raw), record)
                await self._admit(slot)
                before = known.get(number)
                if before is not None and before.line != slot.line:
                    raise _changed(number)
                if record is None:
                    self.progress.malformed += 1
                    self._end(slot, failed(number, slot.line, Malformed.code, fault))
                elif before is not None and not (self._retry and before.state == "failed"):
                    self.progress.before += 1
                    slot.settled = before
                    self._count(before)
                else:
                    await self._ahead.enter()
                    self._under_way += 1
                    group.create_task(self._row(slot, record))
                if last is not None and selected >= last:
                    return

    async def _known(self, first: int, last: int) -> dict[int, Settled]:
        return await self._in_thread(lambda: self._journal.settled(first, last))

    async def _admit(self, slot: Slot) -> None:
        while len(self._window) >= WINDOW_ROWS or self._window_bytes >= WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        self._window.append(slot)
        self._window_bytes += len(slot.raw)

    async def _row(self, slot: Slot, record: Record) -> None:
        try:
            alike = record_hash(record, self._id_field)
            known = await self._in_thread(lambda: self._journal.alike(alike))
            settled = await self._work(record, slot.line, known)
        except TrendragError:
            raise
        except Exception:  # the last line of defence: no row ends the others
            log.exception("row %d failed", slot.number)
            settled = failed(slot.number, slot.line, "internal", "Something went wrong on our side; the log says what.")
        finally:
            self._ahead.leave()
            self._under_way -= 1
        self._end(slot, settled)
        self._tell_the_end()

    def _tell_the_end(self) -> None:
        """Wakes the keeper for the last time, so that nobody waits for its next look."""
        if self._fed and not self._under_way:
            self._over.set()

    def _end(self, slot: Slot, settled: Settled) -> None:
        slot.settled = settled
        self._fresh.append(settled)
        self._count(settled)

    def _count(self, settled: Settled) -> None:
        if settled.state == "done":
            self.progress.done += 1
            return
        self.progress.failed += 1
        code = str(settled.result.get("code", ""))
        self.progress.codes[code] = self.progress.codes.get(code, 0) + 1

    # --- keeping

    async def _keep(self) -> None:
        while not (self._fed and not self._window and not self._fresh):
            with suppress(TimeoutError):
                async with asyncio.timeout(KEEP_EVERY_S):
                    await self._over.wait()
            self._ahead.change(self._places())
            await self._keep_once(end=False)
        await self._keep_once(end=True)

    async def _keep_once(self, *, end: bool) -> None:
        """Notes what is settled, then writes as far as all is settled, then moves the mark; in this order, so that a
        caption that was paid for is lost to none of these failing."""
        fresh, self._fresh = self._fresh, []
        if fresh:
            await self._in_thread(lambda: self._journal.note(fresh))
        last: Slot | None = None
        while self._window and (settled := self._window[0].settled) is not None:
            last = self._window.popleft()
            self._window_bytes -= len(last.raw)
            self._files.add(last.record, last.raw, settled, self._id_field)
        self._room.set()
        if last is not None:
            self._mark = Mark(last.number, last.selected, last.digest)
        waited = asyncio.get_running_loop().time() - self._flushed_at
        if end or self._files.due or (self._files.kept and waited > self._files.longest_wait_s):
            self._flushed_at = asyncio.get_running_loop().time()
            mark = self._mark
            await self._in_thread(lambda: self._files.flush(mark, self._journal))

    async def _settle_up(self) -> None:
        """What is settled is kept, though the run ends here."""
        try:
            await self._keep_once(end=True)
        except StorageError as error:
            log.error("%s", error)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _places(self) -> int:
        # As many again as the model is at work on have their images fetched meanwhile.
        return 2 * self._width() + 8


class _Reader:
    """The lines after the mark, each with its number and a digest of the input so far."""

    def __init__(self, source: Source, mark: Mark) -> None:
        self._lines: Iterator[bytes] = source.lines()
        self._mark = mark
        self._number = 0
        self._digest = b""

    def chunk(self) -> list[tuple[int, bytes, str]]:
        """Empty at the end.

        Raises:
            RequestError: the lines up to the mark are not those that were there.
        """
        found: list[tuple[int, bytes, str]] = []
        size = 0
        for raw in self._lines:
            self._number += 1
            # A chain, so that each line's digest costs its own length only.
            self._digest = hashlib.blake2b(self._digest + raw, digest_size=16).digest()
            if self._number <= self._mark.number:
                if self._number == self._mark.number and self._digest.hex() != self._mark.digest:
                    raise _changed(None)
                continue
            found.append((self._number, raw, self._digest.hex()))
            size += len(raw)
            if len(found) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                break
        if self._number < self._mark.number:
            raise _changed(None)
        return found


def _changed(number: int | None) -> RequestError:
    where = f"line {number}" if number else "a line that was captioned already"
    return RequestError(
        f"The input is not the one that this output was made of: {where} is another. Give the old input (lines may be "
        "added at its end), or another output; --overwrite begins anew."
    )


def _first(several: BaseExceptionGroup) -> BaseException:
    """The one to tell: an error of ours before any other."""
    flat: list[BaseException] = []

    def walk(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                walk(each)
        else:
            flat.append(error)

    walk(several)
    return next((error for error in flat if isinstance(error, StorageError)), flat[0])
