"""Whatever became of a snapshot's files, the loader says what a whole one says, or names the snapshot and the file."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from indexes.publishing import publish, publish_rows, published
from indexes.retriever import TrendRetriever
from indexes.segments import ROW, ROWS_FILE, rows_of
from indexes.snapshot import Snapshot, faults, open_snapshot
from indexes.table import Table
from indexes.withheld import WITHHELD_FILE, Withheld, read_withheld
from tests.fakes import NOW, HashEmbedder, make_trend
from tests.indexes.oracle import concepts_of
from trendrag.errors import CorruptSnapshot
from trendrag.types import TrendFilters

EMBEDDER = HashEmbedder()
EMBEDDER.dim = 16  # small files, so that damage hits what matters
MANIFEST = "manifest.json"
CONCEPTS = replace(
    concepts_of([((word,), (f"{word} here",)) for word in ("latte", "lantern", "kayak")], EMBEDDER), digest="0" * 16
)
LINKS = f".links-{CONCEPTS.digest}"
OLD = [make_trend(f"latte {place}", summary="art in a cup", score=0.2) for place in ("home", "work", "park")]
NEW = [
    make_trend("kayak night"),
    make_trend("goat yoga", region="DE", aliases=("#goatyoga",), scenes=("a goat on a back",)),
]
HELD = Withheld(phrase="x", reason="death", by="rule", term=None, score=None, headline=None, last_seen=NOW)
MANY = 3 * 2**20
"""Bytes: more than the limits below let through."""

Files = dict[str, bytes]


@dataclass(frozen=True, repr=False)
class Whole:
    """A snapshot as it was published; ``said`` is what it says."""

    name: str
    files: Files
    said: object

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def file(self, ending: str) -> str:
        """The name of the only file that ends so; of the first segment's where each has one."""
        return min(name for name in self.files if name.endswith(ending))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Of two segments, with a dead row in the first."""
    folder = tmp_path_factory.mktemp("whole")
    more = [make_trend(f"lantern {number}") for number in range(12)]
    first = [*OLD, *more]
    publish(folder, first, EMBEDDER, origin="live", recorded_at=NOW, now=NOW, keep=2, concepts=CONCEPTS)
    by_key = dict(zip(rows_of(NEW)["key"].tolist(), NEW, strict=True))
    info = publish_rows(
        folder,
        rows_of([*OLD, *more[1:], *NEW]),
        lambda keys: [by_key[key] for key in keys.tolist()],
        EMBEDDER,
        before=published(folder, EMBEDDER),
        origin="live",
        recorded_at=NOW,
        now=NOW + timedelta(hours=1),
        keep=2,
        withheld=[HELD.model_dump_json()],
        concepts=CONCEPTS,
    )
    return _whole(folder / info.id)


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A snapshot as version 1 wrote them."""
    name = "20261119T120000Z-0123abcd"
    folder = tmp_path_factory.mktemp("version 1") / name
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(EMBEDDER.dim))
    index.add_with_ids(EMBEDDER.embed(["kayak night", "goat yoga", "goat"]), np.array([0, 1, 1], dtype=np.int64))
    manifest = {
        "schema_version": 1,
        "id": name,
        "created_at": NOW.isoformat(),
        "recorded_at": NOW.isoformat(),
        "origin": "live",
        "count": len(NEW),
        "embedder": {"name": EMBEDDER.name, "sha256": EMBEDDER.sha256, "dim": EMBEDDER.dim},
        "files": {"trends.jsonl.zst": "", "index.faiss": ""},
    }
    files = {
        MANIFEST: json.dumps(manifest).encode(),
        "trends.jsonl.zst": packed(*(trend.model_dump_json() for trend in NEW)),
        "index.faiss": faiss.serialize_index(index).tobytes(),
    }
    place(folder, forged(files))
    return _whole(folder)


