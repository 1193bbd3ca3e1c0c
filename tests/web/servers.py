"""The real server as a process of its own, and a model server whose words and faults a test chooses."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexes.embedder import open_minilm
from indexes.publishing import publish
from tests.serving.faulty_server import Fault, FaultyServer, serving
from trendrag.settings import default_data_dir
from trendrag.types import Trend

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 60


def data_dir(folder: Path, trends: Sequence[Trend] = ()) -> Path:
    """A data directory with the checkout's weights, and a snapshot of ``trends`` where there are any."""
    folder.mkdir(parents=True)
    (folder / "models").symlink_to(default_data_dir() / "models")
    if trends:
        now = datetime.now(UTC)
        embedder = open_minilm(folder / "models")
        publish(folder / "snapshots", trends, embedder, origin="live", recorded_at=now, now=now, keep=1)
    return folder


def with_sample_trends(folder: Path) -> Path:
    """The same with the bundled sample, brought in as a user does it."""
    data_dir(folder)
    command = [sys.executable, "-P", "-m", "trendrag", "refresh", "--sample"]
    done = subprocess.run(  # noqa: S603 - fixed arguments
        command, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment(folder: Path, **settings: object) -> dict[str, str]:
    given = {f"TRENDRAG_{name}": str(value) for name, value in settings.items()}
    return os.environ | {"TRENDRAG_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT), **given}


class Server:
    """`trendrag serve` on loopback, which may be stopped and started again at the same address."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self._folder = folder
        self._settings = settings
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "trendrag", "serve", "--port", str(self._port)]
        log = self._folder / "server.log"
        with log.open("a", encoding="utf-8") as output:
            self._process = subprocess.Popen(  # noqa: S603 - fixed arguments
                command,
                env=environment(self._folder, **self._settings),
                cwd=self._folder,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            said.append(line)
            if line.startswith("TrendRAG is at http://127.0.0.1:"):
                self._port = int(line.split("127.0.0.1:")[1].split()[0])
                break
        else:
            raise AssertionError("The server did not start:\n" + "".join(said))
        # Read on, so that the server never waits for a full pipe.
        threading.Thread(target=_drain, args=(self._process.stderr, log), daemon=True).start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Like a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _drain(stream: Iterator[str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as output:
        output.writelines(stream)


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Server]:
    server = Server(folder, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass
class ScriptedModel:
    """A model server on loopback in a thread of its own. ``changed`` and ``release`` may be called from any thread."""

    server: FaultyServer
    loop: asyncio.AbstractEventLoop

    @property
    def settings(self) -> dict[str, object]:
        """By which a TrendRAG server writes with it, and fails at once where it fails."""
        return {
            "MODEL__PROVIDER": "openai",
            "MODEL__BASE_URL": self.server.base_url,
            "MODEL__NAME": "tiny",
            "MODEL__TOKEN_TIMEOUT_S": 60,
        }

    def says(self, *words: str, fault: Fault = "none", hold: bool = False, times: int | None = None) -> None:
        """From the next request on: these words; with ``hold`` only the first, until ``release``."""

        def change() -> None:
            self.server.words, self.server.fault, self.server.times = words, fault, times
            self.server.next_word = asyncio.Event() if hold else None

        self._run(change)

    def release(self) -> None:
        def let_go() -> None:
            if self.server.next_word:
                self.server.next_word.set()

        self._run(let_go)

    def _run(self, change: object) -> None:
        async def call() -> None:
            assert callable(change)
            change()

        asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    ready = threading.Event()
    made: list[ScriptedModel] = []
    ends: list[asyncio.Event] = []

    async def serve() -> None:
        ends.append(asyncio.Event())
        async with serving(FaultyServer()) as server:
            made.append(ScriptedModel(server, asyncio.get_running_loop()))
            ready.set()
            await ends[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield made[0]
    finally:
        made[0].loop.call_soon_threadsafe(ends[0].set)
        thread.join(30)
