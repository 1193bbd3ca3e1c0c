"""With what a run was made: versions, commit and hardware, as its record keeps them."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("trendrag", "numpy", "onnxruntime", "faiss-cpu", "langchain-core", "openai", "inspect-ai", "pycocoevalcap")
_WAIT_S = 10


def versions() -> dict[str, str]:
    """Python's, and those installed of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit that the code is of, with "+changes" where files differ from it; None outside of a checkout."""
    head = _said("git", "-C", str(folder), "rev-parse", "HEAD")
    if not head:
        return None
    changed = _said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return head + ("+changes" if changed else "")


def hardware() -> dict[str, str]:
    """The machine in words: system, processor, cores, memory and, where NVIDIA's tool lists any, GPUs."""
    found = {"system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count() or "unknown")}
    if model := _processor():
        found["processor"] = model
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if gpus := _said("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"):
        found["gpu"] = "; ".join(gpus.splitlines())
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _said(program: str, *arguments: str) -> str | None:
    path = shutil.which(program)
    if not path:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, timeout=_WAIT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
