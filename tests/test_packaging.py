"""What is installed is what was meant."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

OURS = {"trendrag", "indexes", "ingest", "serving", "evals"}


def test_no_dependency_ships_one_of_our_names() -> None:
    owners = packages_distributions()
    assert {name: owners[name] for name in OURS & owners.keys() if set(owners[name]) != {"trendrag"}} == {}


def test_nothing_heavy_is_imported_for_the_help() -> None:
    heavy = [
        "alembic",
        "faiss",
        "fastapi",
        "httpx2",
        "langchain_core",
        "numpy",
        "onnxruntime",
        "pydantic",
        "rich",
        "sqlalchemy",
    ]
    code = (
        "import sys, contextlib\n"
        "sys.argv = ['trendrag', '--help']\n"
        "from trendrag.cli import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stderr.strip() == "[]"
    assert "caption" in result.stdout


def test_the_default_install_has_no_torch() -> None:
    owners = packages_distributions()
    assert "torch" not in owners


def test_the_default_install_locks_no_torch_and_no_client_of_a_cloud() -> None:
    lock = (Path(__file__).resolve().parent.parent / "locks" / "runtime.txt").read_text("utf-8")
    names = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert "fsspec" in names
    assert names.isdisjoint({"torch", "boto3", "botocore", "aiobotocore", "s3fs"})


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(root).as_posix()
        for name in OURS
        for path in (root / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(root / "serving" / "web")
    }
    assert inside == here
