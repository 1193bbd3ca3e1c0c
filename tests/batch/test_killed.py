"""SIGKILL in the middle of a batch, at any moment: --resume makes the same output as a run that nobody disturbed.

A few kills in a plain run, 50 with TRENDRAG_TEST_CRASH=1 (`make test-crash`).
"""

import asyncio
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from tests.batch.archive import bare, caption, captions_of, pictures, read, record, write
from tests.batch.doomed import finish, killed_at, start
from tests.batch.model_server import ModelServer, serving

THOROUGH = os.environ.get("TRENDRAG_TEST_CRASH") == "1"
KILLS = 50 if THOROUGH else 3
ROWS = 1200 if THOROUGH else 150


@pytest.mark.parametrize("packed", ["", ".gz"] if THOROUGH else [""])
async def test_killed_at_any_time_it_goes_on_with_every_row_once(tmp_path: Path, packed: str) -> None:
    pictures(tmp_path / "photos", ROWS)
    records = [record(number) for number in range(ROWS)]
    for number in range(0, ROWS, 40):
        records[number]["image_path"] = "photos/absent.jpg"
    write(tmp_path / "in.jsonl", records)
    expected = {each["id"]: caption(number) for number, each in enumerate(records) if number % 40}
    chance, kills = random.Random(20261122), 0  # noqa: S311  (no secret)
    async with serving(ModelServer(delay_s=0.02)) as server:
        for turn in range(KILLS):
            process = await start(tmp_path, server, "--resume", "--concurrency", "4", "--engine", "local")
            # So few captions each time that some are left for the last; now and then while it still starts.
            further = chance.randrange(1, ROWS // (KILLS + 1))
            begins = turn % 3 == 2
            moment = asyncio.sleep(chance.random()) if begins else server.asked(server.calls.total() + further)
            kills += await killed_at(process, moment)
            if (tmp_path / "out.jsonl").exists():
                # What is there is a beginning of the whole, but for the last line, which may be half.
                whole = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
                assert len(whole) <= len(expected)
        status, said = await finish(await start(tmp_path, server, "--resume"))
        assert status == 1, said  # the absent pictures
    assert kills
    rows = read(tmp_path / "out.jsonl")
    assert [bare(row) for row in rows] == [each for number, each in enumerate(records) if number % 40]
    assert captions_of(tmp_path / "out.jsonl") == expected
    failed = [row["line"] for row in read(tmp_path / "out.errors.jsonl")]
    assert failed == [number + 1 for number in range(0, ROWS, 40)]
    # Only what was under way, or had not been noted yet, at a kill is asked for again.
    assert server.calls.total() <= len(expected) + kills * 120


async def test_killed_while_failed_rows_are_tried_again_it_loses_none(tmp_path: Path) -> None:
    rows = 60
    pictures(tmp_path / "photos", rows)
    write(tmp_path / "in.jsonl", [record(number) for number in range(rows)])
    away = [tmp_path / "photos" / f"{number}.jpg" for number in range(0, rows, 2)]
    for path in away:
        path.rename(path.with_suffix(".away"))
    async with serving(ModelServer(delay_s=0.05)) as server:
        assert (await finish(await start(tmp_path, server)))[0] == 1
        for path in away:
            path.with_suffix(".away").rename(path)
        seen = server.calls.total()
        process = await start(tmp_path, server, "--retry-failed", "--concurrency", "2")
        await server.asked(seen + 8)
        process.kill()
        await process.communicate()
        assert len(read(tmp_path / "out.jsonl")) == rows // 2  # the old output, whole, until the new one is
        status, said = await finish(await start(tmp_path, server, "--retry-failed"))
        assert status == 0, said
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(rows)}


@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_ends_it_cleanly_and_says_how_to_go_on(tmp_path: Path, times: int) -> None:
    pictures(tmp_path / "photos", 40)
    write(tmp_path / "in.jsonl", [record(number) for number in range(40)])
    async with serving(ModelServer(delay_s=0.2)) as server:
        process = await start(tmp_path, server, "--concurrency", "2")
        await server.asked(7)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        status, said = await finish(process)
        assert status != 0
        assert "--resume" in said
        assert "Traceback" not in said
        assert len(read(tmp_path / "out.jsonl")) < 40
        assert (await finish(await start(tmp_path, server, "--resume")))[0] == 0
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(40)}


async def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 30)
    write(tmp_path / "in.jsonl", [record(number, text="x" * 4000) for number in range(30)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with serving() as server:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # children inherit it
        try:
            process = await start(tmp_path, server)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        status, said = await finish(process)
        assert status == 1
        assert "--resume" in said
        assert "Traceback" not in said
        assert (await finish(await start(tmp_path, server, "--resume")))[0] == 0
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(30)}
