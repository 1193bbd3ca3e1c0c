"""Fetches feedparser's source archive, whose tests are feeds with every fault there is: ``var/corpus``.

They are read where they lie and never become part of this repository. Needs only the standard library and pip:

    python tests/corpus/fetch.py

Running it again costs nothing while the archive is there.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "corpus"
NAME = "feedparser"
VERSION = "6.0.14"
SHA256 = "088679b0c4b543ee211a820dd544698c76a402122eae7473c04a43425f283d06"
ARCHIVE = FOLDER / f"{NAME}-{VERSION}.tar.gz"


def main() -> None:
    if is_here():
        say(f"{ARCHIVE} is there.")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    say(f"Fetching the source archive of {NAME} {VERSION} with pip ...")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        requirements = Path(folder) / "requirements.txt"
        # pip checks the hash before it looks into the archive.
        requirements.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--no-binary", NAME, "--dest", folder, "--requirement", str(requirements)]
        # A fixed command on paths of this checkout: nothing from outside reaches it.
        finished = subprocess.run(command, check=False)  # noqa: S603
        found = Path(folder) / ARCHIVE.name
        if finished.returncode or not found.is_file():
            sys.exit("pip did not deliver the archive; see above. Check the network and pip's settings.")
        found.replace(ARCHIVE)
    if not is_here():
        sys.exit(f"{ARCHIVE} is not the archive that was meant. Delete it and run this again.")


def is_here() -> bool:
    return ARCHIVE.is_file() and hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == SHA256


def members() -> dict[str, bytes]:
    """Every file of the archive's ``tests`` folder by its path below it, read without unpacking anything."""
    with tarfile.open(ARCHIVE) as archive:
        return {
            member.name.partition("/tests/")[2]: opened.read()
            for member in archive
            if member.isfile() and "/tests/" in member.name and (opened := archive.extractfile(member))
        }


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
