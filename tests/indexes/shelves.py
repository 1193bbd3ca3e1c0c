"""Snapshots to put on shelves, and a storage that fails as told."""

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from indexes.publishing import publish, published
from tests.fakes import NOW, HashEmbedder, make_trend

EMBEDDER = HashEmbedder()


def publish_at(folder: Path, hours: int, *phrases: str, keep: int = 9) -> str:
    """A snapshot that shares its files with the one before it, as a refresh publishes it."""
    trends = list({trend.id: trend for trend in map(make_trend, phrases)}.values())
    now, before = NOW + timedelta(hours=hours), published(folder, EMBEDDER)
    return publish(folder, trends, EMBEDDER, before=before, origin="live", recorded_at=NOW, now=now, keep=keep).id


class FailingFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """``failing://``: memory whose n-th operation fails, after half of what it was to write where ``torn``."""

    protocol: ClassVar[str] = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left: ClassVar[int | None] = None
    """How many operations are left before one fails; None: all do well."""
    torn: ClassVar[bool] = True
    says: ClassVar[str] = "the storage has failed"

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.left = None

    @classmethod
    def _step(cls) -> None:
        if cls.left is not None:
            cls.left -= 1
            if cls.left < 0:
                raise OSError(cls.says)

    def find(self, path: str, **options: Any) -> Any:
        self._step()
        return super().find(path, **options)

    def cat_file(self, path: str, **options: Any) -> Any:
        self._step()
        return super().cat_file(path, **options)

    def get_file(self, path: str, target: str, **options: Any) -> None:
        self._step()
        super().get_file(path, target, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._step()
        super().makedirs(path, exist_ok)

    def put_file(self, source: str, path: str, **options: Any) -> None:
        self.pipe_file(path, Path(source).read_bytes())

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        try:
            self._step()
        except OSError:
            if self.torn:
                super().pipe_file(path, value[: len(value) // 2])
            raise
        super().pipe_file(path, value)

    def cp_file(self, path: str, target: str, **options: Any) -> None:
        self._step()
        super().cp_file(path, target, **options)

    def _rm(self, path: str) -> None:
        self._step()
        super()._rm(path)


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
