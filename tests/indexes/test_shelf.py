"""A shelf on every storage: what goes there comes back, damage and strangers are refused, nothing here is lost."""

import hashlib
import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest

from indexes.manifest import current_id, snapshot_ids
from indexes.shelf import Shelf
from indexes.snapshot import open_newest
from tests.buckets import s3_server
from tests.fakes import HashEmbedder
from tests.indexes.shelves import EMBEDDER, FailingFileSystem, publish_at
from trendrag.errors import ConfigurationError, CorruptSnapshot, ShelfError, SnapshotError

KEEP = 5


@pytest.fixture(scope="module")
def in_a_bucket() -> Iterator[str]:
    """The URL of a bucket."""
    with s3_server() as files:
        files.mkdir("trends")
        yield "s3://trends/snapshots"


@pytest.fixture(params=["file", "memory", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "file":
        return Shelf(f"file://{tmp_path}/mnt/shelf")
    if request.param == "memory":
        return Shelf(f"memory://{secrets.token_hex(4)}/shelf")
    return Shelf(f"{request.getfixturevalue('in_a_bucket')}/{secrets.token_hex(4)}")


on_disk = pytest.mark.parametrize("shelf", ["file"], indirect=True)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


class Storage:
    """The shelf's files, by the names that they have on it."""

    def __init__(self, shelf: Shelf) -> None:
        self._files, self._root = shelf._storage

    def names(self) -> set[str]:
        return {path.removeprefix(self._root).lstrip("/") for path in self._files.find(self._root)}

    def read(self, name: str) -> bytes:
        return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        self._files.pipe_file(f"{self._root}/{name}", data)

    def remove(self, name: str) -> None:
        self._files.rm_file(f"{self._root}/{name}")

    def needed(self) -> set[str]:
        """The files that the manifests name."""
        manifests = [self.read(name) for name in self.names() if name.startswith("manifests/")]
        return {f"files/{sha256}" for each in manifests for sha256 in json.loads(each)["files"].values()}


def phrases(folder: Path) -> set[str]:
    snapshot = open_newest(folder, EMBEDDER)
    assert snapshot.info.warning is None
    return {trend.phrase for trend in snapshot.trends}


def test_what_is_put_there_is_used_elsewhere_and_shared_files_go_once(shelf: Shelf, here: Path, there: Path) -> None:
    many = [f"trend {number}" for number in range(40)]
    first = publish_at(here, 0, *many)
    sent = shelf.upload(here, first, KEEP)
    taken = shelf.download(there, EMBEDDER, KEEP)
    assert sent
    assert sent == taken
    assert open_newest(there, EMBEDDER).info == open_newest(here, EMBEDDER).info
    second = publish_at(here, 1, *many, "one more")
    sent = shelf.upload(here, second, KEEP)
    taken = shelf.download(there, EMBEDDER, KEEP)
    assert sent
    assert sent == taken
    # The new segment's four, and the rows; what is the same in both was there.
    assert sent.files == 5
    assert phrases(there) == {*many, "one more"}
    assert (there / second / f"{first}.vectors").samefile(there / first / f"{first}.vectors")


def test_where_all_is_there_nothing_is_done(shelf: Shelf, here: Path, there: Path) -> None:
    assert shelf.download(there, EMBEDDER, KEEP) is None
    first = publish_at(here, 0, "tea")
    assert shelf.upload(here, first, KEEP)
    assert shelf.upload(here, first, KEEP) is None
    assert shelf.download(here, EMBEDDER, KEEP) is None
    assert shelf.download(there, EMBEDDER, KEEP)
    assert shelf.download(there, EMBEDDER, KEEP) is None
    assert shelf.download(there, EMBEDDER, KEEP, again=True) is None


def test_old_snapshots_go_with_what_they_alone_have(shelf: Shelf, here: Path, there: Path) -> None:
    storage = Storage(shelf)
    made = []
    for hour in range(4):
        made.append(publish_at(here, hour, *(f"{hour} {number}" for number in range(hour + 1))))
        shelf.upload(here, made[-1], 2)
        storage.write(f"somebody's {hour}", b"not ours")
        shelf.download(there, EMBEDDER, 2)
    names = storage.names()
    assert {name for name in names if name.startswith("manifests/")} == {f"manifests/{each}.json" for each in made[2:]}
    assert {name for name in names if name.startswith("files/")} == storage.needed()
    assert len({name for name in names if name.startswith("somebody's")}) == 4
    assert snapshot_ids(there) == made[:1:-1]


def test_a_rollback_is_followed_and_keeps_what_is_newer(shelf: Shelf, here: Path, there: Path) -> None:
    first, second = publish_at(here, 0, "tea"), publish_at(here, 1, "tea", "snow")
    for each in (first, second):
        shelf.upload(here, each, KEEP)
    shelf.download(there, EMBEDDER, KEEP)
    shelf.upload(here, first, KEEP)
    shelf.download(there, EMBEDDER, KEEP)
    assert phrases(there) == {"tea"}
    shelf.upload(here, second, KEEP)
    taken = shelf.download(there, EMBEDDER, KEEP)
    assert taken
    assert taken.files == 0
    assert current_id(there) == second


def test_what_could_not_be_put_there_is_not_undone_here(shelf: Shelf, here: Path, there: Path) -> None:
    first = publish_at(here, 0, "tea")
    shelf.upload(here, first, KEEP)
    ahead = publish_at(here, 1, "tea", "snow")  # and then the network was away
    assert shelf.download(here, EMBEDDER, KEEP) is None
    assert current_id(here) == ahead
    other = publish_at(there, 2, "chess")
    shelf.upload(there, other, KEEP)  # another machine leads now
    shelf.download(here, EMBEDDER, KEEP)
    assert current_id(here) == other


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": flip,
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "gone": lambda data: None,
}


@on_disk
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["CURRENT", "manifests/", ".vectors", "rows.npy"])
def test_damage_there_is_named_and_changes_nothing_here(
    shelf: Shelf, here: Path, there: Path, part: str, damage: str
) -> None:
    old = publish_at(there, 0, "tea")
    new = publish_at(here, 1, "snow")
    shelf.upload(here, new, KEEP)
    storage = Storage(shelf)
    files = json.loads(storage.read(f"manifests/{new}.json"))["files"]
    named = f"files/{files[next(name for name in files if name.endswith(part))]}" if part[0] in ".r" else ""
    name = named or next(each for each in storage.names() if each.startswith(part))
    data = DAMAGES[damage](storage.read(name))
    if data is None:
        storage.remove(name)
    else:
        storage.write(name, data)
    if (part, damage) == ("CURRENT", "gone"):
        assert shelf.download(there, EMBEDDER, KEEP) is None  # nothing was ever put there, for all one can tell
    else:
        with pytest.raises(SnapshotError) as caught:
            shelf.download(there, EMBEDDER, KEEP)
        assert name in str(caught.value)
        assert shelf.label in str(caught.value)
    assert (phrases(there), snapshot_ids(there), list(there.glob(".*.part"))) == ({"tea"}, [old], [])
    # A file of another length is seen from outside, and put there again by the next refresh.
    shelf.upload(here, new, KEEP, again=named != "" and damage == "flipped")
    shelf.download(there, EMBEDDER, KEEP)
    assert phrases(there) == {"snow"}


