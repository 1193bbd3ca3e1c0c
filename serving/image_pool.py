"""A bounded place for image work, so that it never stalls a stream nor piles up.

Threads and no processes: Pillow's decoders, its scaling, and its encoder as it is used here, let go of the
interpreter's lock, and nothing is copied from one process to another (figures: benchmarks/images.md). Where more work
waits than allowed, the next is refused at once: a caller who is told to come back waits less than one in a queue
without end.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self, TypeVar

from trendrag.errors import Busy

T = TypeVar("T")


def cores_for_images() -> int:
    """Threads for image work on this machine: all cores but the one that the streams need. With one more, tokens came
    twice as late while photos were prepared, and the photos were hardly done sooner (benchmarks/images.md)."""
    return min(8, max(1, (os.cpu_count() or 1) - 1))


class ImagePool:
    """``workers`` pictures at a time, and at most ``waiting`` more in line. Use as ``with ImagePool.open(2, 64)``."""

    def __init__(self, executor: ThreadPoolExecutor, places: int) -> None:
        self.executor = executor
        """For work that its caller bounds."""
        self._places = threading.BoundedSemaphore(places)

    @classmethod
    @contextmanager
    def open(cls, workers: int, waiting: int) -> Iterator[Self]:
        with ThreadPoolExecutor(workers, thread_name_prefix="image") as executor:
            yield cls(executor, workers + waiting)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, done in a thread. Where the caller is cancelled, work that has begun keeps its place
        until it ends.

        Raises:
            Busy: all places are taken; and whatever ``work`` raises.
        """
        if not self._places.acquire(blocking=False):
            raise Busy("Too many images are waiting to be prepared. Try again in a moment.")
        try:
            future = self.executor.submit(work)
        except RuntimeError:  # the pool is being closed
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
