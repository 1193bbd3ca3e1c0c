"""Files that lines are added to, and cut back to where a run is known to have been.

Packed files are made of members (gzip) or frames (zstd) of their own for each piece that is written: readers take them
as one, and a file that is cut between two of them is whole.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

from trendrag.errors import StorageError

PIECE_BYTES = 64 * 1024
PACKED_PIECE_BYTES = 1 << 20


class Appended:
    """Lines at the end of a file, which is made where there is none and cut to ``size`` bytes where it is longer.

    Raises from its methods:
        StorageError: the disk is full or fails.
        TooShort: by the constructor, where there are less than ``size`` bytes: somebody else changed the file.
    """

    def __init__(self, path: Path, packed: str, size: int) -> None:
        self.path = path
        self._pack = packer(packed)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._piece_bytes = PACKED_PIECE_BYTES if packed else PIECE_BYTES
        self.size = size
        try:
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            try:
                if os.fstat(self._file.fileno()).st_size < size:
                    raise TooShort
                self._file.truncate(size)
                self._file.seek(size)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise _full(path, error) from error

    def add(self, line: str) -> None:
        """Keeps it until there is enough to write."""
        data = line.encode("utf-8", "replace") + b"\n"
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    @property
    def due(self) -> bool:
        """Whether as much is kept as makes a piece."""
        return self._waiting_bytes >= self._piece_bytes

    @property
    def kept(self) -> bool:
        return bool(self._waiting)

    def flush(self) -> None:
        """All that was kept is on the disk afterwards, or nothing of it counts."""
        if not self._waiting:
            return
        piece = self._pack(b"".join(self._waiting))
        try:
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _full(self.path, error) from error
        self.size += len(piece)
        self._waiting.clear()
        self._waiting_bytes = 0

    def close(self) -> None:
        self._file.close()


class TooShort(Exception):
    """A file has less than was written to it."""


def packer(packed: str) -> Callable[[bytes], bytes]:
    if packed == ".gz":
        return lambda data: gzip.compress(data, 6, mtime=0)
    if packed:
        import zstandard  # noqa: PLC0415  not needed for --help

        return zstandard.ZstdCompressor(level=6).compress
    return lambda data: data


def replace(new: Path, old: Path) -> None:
    """``new`` takes the place of ``old`` in one step, and is there after a power cut too."""
    try:
        new.replace(old)
        folder = os.open(old.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _full(old, error) from error


def _full(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} can't be written ({error.strerror or error}). Nothing that was finished is lost: mend that (is the "
        "disk full?), and go on with --resume."
    )
