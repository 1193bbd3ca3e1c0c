"""The same input through Ray: the same output, and bad rows as rows. On a Ray of the run's own, and on a cluster."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch.archive import batch, caption, captions_of, pictures, read, record, write
from tests.batch.model_server import ModelServer, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux" or sys.version_info >= (3, 14), reason="there is no Ray for it")


@pytest.fixture(scope="module", autouse=True)
def environment_of_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # workers import what this process has
        yield


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a head node, whose processes are none of ours."""
    log = tmp_path_factory.mktemp("ray") / "log"
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603
    try:
        address = None
        while address is None:
            try:
                ended = process.wait(0.2)
            except subprocess.TimeoutExpired:
                address = re.search(r"--address='([\d.:]+)'", log.read_text())
            else:
                pytest.fail(f"ray start ended with {ended}: {log.read_text()}")
        yield address[1]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


async def test_ray_writes_what_the_local_engine_writes(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 24)
    (tmp_path / "photos" / "5.jpg").write_bytes(b"no picture")
    lines = [record(number) for number in range(24)]
    write(tmp_path / "in.jsonl", [*lines[:9], b"{", *lines[9:]])
    poisoned = caption(7)[18:30]
    async with serving(ModelServer(status=lambda name: 400 if name == poisoned else 200)) as server:
        first = await batch(tmp_path, server)
        second = await batch(tmp_path, server, output=str(tmp_path / "ray.jsonl"), engine="ray", concurrency=4)
    assert first.counts == second.counts == {"done": 22, "failed": 3}
    assert captions_of(tmp_path / "ray.jsonl") == captions_of(tmp_path / "out.jsonl")
    assert list(captions_of(tmp_path / "ray.jsonl")) == list(captions_of(tmp_path / "out.jsonl"))
    assert read(tmp_path / "ray.errors.jsonl") == read(tmp_path / "out.errors.jsonl")
    assert first.usage == second.usage


async def test_a_cluster_by_its_address_goes_on_and_asks_for_nothing_twice(tmp_path: Path, cluster: str) -> None:
    pictures(tmp_path / "photos", 12)
    again = record(0, title="the same once more")
    write(tmp_path / "in.jsonl", [*(record(number) for number in range(12)), again])
    options = {"engine": "ray", "ray_address": cluster, "concurrency": 4}
    async with serving() as server:
        assert (await batch(tmp_path, server, **options, limit=5)).counts == {"done": 5, "failed": 0}
        assert (await batch(tmp_path, server, **options, mode="resume")).counts == {"done": 13, "failed": 0}
    rows = read(tmp_path / "out.jsonl")
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in [*range(12), 0]]
    assert rows[-1]["vlm_captioned_at"] == rows[0]["vlm_captioned_at"]  # the journal's, found by its key
    assert set(server.calls.values()) == {1}
