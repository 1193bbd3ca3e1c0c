"""Starts and stops a real vLLM server for the tests, on a free loopback port and in a process group of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

MODEL = "tiny-qwen2.5-vl"
START_DEADLINE_S = 240.0
STOP_DEADLINE_S = 20.0

# Started through this instead of `-m`, so that the kernel stops the server when the tests die without cleaning up
# (1 is PR_SET_PDEATHSIG, Linux).
_BOOTSTRAP = (
    "import ctypes, runpy, signal; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')"
)
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # --enforce-eager leaves the sampler compiled: the first request with log-probabilities would wait 20 s for it.
    "TORCH_COMPILE_DISABLE": "1",
    # With the "uni" executor below: the model runs inside the engine's process. By default it has a process of its own,
    # for which the engine waits in a busy loop that starves the engine's output thread of the interpreter lock: on two
    # cores, streams then stand still for seconds while the model goes on.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True, slots=True)
class Vllm:
    """A running server. ``pid`` leads its process group; ``started_in`` is in seconds."""

    origin: str
    pid: int
    log: Path
    started_in: float

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    async def metric(self, name: str) -> float:
        """The sum over all label sets of one Prometheus sample, 0 where it has not been seen yet."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            page = (await client.get(f"{self.origin}/metrics")).raise_for_status().text
        samples = [line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples)

    async def wait_for_running(self, count: int, deadline_s: float = 15) -> None:
        """Returns once exactly ``count`` requests run; fails with what was seen when that takes too long."""
        seen = -1.0
        try:
            async with asyncio.timeout(deadline_s):
                # Polled, because the figure lives in another process.
                while (seen := await self.metric("vllm:num_requests_running")) != count:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{seen:g} requests run on the server, expected {count}\n{tail(self.log)}") from None

    def kill(self) -> None:
        """Like a crash or the out-of-memory killer: SIGKILL to every process of the server."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(
    python: Path, checkpoint: Path, log: Path, options: Sequence[str] = (), port: int | None = None
) -> Iterator[Vllm]:
    """A server that answers ``/health``, with ``options`` besides its own. On leaving, no process of it is left."""
    port = port or free_port()
    command = [
        *(str(python), "-c", _BOOTSTRAP),
        *("--model", str(checkpoint), "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", "4096", "--enforce-eager"),
        # 32 is the smallest block the CPU backend takes: small images leave a visible prefix hit too.
        *("--block-size", "32", "--enable-prompt-tokens-details"),
        *("--distributed-executor-backend", "uni"),
        *("--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
        *("--structured-outputs-config.backend", "xgrammar"),
        *("--structured-outputs-config.disable_any_whitespace", "true"),
        *options,
    ]
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        # Fixed arguments and paths of this checkout: nothing from outside reaches the command.
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,
        )
    try:
        origin = f"http://127.0.0.1:{port}"
        wait_until_healthy(origin, process, log)
        yield Vllm(origin, process.pid, log, time.monotonic() - started)
    finally:
        stop(process)


def wait_until_healthy(origin: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    with httpx2.Client(trust_env=False, timeout=2) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                if client.get(f"{origin}/health").is_success:
                    return
            time.sleep(0.2)
    ended = f"exited with status {process.returncode}" if process.poll() is not None else "is not up"
    raise RuntimeError(f"The vLLM server {ended} after at most {START_DEADLINE_S:.0f} s. Its log ends:\n{tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL, to the whole group: the engine runs in a child of the API server."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_DEADLINE_S)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])