def test_damage_here_does_not_get_there(shelf: Shelf, here: Path) -> None:
    first, second = publish_at(here, 0, "tea"), publish_at(here, 1, "snow", "tea")
    shelf.upload(here, first, KEEP)
    file = here / second / "rows.npy"
    file.write_bytes(flip(file.read_bytes()))
    with pytest.raises(CorruptSnapshot, match=rf"{second}: rows\.npy"):
        shelf.upload(here, second, KEEP)
    pointer = shelf.current()
    assert pointer
    assert pointer.id == first


def test_what_is_damaged_here_is_fetched_and_not_linked(shelf: Shelf, here: Path, there: Path) -> None:
    many = [f"trend {number}" for number in range(40)]
    first = publish_at(here, 0, *many)
    shelf.upload(here, first, KEEP)
    shelf.download(there, EMBEDDER, KEEP)
    (file,) = (there / first).glob("*.vectors")
    file.write_bytes(flip(file.read_bytes()))
    shelf.upload(here, publish_at(here, 1, *many, "one more"), KEEP)
    taken = shelf.download(there, EMBEDDER, KEEP)
    assert taken
    assert taken.files == 6
    assert phrases(there) == {*many, "one more"}
    shelf.upload(here, first, KEEP)
    shelf.download(there, EMBEDDER, KEEP)
    assert phrases(there) == set(many)


def test_vectors_of_another_embedder_are_refused_before_they_are_fetched(shelf: Shelf, here: Path, there: Path) -> None:
    shelf.upload(here, publish_at(here, 0, "tea"), KEEP)
    other = HashEmbedder()
    other.sha256 = "1" * 64
    with pytest.raises(CorruptSnapshot, match="vectors were made by"):
        shelf.download(there, other, KEEP)
    assert not there.exists()


