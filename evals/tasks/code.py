"""Which code an answer came of: an answer that was kept is of use only while that is the same."""

import hashlib
from importlib.resources import files
from pathlib import Path

_OF_CODE = {".py", ".txt", ".toml", ".json", ".tsv"}


def code_sha256() -> str:
    """Of the code that captions come of, and its texts and tables: whether a kept answer is still ours."""
    found = hashlib.sha256()
    for package in ("trendrag", "indexes", "ingest", "serving"):
        root = Path(str(files(package)))
        for path in sorted(path for path in root.rglob("*") if path.suffix in _OF_CODE and path.is_file()):
            found.update(f"{package}/{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()
