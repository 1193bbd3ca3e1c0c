"""Where images come from: hosts that fail now and then, that are asked for few at once, and are asked once."""

from pathlib import Path

import pytest

from serving.batch.images import ImageCache
from tests.batch.archive import SYNTHETIC, batch, caption, captions_of, read, settings_for, write
from tests.batch.model_server import ModelServer, serving


def remote(server: ModelServer, number: int) -> dict[str, str]:
    return {"id": f"r{number}", "image_url": f"{server.url}/photo/{number}.jpg", "description": SYNTHETIC}


async def test_images_are_fetched_again_where_that_may_help_and_bad_addresses_are_told(tmp_path: Path) -> None:
    async with serving() as server:
        server.fetches = {"/photo/1.jpg": [500], "/photo/2.jpg": [404] * 9, "/photo/3.jpg": [503, 429]}
        records = [remote(server, number) for number in range(5)]
        records[4]["image_url"] = "ftp://host/photo.jpg"
        write(tmp_path / "in.jsonl", records)
        summary = await batch(tmp_path, server)
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in (0, 1, 3)}
    assert summary.counts == {"done": 3, "failed": 2}
    assert "404" in read(tmp_path / "out.errors.jsonl")[0]["reason"]
    assert server.fetched == {"/photo/0.jpg": 1, "/photo/1.jpg": 2, "/photo/2.jpg": 1, "/photo/3.jpg": 3}


@pytest.mark.parametrize(("cache_mb", "times"), [(100, 1), (0, 2)])
async def test_fetched_images_are_kept_for_the_next_run(tmp_path: Path, cache_mb: int, times: int) -> None:
    async with serving() as server:
        write(tmp_path / "in.jsonl", [remote(server, number) for number in range(4)])
        settings = settings_for(tmp_path, server, cache_mb=cache_mb)
        await batch(tmp_path, server, settings)
        await batch(tmp_path, server, settings, output=str(tmp_path / "again.jsonl"))
    assert captions_of(tmp_path / "again.jsonl") == {f"r{number}": caption(number) for number in range(4)}
    assert set(server.fetched.values()) == {times}


def test_a_full_cache_keeps_no_more_and_a_damaged_one_harms_nobody(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, 10)
    cache.put("a" * 64, b"12345678")
    cache.put("b" * 64, b"12345678")
    assert cache.get("a" * 64) == b"12345678"
    assert cache.get("b" * 64) is None
    again = ImageCache(tmp_path, 10)
    again.put("c" * 64, b"123")
    assert again.get("c" * 64) is None


async def test_a_damaged_file_of_the_cache_is_fetched_again(tmp_path: Path) -> None:
    async with serving() as server:
        write(tmp_path / "in.jsonl", [remote(server, 0)])
        await batch(tmp_path, server)
        (kept,) = (tmp_path / "var" / "batch-images").glob("??/*")
        kept.write_bytes(b"rubbish")
        await batch(tmp_path, server, mode="overwrite")
    assert captions_of(tmp_path / "out.jsonl") == {"r0": caption(0)}
    assert server.fetched == {"/photo/0.jpg": 2}
