"""Files here and elsewhere: paths, and URLs of storage that fsspec knows (`s3://bucket/archive.jsonl.zst`)."""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from trendrag.errors import ConfigurationError, RequestError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
PACKED = (".gz", ".zst", ".zstd")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run writes. ``rows`` is the file that grows; where that is not ``output`` itself (Parquet, storage
    elsewhere), the output is made of it at the end. ``told_errors`` is where a person finds ``errors`` then."""

    output: str
    rows: Path
    errors: Path
    journal: Path
    told_errors: str

    @property
    def published(self) -> bool:
        return self.output != str(self.rows)

    @classmethod
    def of(cls, output: str, data_dir: Path) -> "Places":
        """
        Raises:
            RequestError: it can't be written there, or not as such a file.
        """
        kind, packed = suffixes(output)
        if kind not in (".jsonl", ".ndjson", ".json", ".parquet"):
            raise RequestError(f"{output}: output is written as .jsonl (also .gz, .zst) or .parquet.")
        if kind == ".parquet" and packed:
            raise RequestError(f"{output}: Parquet is packed within; leave {packed} out.")
        away = is_url(output)
        here = str(data_dir / "batch" / hashlib.sha256(output.encode()).hexdigest()[:16]) if away else stem(output)
        folder = Path(here).parent
        if away:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise RequestError(f"There is no folder {folder} to write to.")
        rows = Path(f"{here}.rows.jsonl{packed}") if away or kind == ".parquet" else Path(output)
        errors = Path(f"{here}.errors.jsonl")
        told = f"{stem(output)}.errors.jsonl" if away else str(errors)
        return cls(output, rows, errors, Path(f"{here}.journal"), told)


def is_url(place: str) -> bool:
    return bool(_URL.match(place))


def suffixes(place: str) -> tuple[str, str]:
    """What kind of file it is and how it is packed, by its name: (".jsonl", ".gz"); either may be empty."""
    name = Path(place.rstrip("/").rsplit("/", 1)[-1].lower())
    packed = name.suffix if name.suffix in PACKED else ""
    return Path(name.stem if packed else name).suffix, packed


def stem(place: str) -> str:
    """``archive/photos.jsonl.gz`` → ``archive/photos``."""
    kind, packed = suffixes(place)
    return place[: len(place) - len(kind) - len(packed)] if kind else place[: len(place) - len(packed)]


def storage(url: str) -> tuple[Any, str]:
    """The file system of a URL, or of a path, and the path in it.

    Raises:
        ConfigurationError: it needs a package that is not here, or is no storage that fsspec knows.
    """
    if not is_url(url):  # whatever else is in it: fsspec makes more of "::"
        return fsspec.filesystem("file"), str(Path(url).absolute())
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        needed = " (pip install 'trendrag[s3]')" if url.startswith("s3") else ""
        raise ConfigurationError(f"{url.partition('://')[0]}:// needs one more package{needed}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"{url} can't be reached: {error}") from error
    return system, str(path)


def open_bytes(place: str) -> Any:
    """The file's bytes as they are, to be read from the start.

    Raises:
        RequestError: there is no such file, or it can't be read.
    """
    system, path = storage(place)
    try:
        return system.open(path, "rb") if is_url(place) else Path(place).open("rb")
    except Exception as error:  # each storage has its own: OSError, botocore's, aiohttp's …
        raise RequestError(f"{place} can't be read: {reason(error)}") from error


def size_of(place: str) -> int | None:
    system, path = storage(place)
    with suppress(Exception):  # as above
        return int(system.size(path) or 0) or None
    return None


def exists(place: str) -> bool:
    """
    Raises:
        RequestError: its storage doesn't say.
    """
    system, path = storage(place)
    try:
        return bool(system.exists(path))
    except Exception as error:  # as above
        raise RequestError(f"{place} can't be looked for: {reason(error)}") from error


def same(place: str, other: str) -> bool:
    """Whether both are one file that is there, by whatever names."""
    (system, path), (its, its_path) = storage(place), storage(other)
    if path == its_path and system.protocol == its.protocol:
        return True
    with suppress(OSError):  # by a link, or by a URL of file://
        return not is_url(other) and "file" in system.protocol and Path(path).samefile(its_path)
    return False


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