def _whole(folder: Path) -> Whole:
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return Whole(folder.name, files, said(open_snapshot(folder, EMBEDDER)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, whole: Whole) -> Path:
    """Where examples put their damaged snapshot; its name is the snapshot's id."""
    return tmp_path_factory.mktemp("damaged") / whole.name


def place(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def said(snapshot: Snapshot) -> object:
    """All that a reader could learn from it."""
    signals = Table(snapshot, CONCEPTS).signals("latte night in the park", EMBEDDER)
    assert signals.bridge is not None
    found = [np.round(signal, 5).tolist() for signal in (signals.cosine, signals.lexical, signals.bridge)]
    return snapshot.info, tuple(snapshot.trends), found


def refused(folder: Path, *names: str) -> bool:
    """Whether the snapshot is refused, at once or when what is wrong with it is used; then the message names it and one
    of ``names``, if there are any."""
    try:
        snapshot = open_snapshot(folder, EMBEDDER)
        Table(snapshot, CONCEPTS)
        tuple(snapshot.trends)
    except CorruptSnapshot as fault:
        assert folder.name in str(fault)
        assert not names or any(name in str(fault).split(folder.name, 1)[1] for name in names), str(fault)
        return True
    return False


def packed(*lines: str) -> bytes:
    return zstandard.ZstdCompressor().compress("".join(f"{line}\n" for line in lines).encode())


def manifest_of(files: Files) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(files[MANIFEST])
    return read


def forged(files: Files, /, **changes: object) -> Files:
    """The files with a manifest that has ``changes`` and that all of them fit, as one with bad intent would write."""
    manifest = manifest_of(files) | {"seal": None}
    manifest["files"] = {name: hashlib.sha256(files.get(name, b"")).hexdigest() for name in manifest["files"]}
    return files | {MANIFEST: json.dumps(manifest | changes).encode()}


# --- one thing goes wrong with a file


@st.composite
def damages(draw: st.DrawFn) -> Callable[[Files], tuple[str, ...]]:
    """What spoils the files in place and tells which."""
    which, where = draw(st.integers(0, 99)), draw(st.integers(0, 10**6))
    kind = draw(st.sampled_from(["truncate", "flip", "delete", "append", "swap", "empty"]))
    more = draw(st.binary(min_size=1, max_size=9))

    def damage(files: Files) -> tuple[str, ...]:
        names = sorted(files)
        name, other = names[which % len(names)], names[where % len(names)]
        data = files[name]
        match kind:
            case "truncate":
                files[name] = data[: where % len(data)]
            case "flip":
                at = where % (8 * len(data))
                files[name] = data[: at // 8] + bytes([data[at // 8] ^ (1 << at % 8)]) + data[at // 8 + 1 :]
            case "delete":
                del files[name]
            case "append":
                files[name] = data + more
            case "empty":
                files[name] = b""
            case _:
                files[name], files[other] = files[other], data
                return name, other
        return (name,)

    return damage


@given(damage=damages(), first=st.booleans())
def test_a_damaged_file_is_named_and_never_believed(
    damage: Callable[[Files], tuple[str, ...]], first: bool, whole: Whole, first_version: Whole, folder: Path
) -> None:
    before = first_version if first else whole
    spared = {MANIFEST: before.files[MANIFEST]} if first else {}  # nothing vouches for a manifest of version 1
    files = {name: data for name, data in before.files.items() if name not in spared}
    names = damage(files)
    files |= spared
    folder = folder.with_name(before.name)
    place(folder, files)
    if not refused(folder, *names):
        assert said(open_snapshot(folder, EMBEDDER)) == before.said
    # ``verify`` reads the file too that no reader of trends opens.
    found = faults(folder, EMBEDDER)
    if files != before.files and MANIFEST not in names:
        assert any(name in fault for fault in found for name in names)
    assert published(folder.parent, EMBEDDER) is None  # nothing points there


@given(bit=st.integers(0, 10**6))
def test_no_bit_of_a_manifest_can_flip_unseen(bit: int, whole: Whole, folder: Path) -> None:
    data = bytearray(whole.files[MANIFEST])
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    place(folder, whole.files | {MANIFEST: bytes(data)})
    assert refused(folder, MANIFEST)


@given(damage=damages())
def test_what_was_withheld_is_read_whole_or_not_at_all(
    damage: Callable[[Files], tuple[str, ...]], whole: Whole, folder: Path
) -> None:
    files = {name: whole.files[name] for name in (MANIFEST, WITHHELD_FILE)}
    damage(files)
    place(folder, files)
    try:
        assert read_withheld(folder) == (HELD,)
    except CorruptSnapshot as fault:
        assert folder.name in str(fault)
        assert WITHHELD_FILE in str(fault)


# --- the manifest says something else


@pytest.mark.parametrize("changes", [{"schema_version": 0}, {"schema_version": 3}, {"schema_version": "2"}])
def test_another_version_is_refused(changes: dict[str, object], whole: Whole, folder: Path) -> None:
    place(folder, forged(whole.files, **changes))
    assert refused(folder, MANIFEST)


@pytest.mark.parametrize("changes", [{"name": "other"}, {"sha256": "1" * 64}, {"dim": 15}, {"dim": -1}])
def test_another_embedder_is_refused(changes: dict[str, object], whole: Whole, folder: Path) -> None:
    embedder = manifest_of(whole.files)["embedder"] | changes
    place(folder, forged(whole.files, embedder=embedder))
    assert refused(folder, MANIFEST)


def test_a_snapshot_that_stands_in_for_another_is_refused(whole: Whole, folder: Path) -> None:
    other = folder.with_name("20261130T120000Z-0123abcd")
    place(other, whole.files)
    assert refused(other, MANIFEST)


HOSTILE = [
    "../../x",
    "/etc/hostname",
    "a/b",
    "a\\b",
    "..",
    ".",
    "",
    "nul\0",
    "x" * 5_000,
    "two\nlines",
    ".hidden",
    "a\n",
]
NAMES = st.sampled_from(HOSTILE) | st.text(max_size=20).filter(
    lambda name: not re.fullmatch(r"[\w.-]+", name, re.ASCII)
)


@given(name=NAMES, at=st.sampled_from(["files", "segments"]))
def test_no_name_leads_out_of_the_folder(name: str, at: str, whole: Whole, folder: Path) -> None:
    manifest = manifest_of(whole.files)
    if at == "files":
        changed: object = manifest["files"] | {name: hashlib.sha256(b"").hexdigest()}
    else:
        changed = [*manifest["segments"], {"name": name, "rows": 0}]
    place(folder, forged(whole.files, **{at: changed}))
    (folder.parent / "CURRENT").write_text(folder.name)
    try:
        assert refused(folder, MANIFEST)
        assert any(MANIFEST in fault for fault in faults(folder, EMBEDDER))
        assert published(folder.parent, EMBEDDER) is None
    finally:
        (folder.parent / "CURRENT").unlink()


def test_a_file_that_the_manifest_does_not_name_is_not_read(whole: Whole, folder: Path) -> None:
    for name in whole.files.keys() - {MANIFEST, WITHHELD_FILE}:
        listed = {other: digest for other, digest in manifest_of(whole.files)["files"].items() if other != name}
        place(folder, forged(whole.files, files=listed))
        if name.endswith((".facts", LINKS)):  # which can be made of the others
            (folder / name).write_bytes(b"")
            assert said(open_snapshot(folder, EMBEDDER)) == whole.said
        else:
            assert refused(folder, name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), value=JSON, first=st.booleans())
def test_a_manifest_of_any_content_is_read_or_refused(
    data: st.DataObject, value: object, first: bool, whole: Whole, first_version: Whole, folder: Path
) -> None:
    before = first_version if first else whole
    manifest = manifest_of(before.files)
    key = data.draw(st.sampled_from(sorted(manifest)))
    inner = manifest[key]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        value = inner | {data.draw(st.sampled_from(sorted(inner))): value}
    elif isinstance(inner, list) and inner and data.draw(st.booleans()):
        value = [inner[0] | {data.draw(st.sampled_from(["name", "rows"])): value}, *inner[1:]]
    folder = folder.with_name(before.name)
    place(folder, forged(before.files, **{key: value}))
    assert refused(folder) or usable(folder)


# --- the checksums are right, and what they are of is not


def usable(folder: Path) -> bool:
    """Whether a retriever answers from what was opened, with nothing that can't be."""
    snapshot = open_snapshot(folder, EMBEDDER)
    retriever = TrendRetriever(
        folder.parent,
        EMBEDDER,
        k=8,
        threshold=0.0,
        max_age=timedelta(hours=72),
        concepts=CONCEPTS,
        now=lambda: NOW,
    )
    answer = retriever.search(snapshot, "latte night in the park", TrendFilters())
    known = {trend.id for trend in snapshot.trends}
    return all(hit.trend.id in known and np.isfinite(hit.score) for hit in answer.trends)


@given(damage=damages(), first=st.booleans())
def test_contents_that_the_checksums_fit_are_usable_or_refused(
    damage: Callable[[Files], tuple[str, ...]], first: bool, whole: Whole, first_version: Whole, folder: Path
) -> None:
    before = first_version if first else whole
    files = {name: data for name, data in before.files.items() if name not in {MANIFEST, "index.faiss"}}
    empty = dict.fromkeys(files, b"")
    damage(files)
    folder = folder.with_name(before.name)
    place(folder, forged(before.files | empty | files))
    assert refused(folder) or usable(folder)


def saved(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asanyarray(array), allow_pickle=True)
    return file.getvalue()


def npz(array: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, np.asanyarray(array))
    return file.getvalue()


def header_only(shape: str) -> bytes:
    """A .npy that promises rows it does not have."""
    header = (
        f"{{'descr': {np.lib.format.dtype_to_descr(ROW)!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    )
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def with_field(name: str, value: object) -> Callable[[bytes], bytes]:
    """One field of the first live row changed."""

    def change(data: bytes) -> bytes:
        rows = np.load(io.BytesIO(data)).copy()
        rows[name][np.flatnonzero(rows["live"])[0]] = value
        return saved(rows)

    return change


def not_a_bool(data: bytes) -> bytes:
    return data[:-1] + b"\x07"  # the last row's ``live``


def with_line(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    """The lines of trends changed, and packed again."""

    def changed(data: bytes) -> bytes:
        lines = zstandard.ZstdDecompressor().stream_reader(data).read().decode().splitlines()
        return packed(*change(lines))

    return changed


def first_line(text: str) -> Callable[[bytes], bytes]:
    return with_line(lambda lines: [text, *lines[1:]])


def without(field: str) -> Callable[[bytes], bytes]:
    def change(lines: list[str]) -> list[str]:
        return [json.dumps({key: value for key, value in json.loads(line).items() if key != field}) for line in lines]

    return with_line(change)


def with_numbers(dtype: str, at: int, value: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        numbers = np.frombuffer(data, dtype=dtype).copy()
        numbers[at] = value
        return numbers.tobytes()

    return change


def json_array(value: object) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def with_arrays(*changes: Any) -> Callable[[bytes], bytes]:
    """Some arrays of a file of several changed: number, the new one or what makes it of the old, and so on."""

    def change(data: bytes) -> bytes:
        file, arrays = io.BytesIO(data), []
        while file.tell() < len(data):
            arrays.append(np.load(file))
        for number, new in zip(changes[::2], changes[1::2], strict=True):
            arrays[number] = new(arrays[number]) if callable(new) else new
        return b"".join(map(saved, arrays))

    return change


MALFORMED: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    (ROWS_FILE, "a pickle", lambda data: saved(np.array([{"a": 1}] * 17, dtype=object))),
    (ROWS_FILE, "of another type", lambda data: saved(np.zeros(17))),
    (ROWS_FILE, "a plane", lambda data: saved(np.load(io.BytesIO(data)).reshape(1, -1))),
    (ROWS_FILE, "a single row", lambda data: saved(np.load(io.BytesIO(data))[0])),
    (ROWS_FILE, "an archive", lambda data: npz(np.load(io.BytesIO(data)))),
    (ROWS_FILE, "a row less", lambda data: saved(np.load(io.BytesIO(data))[:-1])),
    (ROWS_FILE, "rows in another order", lambda data: saved(np.load(io.BytesIO(data))[::-1])),
    (ROWS_FILE, "empty", lambda data: b""),
    (ROWS_FILE, "a promise", lambda data: header_only("(17,)")),
    (ROWS_FILE, "a great promise", lambda data: header_only("(1000000000000,)")),
    (ROWS_FILE, "a promise beyond numbers", lambda data: header_only("(10000000000000000000000000,)")),
    (ROWS_FILE, "a negative promise", lambda data: header_only("(-1,)")),
    (ROWS_FILE, "brackets", lambda data: header_only("(" * 5_000)),
    (ROWS_FILE, "a stage that there is not", with_field("stage", 9)),
    (ROWS_FILE, "a score that is no number", with_field("score", np.nan)),
    (ROWS_FILE, "a score above 1", with_field("score", 1e9)),
    (ROWS_FILE, "a velocity that is no number", with_field("velocity", np.inf)),
    (ROWS_FILE, "a time that there is not", with_field("last_seen", 2**62)),
    (ROWS_FILE, "neither live nor dead", not_a_bool),
    (".trends.jsonl.zst", "not packed", lambda data: b"{}\n" * 15),
    (".trends.jsonl.zst", "a line less", with_line(lambda lines: lines[:-1])),
    (".trends.jsonl.zst", "a line more", with_line(lambda lines: [*lines, lines[-1]])),
    (".trends.jsonl.zst", "other lines", with_line(lambda lines: lines[::-1])),
    (".trends.jsonl.zst", "a list", first_line("[]")),
    (".trends.jsonl.zst", "null", first_line("null")),
    (".trends.jsonl.zst", "deep", first_line("[" * 200_000)),
    (".trends.jsonl.zst", "a wide number", first_line("9" * 10_000)),
    (".trends.jsonl.zst", "no field", first_line("{}")),
    (".trends.jsonl.zst", "a field less", without("phrase")),
    (".trends.jsonl.zst", "a lone surrogate", first_line('{"id": "\\ud800"}')),
    (".trends.jsonl.zst", "a long line", first_line("x" * MANY)),
    (".trends.jsonl.zst", "many lines", with_line(lambda lines: lines + [""] * MANY)),
    (".owners", "below zero", with_numbers("<i4", 0, -1)),
    (".owners", "beyond the segment", with_numbers("<i4", -1, 15)),
    (".owners", "far beyond", with_numbers("<i4", -1, 2**31 - 1)),
    (".owners", "not ascending", with_numbers("<i4", 1, 9)),
    (".owners", "one less", lambda data: data[:-4]),
    (".owners", "a byte more", lambda data: data + b"\0"),
    (".owners", "none", lambda data: b""),
    (".vectors", "no number", with_numbers("<f4", 3, np.nan)),
    (".vectors", "infinite", with_numbers("<f4", 3, np.inf)),
    (".vectors", "too long", with_numbers("<f4", 3, 1e30)),
    (".vectors", "one less", lambda data: data[: -4 * EMBEDDER.dim]),
    (".vectors", "one more", lambda data: data + data[: 4 * EMBEDDER.dim]),
    (".vectors", "a byte more", lambda data: data + b"\0"),
    (".vectors", "none", lambda data: b""),
    (".facts", "none", lambda data: b""),
    (".facts", "cut off", lambda data: data[:-4]),
    (".facts", "a byte more", lambda data: data + b"\0"),
    (".facts", "a pickle", lambda data: saved(np.array([{"a": 1}], dtype=object)) + data),
    (".facts", "a promise", lambda data: header_only("(1000000000000,)") + data),
    (".facts", "names that are none", with_arrays(0, json_array([1]))),
    (".facts", "names that are no JSON", with_arrays(0, np.array([7], dtype=np.uint8))),
    (".facts", "a name that there is not", with_arrays(2, np.full(15, 1, dtype=np.int32))),
    (".facts", "a label below zero", with_arrays(2, np.full(15, -1, dtype=np.int32))),
    (".facts", "labels of no trend", with_arrays(1, np.full(15, 15, dtype=np.int32))),
    (".facts", "labels less", with_arrays(1, np.zeros(14, dtype=np.int32))),
    (".facts", "words out of order", with_arrays(9, lambda words: words[::-1])),
    (".facts", "words less", with_arrays(9, lambda words: words[1:])),
    (".facts", "ends that go back", with_arrays(10, lambda ends: ends[::-1])),
    (".facts", "ends beyond numbers", with_arrays(10, lambda ends: ends + np.int64(2**62))),
    (".facts", "words of no trend", with_arrays(11, lambda rows: rows + np.int32(15))),
    (".facts", "words of trends below zero", with_arrays(11, lambda rows: rows - np.int32(15))),
    (".facts", "words of another type", with_arrays(11, lambda rows: rows.astype(np.float32))),
    (".facts", "words that are not there", with_arrays(12, np.zeros_like)),
    (".facts", "words that are too many", with_arrays(12, lambda counts: counts * np.int32(2**30))),
    (".facts", "lengths less", with_arrays(13, lambda lengths: lengths[:-1])),
    (".facts", "lengths below zero", with_arrays(13, lambda lengths: -lengths)),
    (".facts", "scenes less", with_arrays(14, lambda scenes: scenes[:-1])),
    (".facts", "scenes below zero", with_arrays(14, lambda scenes: scenes - np.int32(1))),
    (".facts", "scenes in place of vectors", with_arrays(14, lambda scenes: scenes + np.int32(2))),
    (LINKS, "none", lambda data: b""),
    (LINKS, "cut off", lambda data: data[:-4]),
    (LINKS, "a promise", lambda data: header_only("(1000000000000,)") + data),
    (LINKS, "of fewer trends", with_arrays(0, lambda concepts: concepts[:-1], 1, lambda weights: weights[:-1])),
    (LINKS, "of other concepts", with_arrays(0, lambda concepts: concepts + np.int32(1))),
    (LINKS, "below zero", with_arrays(0, lambda concepts: concepts - np.int32(1))),
    (LINKS, "fewer", with_arrays(0, lambda concepts: concepts[:, 1:], 1, lambda weights: weights[:, 1:])),
    (LINKS, "weights fewer", with_arrays(1, lambda weights: weights[:, 1:])),
    (LINKS, "a line", with_arrays(0, np.ravel, 1, np.ravel)),
    (LINKS, "no number", with_arrays(1, lambda weights: weights * np.float32(np.nan))),
    (LINKS, "too strong", with_arrays(1, lambda weights: weights + np.float32(1))),
    (LINKS, "too weak", with_arrays(1, lambda weights: weights - np.float32(1))),
]


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits that a test can reach without taking the memory that they are there to spare."""
    monkeypatch.setattr("indexes.segments.MAX_TRENDS_BYTES", 2 * 2**20)
    monkeypatch.setattr("indexes.segments.MAX_LINE_BYTES", 2**20)
    yield


@pytest.mark.parametrize(
    ("ending", "spoil"),
    [pytest.param(ending, spoil, id=f"{ending}: {what}") for ending, what, spoil in MALFORMED],
)
def test_contents_that_no_publisher_writes_are_refused_by_name(
    ending: str, spoil: Callable[[bytes], bytes], whole: Whole, folder: Path, low_limits: None
) -> None:
    name = whole.file(ending)
    place(folder, forged(whole.files | {name: spoil(whole.files[name])}))
    # Where two files contradict each other either may be the wrong one.
    segment = name.removesuffix(ending) if ending != ROWS_FILE else ""
    also = [ROWS_FILE, *(segment + other for other in (".owners", ".vectors", ".trends.jsonl.zst") if segment)]
    assert refused(folder, name, *(also if "less" in ending else []))
    if ending in {".trends.jsonl.zst", ".facts"}:  # all that is needed to see it
        assert any(name in fault for fault in faults(folder, EMBEDDER))
