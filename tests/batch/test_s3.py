"""An archive in a bucket: read from there, written there, and gone on with, against a real S3 protocol."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.batch.places import Places
from tests.batch.archive import batch, caption, environment, pictures, record
from tests.batch.doomed import finish, start_at
from tests.batch.model_server import ModelServer, serving
from tests.buckets import s3_server
from trendrag.errors import RequestError, StorageError, TrendragError

ROWS = 12


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as files:
        yield files


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"archive-{secrets.token_hex(4)}"
    s3.mkdir(name)
    return f"s3://{name}"


def put(s3: Any, place: str, records: list[dict[str, Any]]) -> None:
    s3.pipe_file(place, b"".join(json.dumps(each).encode() + b"\n" for each in records))


def got(s3: Any, place: str) -> list[dict[str, Any]]:
    s3.invalidate_cache()
    return [json.loads(line) for line in s3.cat_file(place).splitlines()]


async def test_output_and_errors_lie_in_the_bucket_and_failed_rows_are_tried_again(
    tmp_path: Path, s3: Any, bucket: str
) -> None:
    pictures(tmp_path / "photos", ROWS)
    (tmp_path / "photos" / "4.jpg").rename(tmp_path / "4.away")
    put(s3, f"{bucket}/in.jsonl", [record(number) for number in range(ROWS)])
    places: dict[str, Any] = {"input": f"{bucket}/in.jsonl", "output": f"{bucket}/made/out.jsonl", "images": tmp_path}
    async with serving() as server:
        first = await batch(tmp_path, server, **places, limit=5)
        assert first.counts == {"done": 4, "failed": 1}
        assert first.places.told_errors == f"{bucket}/made/out.errors.jsonl"
        assert [row["id"] for row in got(s3, first.places.told_errors)] == ["r4"]
        with pytest.raises(RequestError, match="--resume"):
            await batch(tmp_path, server, **places)
        await batch(tmp_path, server, **places, mode="resume")
        (tmp_path / "4.away").rename(tmp_path / "photos" / "4.jpg")
        await batch(tmp_path, server, **places, mode="retry")
    rows = got(s3, places["output"])
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in range(ROWS)]
    assert not s3.exists(first.places.told_errors)
    assert set(server.calls.values()) == {1}


async def test_killed_it_goes_on_and_nothing_half_is_ever_in_the_bucket(tmp_path: Path, s3: Any, bucket: str) -> None:
    pictures(tmp_path / "photos", ROWS)
    put(s3, f"{bucket}/in.jsonl", [record(number) for number in range(ROWS)])
    places = f"{bucket}/in.jsonl", f"{bucket}/out.jsonl"
    options = "--resume", "--images", str(tmp_path), "--concurrency", "1"
    async with serving(ModelServer(delay_s=0.3)) as server:
        process = await start_at(places, environment(tmp_path, server), *options)
        await server.asked(6)
        process.kill()
        await process.communicate()
        s3.invalidate_cache()
        assert not s3.exists(places[1])
        status, said = await finish(await start_at(places, environment(tmp_path, server), *options))
        assert status == 0, said
    assert [row["vlm_caption"] for row in got(s3, places[1])] == [caption(number) for number in range(ROWS)]
    assert server.calls.total() <= ROWS + 3  # what the journal had was not asked for again


async def test_rows_that_the_bucket_did_not_take_wait_here(tmp_path: Path, s3: Any, bucket: str) -> None:
    pictures(tmp_path / "photos", 2)
    put(s3, f"{bucket}/in.jsonl", [record(0), record(1)])
    places: dict[str, Any] = {
        "input": f"{bucket}/in.jsonl",
        "output": "s3://no-such-bucket/out.jsonl",
        "images": tmp_path,
    }
    async with serving() as server:
        with pytest.raises(StorageError, match="--resume"):
            await batch(tmp_path, server, **places)
        s3.mkdir("no-such-bucket")
        await batch(tmp_path, server, **places, mode="resume")
    assert len(got(s3, places["output"])) == 2
    assert set(server.calls.values()) == {1}


async def test_an_output_whose_journal_is_elsewhere_is_not_written_over(tmp_path: Path, s3: Any, bucket: str) -> None:
    pictures(tmp_path / "photos", 1)
    put(s3, f"{bucket}/in.jsonl", [record(0)])
    put(s3, f"{bucket}/out.jsonl", [{"id": "from another machine"}])
    places: dict[str, Any] = {"input": f"{bucket}/in.jsonl", "output": f"{bucket}/out.jsonl", "images": tmp_path}
    async with serving() as server:
        for mode in ("new", "resume", "retry"):
            with pytest.raises(RequestError, match="is there"):
                await batch(tmp_path, server, **places, mode=mode)
        with pytest.raises(RequestError, match="one file"):
            await batch(tmp_path, server, **places | {"output": places["input"]}, mode="overwrite")
    assert got(s3, places["output"]) == [{"id": "from another machine"}]


async def test_what_the_bucket_refuses_is_told(tmp_path: Path, s3: Any, bucket: str) -> None:
    async with serving() as server:
        for place in (f"{bucket}/absent.jsonl", "s3://absent-bucket/in.jsonl", "nonsense://x/in.jsonl"):
            with pytest.raises(TrendragError, match="can't be re"):
                await batch(tmp_path, server, input=place, output=f"{bucket}/out.jsonl", images=tmp_path)
    assert not s3.exists(f"{bucket}/out.jsonl")


def test_places_of_two_outputs_never_meet(tmp_path: Path) -> None:
    first, second = (Places.of(f"s3://bucket/{name}.jsonl", tmp_path) for name in "ab")
    assert first.rows.parent == second.rows.parent == tmp_path / "batch"
    assert len({first.rows, second.rows, first.journal, second.journal, first.errors, second.errors}) == 6
