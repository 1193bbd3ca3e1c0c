"""Fetches two source archives whose tests hold what the world sends: feedparser's feeds, with every fault there is, and
the answers of Reddit that praw recorded. Into ``var/corpus``.

They are read where they lie and never become part of this repository. Needs only the standard library and pip:

    python tests/corpus/fetch.py

Running it again costs nothing while the archives are there.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "corpus"


@dataclass(frozen=True)
class Archive:
    """``folder`` is the part of it that is read, and ends with a slash."""

    name: str
    version: str
    sha256: str
    folder: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}-{self.version}.tar.gz"

    def is_here(self) -> bool:
        return self.file.is_file() and hashlib.sha256(self.file.read_bytes()).hexdigest() == self.sha256

    def members(self) -> dict[str, bytes]:
        """Every file of the folder by its path below it, read without unpacking anything."""
        with tarfile.open(self.file) as archive:
            return {
                member.name.partition(self.folder)[2]: opened.read()
                for member in archive
                if member.isfile() and self.folder in member.name and (opened := archive.extractfile(member))
            }


FEEDPARSER = Archive(
    "feedparser", "6.0.14", "088679b0c4b543ee211a820dd544698c76a402122eae7473c04a43425f283d06", "/tests/"
)
PRAW = Archive(
    "praw",
    "8.0.3",
    "9b1428eb27e75420010713a5d6e86e7444540164efbb89eba6e693df0a10a512",
    "/tests/integration/cassettes/",
)


def main() -> None:
    for archive in (FEEDPARSER, PRAW):
        if archive.is_here():
            say(f"{archive.file} is there.")
        else:
            fetch(archive)


def fetch(archive: Archive) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    say(f"Fetching the source archive of {archive.name} {archive.version} with pip ...")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        requirements = Path(folder) / "requirements.txt"
        # pip checks the hash before it looks into the archive.
        requirements.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--no-binary", archive.name, "--dest", folder]
        command += ["--requirement", str(requirements)]
        # A fixed command on paths of this checkout: nothing from outside reaches it.
        finished = subprocess.run(command, check=False)  # noqa: S603
        found = Path(folder) / archive.file.name
        if finished.returncode or not found.is_file():
            sys.exit("pip did not deliver the archive; see above. Check the network and pip's settings.")
        found.replace(archive.file)
    if not archive.is_here():
        sys.exit(f"{archive.file} is not the archive that was meant. Delete it and run this again.")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
