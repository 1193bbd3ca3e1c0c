"""Files here and elsewhere: paths, and URLs of storage that fsspec knows (`s3://bucket/archive.jsonl.zst`)."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from trendrag.errors import ConfigurationError, RequestError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
PACKED = (".gz", ".zst", ".zstd")


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
    """The file system of a URL and the path in it.

    Raises:
        ConfigurationError: it needs a package that is not here, or is no storage that fsspec knows.
    """
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
    try:
        if not is_url(place):
            return Path(place).open("rb")
        system, path = storage(place)
        return system.open(path, "rb")
    except OSError as error:
        raise RequestError(f"{place} can't be read: {error.strerror or error}") from error


def size_of(place: str) -> int | None:
    with suppress(OSError):
        if not is_url(place):
            return Path(place).stat().st_size
        system, path = storage(place)
        return int(system.size(path) or 0) or None
    return None
