"""Where records come from: lines of JSON (plain, gzip, zstd), Parquet, or a folder of images. All become lines of JSON,
in an order that is the same every time, since a run that goes on counts them again."""

import base64
import gzip
import io
import json
import math
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from serving.batch.places import is_url, open_bytes, reason, size_of, suffixes
from serving.batch.records import MAX_LINE_BYTES
from trendrag.errors import ConfigurationError, RequestError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif")
_PARQUET_ROWS = 256


class Source(Protocol):
    def lines(self) -> Iterator[bytes]:
        """Each line of input without its end, from the first. One over MAX_LINE_BYTES comes cut, and is too long still.

        Raises:
            RequestError: the input can't be read, or is damaged from there on.
        """

    @property
    def read(self) -> float | None:
        """How much of it has been read, from 0 to 1; None where nobody knows."""


def open_source(place: str) -> Source:
    """
    Raises:
        RequestError, ConfigurationError: there is nothing, or nothing of a kind that is taken.
    """
    if not is_url(place) and Path(place).is_dir():
        return Folder(Path(place))
    kind, packed = suffixes(place)
    if kind == ".parquet":
        return Parquet(place)
    if kind not in (".jsonl", ".ndjson", ".json", ""):
        raise RequestError(f"{place}: records are read from .jsonl (also .gz, .zst), .parquet or a folder of images.")
    return Lines(place, packed)


class Lines:
    def __init__(self, place: str, packed: str) -> None:
        self._place = place
        self._packed = packed
        self._size = size_of(place)
        self._file: Any = None
        open_bytes(place).close()

    @property
    def read(self) -> float | None:
        if not self._size or self._file is None:
            return None
        try:
            return min(1.0, float(self._file.tell()) / self._size)
        except ValueError:  # closed, by the thread that reads
            return None

    def lines(self) -> Iterator[bytes]:
        with closing(open_bytes(self._place)) as file:
            self._file = file
            number = 0
            try:
                with _unpacked(file, self._packed) as stream:
                    while line := stream.readline(MAX_LINE_BYTES + 2):
                        number += 1
                        if not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
                            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                                pass
                        yield line.rstrip(b"\r\n")
            except Exception as error:  # damaged, cut, or whatever a storage's client raises
                raise RequestError(f"{self._place} can't be read beyond line {number}: {reason(error)}") from error


def _unpacked(file: Any, packed: str) -> Any:
    if packed == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if packed:
        return io.BufferedReader(_Zstd(file))
    return io.BufferedReader(file) if not isinstance(file, io.BufferedIOBase) else file


class _Zstd(io.RawIOBase):
    """Frames, one after the other. Unlike zstandard's own reader, it takes no file for whole that ends within one."""

    def __init__(self, file: Any) -> None:
        import zstandard  # noqa: PLC0415  not needed for --help

        self._new = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._file = file
        self._frame: Any = None
        self._rest = b""
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            if not self._read_on():
                return 0
        size = min(len(buffer), len(self._out))
        buffer[:size] = self._out[:size]
        self._out = self._out[size:]
        return size

    def _read_on(self) -> bool:
        data = self._rest or self._file.read(8_192)
        self._rest = b""
        if not data:
            if self._frame is not None:
                raise OSError("it ends in the middle of zstd's data")
            return False
        self._frame = self._frame or self._new()
        try:
            self._out = memoryview(self._frame.decompress(data))
        except self._error as error:
            raise OSError(f"damaged zstd data ({error})") from error
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return True


class Folder:
    """The pictures in a folder and below, as records of ``id`` and ``image_path``, both the path within the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    read = None

    def lines(self) -> Iterator[bytes]:
        try:
            found = sorted(
                path.relative_to(self.folder).as_posix()
                for path in self.folder.rglob("*")
                if path.suffix.lower() in PICTURES and path.is_file()
            )
        except OSError as error:
            raise RequestError(f"{self.folder} can't be read: {error.strerror or error}") from error
        for path in found:
            # A name that is no UTF-8 is not lost: its bytes are escaped.
            yield json.dumps({"id": path, "image_path": path}).encode()


class Parquet:
    def __init__(self, place: str) -> None:
        try:
            import pyarrow  # noqa: F401, PLC0415  an extra
        except ImportError as error:
            raise ConfigurationError("Parquet needs one more package: pip install 'trendrag[parquet]'") from error
        self._place = place
        self._rows = 0
        self._given = 0

    @property
    def read(self) -> float | None:
        return self._given / self._rows if self._rows else None

    def lines(self) -> Iterator[bytes]:
        from pyarrow import parquet  # noqa: PLC0415  as above

        with closing(open_bytes(self._place)) as file:
            try:
                table = parquet.ParquetFile(file)
                self._rows, self._given = table.metadata.num_rows, 0
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                    for row in batch.to_pylist():
                        self._given += 1
                        yield json.dumps(_plain(row), ensure_ascii=False).encode("utf-8", "replace")
            except Exception as error:  # as above
                raise RequestError(f"{self._place} can't be read beyond row {self._given}: {error}") from error


def _plain(value: Any) -> Any:
    """As JSON can say it: times in ISO 8601, decimals as text, bytes in base64, no number that is none."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal) or not isinstance(value, str | int | float | bool | None):
        return str(value)
    return value
