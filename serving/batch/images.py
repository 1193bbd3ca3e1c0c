"""A record's image: fetched, or read from a file, and made ready for the model.

Paths lead nowhere but into the folder of images. Fetched images are kept on disk, as they are sent to the model, so
that a second run (other prompt, other model, what failed before) asks no host again. No host is asked for many at once.
"""

import asyncio
import hashlib
import logging
import os
import random
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from serving.batch.places import is_url
from serving.batch.records import Record
from serving.fetching import ImageFetcher
from serving.image_pool import ImagePool
from serving.images import check_size, prepare_image
from trendrag.errors import AddressRefused, Busy, InvalidImage, RemoteImageError, TrendragError
from trendrag.settings import ImageSettings
from trendrag.types import PreparedImage

FIELDS = ("image_path", "image_url")
"""Where a record's image is looked for, if no field is named; a file is nearer than an address."""

FETCH_TRIES = 4
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0

log = logging.getLogger(__name__)


class RecordImages:
    """
    Args:
        folder: where image paths begin, and beyond which they don't lead.
        field: the field that holds paths or URLs, in the place of ``FIELDS``.
        per_host: fetches at once from one host.
    """

    def __init__(
        self,
        fetcher: ImageFetcher,
        pool: ImagePool,
        settings: ImageSettings,
        *,
        folder: Path,
        field: str | None = None,
        cache: "ImageCache | None" = None,
        per_host: int = 4,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._fetcher = fetcher
        self._pool = pool
        self._settings = settings
        self._folder = folder.resolve()
        self._fields = (field,) if field else FIELDS
        self._cache = cache
        self._per_host = per_host
        self._hosts: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._sleep = sleep

    async def prepared(self, record: Record) -> PreparedImage:
        """
        Raises:
            RequestError: the record names no image, or one that can't be used.
            RemoteImageError, Busy: it can't be had, after several tries; another time it may.
        """
        place = self._place(record)
        if is_url(place.lstrip()):
            return await self._fetched(place.strip())
        return await self._in_thread(lambda: prepare_image(self._bytes(place), self._settings))

    def _place(self, record: Record) -> str:
        for field in self._fields:
            value = record.fields.get(field)
            if isinstance(value, str) and value.strip():
                return value  # spaces and all, which names of files may begin with
        raise InvalidImage(
            f"The record names no image: {' or '.join(self._fields)} is absent or no text. --image-field names another."
        )

    def _bytes(self, place: str) -> bytes:
        try:
            # Resolved first, links and all, so that what is opened is what was judged.
            path = (self._folder / place).resolve()
            if not path.is_relative_to(self._folder):
                raise AddressRefused(f"The image's path leads out of {self._folder}. --images names another folder.")
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  a pipe would wait
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise InvalidImage("The image's path is no file.")
                check_size(found.st_size, self._settings)
                return file.read(self._settings.max_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            told = getattr(error, "strerror", None) or "not a path"
            raise InvalidImage(f"The image can't be read: {told}. Paths begin in {self._folder}.") from error

    async def _fetched(self, url: str) -> PreparedImage:
        key = hashlib.sha256(f"{self._settings.model_pixels}\n{url}".encode("utf-8", "replace")).hexdigest()
        if self._cache is not None:
            kept = await asyncio.to_thread(self._cache.get, key)
            if kept is not None:
                try:
                    return await self._in_thread(lambda: prepare_image(kept, self._settings))
                except TrendragError:  # somebody else's, or cut by a power failure
                    await asyncio.to_thread(self._cache.forget, key)
        data = await self._asked(url)
        image = await self._in_thread(lambda: prepare_image(data, self._settings))
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, key, image.data)
        return image

    async def _asked(self, url: str) -> bytes:
        host = urlsplit(url).netloc.rpartition("@")[2].lower()
        places, users = self._hosts.get(host, (asyncio.Semaphore(self._per_host), 0))
        self._hosts[host] = places, users + 1
        try:
            async with places:
                return await self._tried(url)
        finally:
            places, users = self._hosts.pop(host)
            if users > 1:
                self._hosts[host] = places, users - 1

    async def _tried(self, url: str) -> bytes:
        for number in range(FETCH_TRIES):
            try:
                return await self._fetcher.fetch(url)
            except TrendragError as error:
                passing = isinstance(error, RemoteImageError | Busy) or error.retry_after is not None
                if not passing or number == FETCH_TRIES - 1:
                    raise
                jitter = 0.5 + random.random()  # noqa: S311  (no secret)
                await self._sleep(
                    min(_LONGEST_WAIT_S, max(error.retry_after or 0.0, _FIRST_WAIT_S * 2**number * jitter))
                )
        raise AssertionError

    async def _in_thread(self, work: Callable[[], PreparedImage]) -> PreparedImage:
        return await asyncio.get_running_loop().run_in_executor(self._pool.executor, work)


class ImageCache:
    """Files by key, ``max_bytes`` of them together; what comes when it is full is not kept. For any thread.

    It never raises: an image that can't be kept is fetched again."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._left = max_bytes - sum(path.stat().st_size for path in folder.glob("??/*")) if max_bytes else 0
        self._told = False

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key[2:]

    def get(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        if len(data) > self._left:
            if not self._told:
                self._told = True
                log.warning("the image cache %s is full: further images are not kept", self._folder)
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
            self._left -= len(data)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("the image cache %s can't be written: %s", self._folder, error.strerror)

    def forget(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)
