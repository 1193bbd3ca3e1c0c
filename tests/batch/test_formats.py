"""Packed files, storage elsewhere and Parquet: the same rows in, the same rows out."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from serving.batch.source import open_source
from tests.batch.archive import SYNTHETIC, batch, caption, pictures, record
from tests.batch.model_server import serving
from trendrag.errors import RequestError

ROWS = 6


def lines() -> bytes:
    return b"".join(json.dumps(record(number)).encode() + b"\n" for number in range(ROWS))


def packed(data: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data[:50]) + gzip.compress(data[50:])  # of two members, as `cat` makes them
    if name.endswith(".zst"):
        return zstandard.compress(data[:50]) + zstandard.compress(data[50:])
    return data


def unpacked(data: bytes, name: str) -> list[dict[str, object]]:
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.mark.parametrize("end", [".gz", ".zst"])
async def test_packed_lines_go_in_and_out_over_several_runs(tmp_path: Path, end: str) -> None:
    pictures(tmp_path / "photos", ROWS)
    (tmp_path / f"in.jsonl{end}").write_bytes(packed(lines(), end))
    names = {"input": str(tmp_path / f"in.jsonl{end}"), "output": str(tmp_path / f"out.jsonl{end}")}
    async with serving() as server:
        await batch(tmp_path, server, **names, limit=2)
        await batch(tmp_path, server, **names, mode="resume", limit=4)
        await batch(tmp_path, server, **names, mode="resume")
    rows = unpacked((tmp_path / f"out.jsonl{end}").read_bytes(), end)
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in range(ROWS)]


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize("damage", [b"", b"\0\0\0\0" * 50])
def test_a_packed_file_that_is_cut_or_damaged_is_named_with_the_line(tmp_path: Path, end: str, damage: bytes) -> None:
    place = tmp_path / f"in.jsonl{end}"
    data = packed(lines() * 100, end)
    place.write_bytes(data[: len(data) // 2] + damage)
    with pytest.raises(RequestError, match="beyond line"):
        list(open_source(str(place)).lines())


async def test_storage_elsewhere_is_read_and_written(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    pictures(tmp_path / "photos", ROWS)
    memory.pipe("/bucket/in.jsonl.zst", packed(lines(), ".zst"))
    names = {"input": "memory://bucket/in.jsonl.zst", "output": "memory://bucket/made/out.jsonl.gz"}
    async with serving() as server:
        await batch(tmp_path, server, **names, images=tmp_path)
        await batch(tmp_path, server, **names, images=tmp_path, mode="resume")
    rows = unpacked(memory.cat("/bucket/made/out.jsonl.gz"), ".gz")
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in range(ROWS)]
    assert set(server.calls.values()) == {1}


async def test_parquet_goes_in_and_out(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", ROWS)
    table = pyarrow.table(
        {
            "id": [2**62 + number for number in range(ROWS)],
            "image_path": [f"photos/{number}.jpg" for number in range(ROWS)],
            "description": [SYNTHETIC] * ROWS,
            "taken": [datetime(1931, 5, 3, tzinfo=UTC)] * ROWS,
            "tags": [["parc", "été"], [], None, ["x"], [], []],
            "score": [float("nan"), 1.5, None, 2.0, 3.0, 4.0],
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet")
    names = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out.parquet")}
    async with serving() as server:
        await batch(tmp_path, server, **names)
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == table["id"].to_pylist()
    assert [row["tags"] for row in rows] == table["tags"].to_pylist()
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in range(ROWS)]
    assert rows[0]["taken"] == "1931-05-03T00:00:00+00:00"
    assert rows[0]["score"] is None


async def test_records_of_different_fields_share_a_parquet_file(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 3)
    several = [record(0, year=1930), record(1, year=1930.5), record(2, place={"city": "Montréal"})]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, several)))
    async with serving() as server:
        await batch(tmp_path, server, output=str(tmp_path / "out.parquet"))
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["year"] for row in rows] == [1930.0, 1930.5, None]
    assert rows[2]["place"] == {"city": "Montréal"}
