"""How many captions are asked for at once: decisions in a table, and the gate that keeps them."""

import asyncio
from pathlib import Path

import pytest

from serving.batch.pace import Gate, Load, metrics_url, next_limit, read_load
from tests.batch.archive import batch, captions_of, pictures, record, write
from tests.batch.model_server import ModelServer, serving


@pytest.mark.parametrize(
    ("limit", "in_flight", "load", "then"),
    [
        (8, 8, Load(8, 0), 16),  # nothing waits: more
        (1, 1, Load(1, 0), 2),
        (8, 3, Load(3, 0), 8),  # it is the images that hold us
        (32, 32, Load(30, 2), 32),  # just full
        (64, 64, Load(32, 32), 57),  # half of it only waits
        (64, 20, Load(200, 500), 1),  # others have filled it
        (250, 250, Load(250, 0), 256),
    ],
)
def test_the_limit_follows_the_servers_queue(limit: int, in_flight: int, load: Load, then: int) -> None:
    assert next_limit(limit, in_flight, load) == then


def test_where_the_queue_was_full_before_the_limit_grows_by_a_few() -> None:
    assert next_limit(32, 32, Load(32, 0), filled=True) == 36
    assert next_limit(32, 20, Load(20, 0), filled=True) == 32


def test_the_queue_is_read_over_all_engines() -> None:
    text = (
        "# HELP vllm:num_requests_running x\n# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="m"} 4.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 1e+01\n'
    )
    assert read_load(text) == Load(7, 10)
    assert read_load("# nothing of the kind\n") is None


def test_metrics_stand_beside_v1() -> None:
    assert metrics_url("http://host:8001/v1/") == "http://host:8001/metrics"
    assert metrics_url(None) is None


async def test_a_gate_lets_as_many_through_as_its_limit_says_whatever_happens_to_those_in_line() -> None:
    gate = Gate(2)
    most = inside = 0

    async def one(number: int) -> None:
        nonlocal most, inside
        async with gate:
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            finally:
                inside -= 1

    tasks = [asyncio.create_task(one(number)) for number in range(40)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
    gate.change(5)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most <= 5
    assert gate.inside == inside == 0
    async with gate:
        assert gate.inside == 1


async def test_a_run_finds_out_how_much_the_server_takes(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 300)
    write(tmp_path / "in.jsonl", [record(number) for number in range(300)])
    async with serving(ModelServer(delay_s=0.3, places=24)) as server:
        await batch(tmp_path, server)
    assert server.most_inside > 20  # it began with 8
    assert len(captions_of(tmp_path / "out.jsonl")) == 300