@on_disk
@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "manifest.json", ".hidden", "a/b", ""])  # noqa: S108
def test_a_manifest_that_reaches_elsewhere_is_refused(shelf: Shelf, here: Path, there: Path, name: str) -> None:
    made = publish_at(here, 0, "tea")
    shelf.upload(here, made, KEEP)
    storage = Storage(shelf)
    manifest = json.loads(storage.read(f"manifests/{made}.json"))
    manifest["files"][name] = next(iter(manifest["files"].values()))
    manifest["seal"] = None
    data = json.dumps(manifest).encode()
    storage.write(f"manifests/{made}.json", data)
    storage.write("CURRENT", f"{made} {hashlib.sha256(data).hexdigest()}".encode())
    with pytest.raises(SnapshotError, match="not a manifest"):
        shelf.download(there, EMBEDDER, KEEP)
    assert not there.exists()


@on_disk
def test_a_manifest_that_was_changed_is_refused(shelf: Shelf, here: Path, there: Path) -> None:
    made = publish_at(here, 0, "tea")
    shelf.upload(here, made, KEEP)
    storage = Storage(shelf)
    changed = storage.read(f"manifests/{made}.json").replace(b'"live"', b'"sample"')
    storage.write(f"manifests/{made}.json", changed)
    with pytest.raises(ShelfError, match="does not match its checksum in CURRENT"):
        shelf.download(there, EMBEDDER, KEEP)
    assert not there.exists()


def test_a_reader_whose_snapshot_is_removed_takes_the_newer_one(
    shelf: Shelf, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.upload(here, publish_at(here, 0, "tea"), 1)
    newer = publish_at(here, 1, "snow")
    get = shelf._get

    def late(name: str, path: Path) -> None:
        monkeypatch.undo()
        shelf.upload(here, newer, 1)
        get(name, path)

    monkeypatch.setattr(shelf, "_get", late)
    taken = shelf.download(there, EMBEDDER, KEEP)
    assert taken
    assert taken.id == newer
    assert phrases(there) == {"snow"}


def test_two_processes_of_one_machine_may_take_the_same_snapshot(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow, quick = (Shelf(f"file://{tmp_path}/shelf") for _ in range(2))
    made = publish_at(here, 0, "tea")
    slow.upload(here, made, KEEP)
    get = slow._get

    def overtaken(name: str, path: Path) -> None:
        monkeypatch.undo()
        quick.download(there, EMBEDDER, KEEP)
        get(name, path)

    monkeypatch.setattr(slow, "_get", overtaken)
    slow.download(there, EMBEDDER, KEEP)
    assert (phrases(there), snapshot_ids(there), list(there.glob(".*.part"))) == ({"tea"}, [made], [])


def test_readers_beside_a_publisher_that_keeps_one_never_fail(tmp_path: Path) -> None:
    url, here = f"file://{tmp_path}/shelf", tmp_path / "here"
    Shelf(url).upload(here, publish_at(here, 0, "0"), 1)
    done, failures = threading.Event(), []

    def read(folder: Path) -> None:
        try:
            while not done.is_set():
                Shelf(url).download(folder, EMBEDDER, 1)
                phrases(folder)
        except Exception as error:  # noqa: BLE001  (told by the test)
            failures.append(error)

    with ExitStack() as stack:
        for number in range(2):
            thread = threading.Thread(target=read, args=(tmp_path / f"reader {number}",))
            thread.start()
            stack.callback(thread.join)
        stack.callback(done.set)
        for hour in range(1, 25):
            Shelf(url).upload(here, publish_at(here, hour, f"{hour}", "tea", keep=1), 1)
    assert failures == []
    for number in range(2):
        Shelf(url).download(tmp_path / f"reader {number}", EMBEDDER, 1)
        assert phrases(tmp_path / f"reader {number}") == {"24", "tea"}


def test_no_password_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailingFileSystem, "left", 0)
    monkeypatch.setattr(FailingFileSystem, "says", "ann and pass/word are refused")
    for url in ("failing://ann:pass/word@store.example/trends", "failing://store.example/trends?key=word"):
        shelf = Shelf(url)
        assert shelf.label == "failing://store.example/trends"
        with pytest.raises(ShelfError, match=r"failing://store\.example/trends") as caught:
            shelf.current()
        assert "word" not in str(caught.value)
        assert caught.value.__suppress_context__  # nor in a traceback
    with pytest.raises(ShelfError, match="are refused"):
        Shelf("failing://store.example/trends").current()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/x", "gcsfs"),
        ("nonsense://x", "does not know"),
        ("simplecache::s3://bucket", "chain"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"TRENDRAG_SNAPSHOTS__URL.*{said}"):
        Shelf(url)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trendrag\[s3\]'"):
        Shelf("s3://bucket/trends")


def test_a_missing_bucket_is_named(in_a_bucket: str, here: Path) -> None:
    made = publish_at(here, 0, "tea")
    with pytest.raises(ShelfError, match=r"s3://elsewhere/x.*does not exist"):
        Shelf("s3://elsewhere/x").upload(here, made, KEEP)
