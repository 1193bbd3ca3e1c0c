"""Keeps the snapshots here like those on a shelf: a thread of its own looks there again and again.

A thread and not a task: a storage that hangs holds up neither requests nor the end of the process. Whoever uses the
snapshots follows the local CURRENT, as ``retriever`` does.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexes.embedder import Embedder
from indexes.shelf import Shelf
from trendrag.errors import TrendragError

logger = logging.getLogger(__name__)

_LEAVE_S = 2.0
"""How long the end waits for a look under way. What is cut off leaves a draft, which a later download removes."""


@contextmanager
def following(
    shelf: Shelf, snapshots_dir: Path, embedder: Embedder, *, keep: int, every: float
) -> Iterator[threading.Event]:
    """Downloads what is current on ``shelf``, at once and then each ``every`` seconds, while the context is open.

    Yields an event that is set once the first look is over, whether it found something or failed. A look that fails
    leaves the snapshots here alone, and is logged when it fails for another reason than the one before.
    """
    stop, looked = threading.Event(), threading.Event()

    def follow() -> None:
        said = ""
        while not stop.is_set():
            said = _look(shelf, snapshots_dir, embedder, keep, said)
            looked.set()
            stop.wait(every)

    thread = threading.Thread(target=follow, name="shelf", daemon=True)
    thread.start()
    try:
        yield looked
    finally:
        stop.set()
        thread.join(_LEAVE_S)


def _look(shelf: Shelf, snapshots_dir: Path, embedder: Embedder, keep: int, said: str) -> str:
    """One download. The answer is what is wrong, "" where nothing is; ``said`` was the answer before."""
    try:
        taken = shelf.download(snapshots_dir, embedder, keep)
    except TrendragError as error:
        if str(error) != said:
            logger.warning("no new snapshots from the shelf, those here stay in use: %s", error)
        return str(error)
    except Exception as error:  # a bug must not end the following for good
        if repr(error) != said:
            logger.exception("no new snapshots from the shelf for a reason that should not be; please report it")
        return repr(error)
    if said:
        logger.info("the shelf %s can be read again", shelf.label)
    if taken:
        logger.info("snapshot %s from %s: %d files, %d bytes", taken.id, shelf.label, taken.files, taken.size)
    return ""
