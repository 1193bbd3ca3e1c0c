"""Files that are safe on disk before anybody counts on them, and faults that name the file.

What a snapshot's files hold is for ``segments``, ``manifest`` and ``withheld`` to say.
"""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from trendrag.errors import CorruptSnapshot


class Draft:
    """A file that is written in pieces, with its checksum; safe on disk once it is closed without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        self.sha256 = self._hash.hexdigest()


def link(old: Path, new: Path) -> None:
    """The same file under another name; a copy where there can be no links."""
    try:
        os.link(old, new)
    except OSError:
        with old.open("rb") as source, Draft(new) as copy:
            shutil.copyfileobj(source, copy)


def write_file(path: Path, data: bytes) -> None:
    """Writes a whole file; it is safe on disk when this returns, its name only after ``sync_directory``."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Makes renames in it survive a power cut, where the system can (Windows can't open a directory)."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def opened(directory: Path, name: str) -> Iterator[io.BufferedReader]:
    """A file of a snapshot, to read; CorruptSnapshot where it can't be."""
    try:
        with (directory / name).open("rb") as file:
            yield file
    except OSError as error:
        raise _unreadable(directory, name, error) from error


def read_bytes(directory: Path, name: str) -> bytes:
    """A whole file of a snapshot, not verified; CorruptSnapshot where it can't be read."""
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise _unreadable(directory, name, error) from error


@contextlib.contextmanager
def reading(directory: Path, name: str) -> Iterator[None]:
    """Names the file that is to blame where its contents are not what their checksum promised."""
    try:
        yield
    except Exception as error:  # parsers raise all sorts on what no publisher wrote
        raise invalid(directory, name, str(error).partition("\n")[0] or type(error).__name__) from error


def changed(directory: Path, name: str) -> CorruptSnapshot:
    return CorruptSnapshot(f"Snapshot {directory.name}: {name} does not match its checksum")


def invalid(directory: Path, name: str, reason: str) -> CorruptSnapshot:
    return CorruptSnapshot(f"Snapshot {directory.name}: {name} can't be read ({reason})")


def _unreadable(directory: Path, name: str, error: OSError) -> CorruptSnapshot:
    return invalid(directory, name, error.strerror or type(error).__name__)
