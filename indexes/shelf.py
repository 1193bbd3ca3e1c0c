"""A shelf: a copy of the snapshots at an fsspec URL (a bucket, a disk elsewhere), for replicas on other machines.

    CURRENT               the id of the current snapshot and the SHA-256 of its manifest; written last
    manifests/<id>.json   as in the snapshot
    files/<sha256>        a file of any number of snapshots, named for what is in it, so that each is put there once
    drafts/...            what is being written, where the storage shows files before they are whole

Snapshots in use stay local directories, as ``snapshot`` describes them; nothing is read from a shelf but to make one
here. One process at a time puts snapshots on a shelf (a refresh holds the lock of its database meanwhile), any number
take them. Whoever stops at any moment leaves CURRENT naming a snapshot that is complete.

When a shelf is looked at is ``following``'s and the refresh's to say. fsspec's errors are mapped here.
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from indexes.embedder import Embedder
from indexes.files import link, sync_directory, write_file
from indexes.manifest import (
    ID,
    Manifest,
    check_embedder,
    current_id,
    make_current,
    parse_manifest,
    read_manifest,
    remove_old,
    snapshot_ids,
    superseded,
)
from trendrag.errors import ConfigurationError, CorruptSnapshot, ShelfError, SnapshotError
from trendrag.settings import Settings
from trendrag.text import clean_line

logger = logging.getLogger(__name__)

_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Protocols of storage that shows an object when all of it is there, and replaces one in the same way."""
_FORGOTTEN_S = 24 * 3600
"""A draft here that nobody has touched for so long belongs to a process that was killed."""

# A user and password end at the last @, for one pasted as it is may hold any other character.
_URL = re.compile(r"(?P<protocol>[\w+.-]{2,})://(?:(?P<user>.*)@)?(?P<place>[^?#]*)(?P<query>.*)", re.DOTALL)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MANIFEST = re.compile(rf"manifests/({ID.pattern})\.json")


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT says: a snapshot's id and the SHA-256 of its manifest."""

    id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """A snapshot that went to a shelf or came from it, and what had to be copied for that: files and their bytes."""

    id: str
    files: int
    size: int


