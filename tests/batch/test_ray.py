"""The same input through Ray, on a Ray of this machine: the same output, and bad rows as rows."""

import sys
from pathlib import Path

import pytest

from tests.batch.archive import batch, caption, captions_of, pictures, read, record, write
from tests.batch.model_server import ModelServer, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux" or sys.version_info >= (3, 14), reason="there is no Ray for it")


async def test_ray_writes_what_the_local_engine_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # workers import what this process has
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
