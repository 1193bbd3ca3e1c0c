"""How a process that runs until it is stopped is asked to stop: by a signal, or by the end of the process above it."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

STOP_WITHIN_S = 5.0
"""An event loop can't end before its threads do. What a thread of ours writes is atomic, so that leaving it after this
time is as safe as a power cut."""


@dataclass
class Asked:
    """``stop`` is set once the process is asked to stop; ``by`` is the signal, None where it was no signal."""

    stop: asyncio.Event
    by: signal.Signals | None = None
    leave: threading.Timer | None = None

    def in_time(self) -> None:
        """To be called once the event loop has ended."""
        if self.leave:
            self.leave.cancel()


@contextmanager
def asked_to_stop(*, with_parent: bool = False) -> Iterator[Asked]:
    """In the main thread's event loop. SIGINT and SIGTERM set ``stop``, the second of them acts as it would without
    this; with ``with_parent`` so does the end of stdin. After ``STOP_WITHIN_S`` the process ends, whatever it does."""
    loop = asyncio.get_running_loop()
    asked = Asked(asyncio.Event())
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def stop() -> None:
        if asked.leave is None:
            asked.leave = threading.Timer(STOP_WITHIN_S, os._exit, (130 if asked.by == signal.SIGINT else 0,))
            asked.leave.daemon = True
            asked.leave.start()
        asked.stop.set()

    def on_signal(number: int, _frame: object) -> None:
        asked.by = signal.Signals(number)
        restore()
        loop.call_soon_threadsafe(stop)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def on_parent_gone() -> None:
        while os.read(0, 4096):  # not sys.stdin: a daemon thread may not hold its lock when Python ends
            pass
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(stop)

    for each in before:
        signal.signal(each, on_signal)
    if with_parent:
        threading.Thread(target=on_parent_gone, daemon=True).start()
    try:
        yield asked
    finally:
        restore()