class Shelf:
    """Snapshots at an fsspec URL. Everything is synchronous, and most of it waits for the network.

    ``label`` is the URL as it may be shown: without user, password and query.

    Raises:
        ConfigurationError: the URL can't be used, or the package for its storage isn't installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec import get_filesystem_class  # noqa: PLC0415  (whoever has no shelf need not wait for it)

        if "::" in url:
            raise ConfigurationError("TRENDRAG_SNAPSHOTS__URL is a chain of storages (::); name the last one alone")
        parts = _URL.fullmatch(url)
        protocol = parts["protocol"] if parts else "file"
        self.label = f"{protocol}://{parts['place']}" if parts else url
        self._url = url
        self._secretive = bool(parts and (parts["user"] or parts["query"]))
        self._whole = protocol in _WHOLE
        wrong = f"TRENDRAG_SNAPSHOTS__URL: {self.label}"
        try:
            get_filesystem_class(protocol)
        except ImportError as error:
            missing = "the extra s3: pip install 'trendrag[s3]'" if protocol in {"s3", "s3a"} else str(error)
            raise ConfigurationError(f"{wrong} needs one more package: {missing}") from error
        except ValueError as error:
            raise ConfigurationError(f"{wrong} begins with a protocol that fsspec does not know") from error

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The configured one; None where there is none."""
        url = settings.snapshots.url
        return cls(url.get_secret_value()) if url else None

    def current(self) -> Pointer | None:
        """What CURRENT says, None where nothing was ever put there.

        Raises:
            ShelfError: it can't be read.
        """
        data = self._read("CURRENT")
        if data is None:
            return None
        name, _, sha256 = data.decode("utf-8", "replace").partition(" ")
        if not ID.fullmatch(name) or not _SHA256.fullmatch(sha256):
            raise ShelfError(f"{self.label}/CURRENT does not name a snapshot. Put one there: trendrag snapshot push")
        return Pointer(name, sha256)

    def upload(self, snapshots_dir: Path, snapshot_id: str, keep: int, *, again: bool = False) -> Transfer | None:
        """Puts a snapshot there and makes it current; None where it was so already.

        Only files that the shelf lacks are copied, with ``again`` all of them. Then the oldest beyond ``keep`` go, and
        the files that no snapshot on the shelf has any more.

        Raises:
            CorruptSnapshot: a file here is missing or damaged. What is current on the shelf stays so.
            ShelfError: the shelf can't be read or written. What is current on it stays so.
        """
        directory = snapshots_dir / snapshot_id
        where = f"Snapshot {snapshot_id}"
        try:
            data = (directory / "manifest.json").read_bytes()
        except OSError as error:
            raise CorruptSnapshot(f"{where}: manifest.json can't be read ({error.strerror})") from error
        manifest = parse_manifest(data, where)
        wanted = {sha256: name for name, sha256 in manifest.files.items()}
        there = {} if again else self._listing()
        lacking = {sha256: name for sha256, name in wanted.items() if not _is_there(there, sha256, directory / name)}
        pointer = f"{snapshot_id} {hashlib.sha256(data).hexdigest()}".encode()
        made = {_manifest_of(snapshot_id): data, "CURRENT": pointer}
        if not again and not lacking and all(self._read(name) == content for name, content in made.items()):
            self._mark(snapshots_dir, snapshot_id)
            return None
        for sha256, name in lacking.items():
            if _digest(directory / name) != sha256:
                raise CorruptSnapshot(f"{where}: {name} is missing or does not match its checksum")
            self._put(f"files/{sha256}", directory / name)
        self._write(_manifest_of(snapshot_id), data)
        # Another one's tidying may have taken what was there before; from now on the manifest keeps it.
        there = self._listing()
        if gone := [name for sha256, name in wanted.items() if not _is_there(there, sha256, directory / name)]:
            raise ShelfError(f"{self.label}: {gone[0]} of snapshot {snapshot_id} was removed meanwhile; try again")
        self._write("CURRENT", pointer)
        self._mark(snapshots_dir, snapshot_id)
        try:
            self._tidy(snapshot_id, keep)
        except SnapshotError as error:  # the snapshot is there; the next one's tidying takes what is left
            logger.warning("%s", error)
        return Transfer(snapshot_id, len(lacking), sum(there[f"files/{sha256}"] for sha256 in lacking))

    def download(self, snapshots_dir: Path, embedder: Embedder, keep: int, *, again: bool = False) -> Transfer | None:
        """Makes what is current there current here; None where there was nothing to do.

        That is also where CURRENT there is as this directory left it or last followed it, so that what was published
        or rolled back here and could not be put there isn't undone; with ``again`` it counts all the same. What local
        snapshots have already is not copied, the oldest beyond ``keep`` are removed.

        Raises:
            SnapshotError: it can't be read, is damaged, or another embedder's; the message names the file. Here
                nothing has changed.
        """
        pointer = self.current()
        if pointer is None or (not again and pointer.id == self._seen(snapshots_dir)):
            return None
        while True:
            try:
                return self._take(pointer, snapshots_dir, embedder, keep)
            except SnapshotError:
                # The publisher may have gone on meanwhile, and removed what we were about to read.
                newer = self.current()
                if newer is None or newer == pointer:
                    raise
                pointer = newer

    def _take(self, pointer: Pointer, snapshots_dir: Path, embedder: Embedder, keep: int) -> Transfer | None:
        where = f"{self.label}/{_manifest_of(pointer.id)}"
        data = self._read(_manifest_of(pointer.id))
        if data is None:
            raise ShelfError(f"{where} is missing")
        if hashlib.sha256(data).hexdigest() != pointer.sha256:
            raise ShelfError(f"{where} does not match its checksum in CURRENT")
        manifest = parse_manifest(data, where)
        check_embedder(manifest, embedder, where)
        if manifest.id != pointer.id or not all(
            _NAME.fullmatch(name) and name != "manifest.json" and _SHA256.fullmatch(sha256)
            for name, sha256 in manifest.files.items()
        ):
            raise ShelfError(f"{where} is not a manifest of that snapshot")
        transfer = None
        try:
            if not _complete(snapshots_dir / pointer.id, manifest, data):
                transfer = self._fetch(manifest, data, snapshots_dir)
            if current_id(snapshots_dir) != pointer.id:
                make_current(snapshots_dir, pointer.id)
                transfer = transfer or Transfer(pointer.id, 0, 0)
            remove_old(snapshots_dir, pointer.id, keep)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ShelfError(
                f"Snapshot {pointer.id} of {self.label} can't be kept in {snapshots_dir} ({why})"
            ) from error
        self._mark(snapshots_dir, pointer.id)
        return transfer

    def _fetch(self, manifest: Manifest, data: bytes, snapshots_dir: Path) -> Transfer:
        """Puts the snapshot together beside the others, then renames it: there is all of it or none."""
        snapshots_dir.mkdir(parents=True, exist_ok=True)
        _remove_forgotten(snapshots_dir)
        here = _files_in(snapshots_dir)
        directory = snapshots_dir / manifest.id
        draft = snapshots_dir / f".{manifest.id}.{secrets.token_hex(4)}.part"
        draft.mkdir()
        files = size = 0
        try:
            for name, sha256 in manifest.files.items():
                if sha256 in here and _linked(here[sha256], draft / name, sha256):
                    continue
                self._get(f"files/{sha256}", draft / name)
                if _digest(draft / name) != sha256:
                    raise ShelfError(f"{self.label}/files/{sha256} ({name}) does not match its checksum")
                files, size = files + 1, size + (draft / name).stat().st_size
            write_file(draft / "manifest.json", data)
            sync_directory(draft)
            try:
                draft.rename(directory)
            except OSError:
                if not _complete(directory, manifest, data):  # damaged, and not another process that was faster
                    shutil.rmtree(directory, ignore_errors=True)
                    draft.rename(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return Transfer(manifest.id, files, size)

    def _tidy(self, current: str, keep: int) -> None:
        """Removes snapshots as a directory of them does, then the files that none has. What isn't ours stays."""
        there = self._listing()
        ids = [found[1] for name in there if (found := _MANIFEST.fullmatch(name))]
        old = superseded(ids, current, keep)
        needed: set[str] = set()
        for each in set(ids) - set(old):
            data = self._read(_manifest_of(each))
            if data is None:
                raise ShelfError(f"{self.label}: old files stay, for {_manifest_of(each)} is gone")
            needed |= set(parse_manifest(data, f"{self.label}/{_manifest_of(each)}").files.values())
        # Manifests first: one without its files would be worse than files without a manifest.
        for each in old:
            self._remove(_manifest_of(each))
        for name in there:
            folder, _, rest = name.partition("/")
            if folder == "drafts" or (folder == "files" and _SHA256.fullmatch(rest) and rest not in needed):
                self._remove(name)

    @cached_property
    def _storage(self) -> tuple[Any, str]:
        """The file system, and where in it the shelf is. Some connect when they are opened, so that this may fail."""
        from fsspec.core import url_to_fs  # noqa: PLC0415

        # Another process may write at any time, so that a listing is never to be remembered.
        files, root = url_to_fs(self._url, use_listings_cache=False, skip_instance_cache=True)
        return files, root.rstrip("/")

    def _listing(self) -> dict[str, int]:
        """Name → bytes of everything there."""
        with self._mapped("can't be listed"):
            files, root = self._storage
            try:
                found: dict[str, dict[str, Any]] = files.find(root, detail=True)
            except FileNotFoundError:
                return {}
        return {path[len(root) :].lstrip("/"): int(info.get("size") or 0) for path, info in found.items()}

    def _read(self, name: str) -> bytes | None:
        """None where there is none."""
        with self._mapped(f"{name} can't be read"):
            try:
                return bytes(self._storage[0].cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def _get(self, name: str, path: Path) -> None:
        with self._mapped(f"{name} can't be read"):
            self._storage[0].get_file(self._path(name), str(path))
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    def _put(self, name: str, path: Path) -> None:
        with self._mapped(f"{name} can't be written"), self._whole_at(name) as target:
            self._storage[0].put_file(str(path), target)

    def _write(self, name: str, data: bytes) -> None:
        with self._mapped(f"{name} can't be written"), self._whole_at(name) as target:
            self._storage[0].pipe_file(target, data)

    @contextlib.contextmanager
    def _whole_at(self, name: str) -> Iterator[str]:
        """Where to write what is to be called ``name``, so that nobody sees half of it there."""
        path = self._path(name)
        if self._whole:
            yield path
            return
        draft = self._path(f"drafts/{secrets.token_hex(8)}")
        for folder in (draft, path):
            self._storage[0].makedirs(folder.rpartition("/")[0], exist_ok=True)
        yield draft
        self._storage[0].mv(draft, path)

    def _remove(self, name: str) -> None:
        with self._mapped(f"{name} can't be removed"), contextlib.suppress(FileNotFoundError):
            self._storage[0].rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._storage[1]}/{name}"

    @contextlib.contextmanager
    def _mapped(self, fault: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage has its own: OSError, botocore's, aiohttp's …
            failed = ShelfError(f"{self.label}: {fault} ({self._reason(error)})")
            if self._secretive:
                raise failed from None
            raise failed from error

    def _reason(self, error: Exception) -> str:
        """What may be told of it: a library's message may quote the URL."""
        if self._secretive:
            return type(error).__name__
        return clean_line(str(error), 200).rstrip(' :"') or type(error).__name__

    def _seen(self, snapshots_dir: Path) -> str | None:
        """What CURRENT there named when this directory last took from the shelf or put something on it."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._mark_in(snapshots_dir).read_text("utf-8")
        return None

    def _mark(self, snapshots_dir: Path, snapshot_id: str) -> None:
        if self._seen(snapshots_dir) == snapshot_id:
            return
        path = self._mark_in(snapshots_dir)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            write_file(draft, snapshot_id.encode())
            draft.replace(path)
        except OSError as error:
            raise ShelfError(f"{path} can't be written ({error.strerror})") from error

    def _mark_in(self, snapshots_dir: Path) -> Path:
        return snapshots_dir / f".shelf-{hashlib.sha256(self._url.encode()).hexdigest()[:16]}"


def _manifest_of(snapshot_id: str) -> str:
    return f"manifests/{snapshot_id}.json"


def _is_there(there: dict[str, int], sha256: str, path: Path) -> bool:
    """Whether the shelf has a file of that name as long as ours; one cut short is to be put there again."""
    with contextlib.suppress(OSError):
        return there.get(f"files/{sha256}") == path.stat().st_size
    return False


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, None where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _complete(directory: Path, manifest: Manifest, data: bytes) -> bool:
    """Whether all of a snapshot is here, ``data`` being its manifest."""
    try:
        same = (directory / "manifest.json").read_bytes() == data
    except OSError:
        return False
    return same and all(_digest(directory / name) == sha256 for name, sha256 in manifest.files.items())


def _files_in(snapshots_dir: Path) -> dict[str, Path]:
    """SHA-256 → a file that has it, as the manifests here say."""
    found: dict[str, Path] = {}
    for each in snapshot_ids(snapshots_dir):
        manifest = read_manifest(snapshots_dir / each)
        for name, sha256 in manifest.files.items() if manifest else ():
            found.setdefault(sha256, snapshots_dir / each / name)
    return found


def _linked(old: Path, new: Path, sha256: str) -> bool:
    """Gives a file of another snapshot a second name. False where it is gone or damaged; then there is no new one."""
    with contextlib.suppress(OSError):
        link(old, new)
        if _digest(new) == sha256:
            return True
    new.unlink(missing_ok=True)
    return False


def _remove_forgotten(snapshots_dir: Path) -> None:
    for draft in snapshots_dir.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _FORGOTTEN_S:
                shutil.rmtree(draft, ignore_errors=True)
