"""Remembers vectors by text, so that a refresh embeds only what is new.

A cache and nothing more: it may be deleted at any time, and where it can't be read or written the texts are embedded as
if it were not there.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from indexes.embedder import Embedder, Vectors

logger = logging.getLogger(__name__)

KEEP_DAYS = 30
"""A vector that nobody asked for in so long is forgotten."""

_BATCH = 500  # SQLite limits the variables of one statement
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS vectors (
        embedder TEXT NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL, used TEXT NOT NULL,
        PRIMARY KEY (embedder, text)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used)",  # what is forgotten is found without reading them all
)


class CachedEmbedder:
    """An ``Embedder`` in front of another one, with its vectors in an SQLite file, by SHA-256 of the text."""

    def __init__(self, embedder: Embedder, file: Path) -> None:
        self._embedder = embedder
        self._file = file
        self.name = embedder.name
        self.sha256 = embedder.sha256
        self.dim = embedder.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known = self._read(list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            fresh = dict(zip(missing, self._embedder.embed(list(missing.values())), strict=True))
            self._write(fresh)
            known |= fresh
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, self.dim), dtype=np.float32)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file)) as database, database:
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("DELETE FROM vectors WHERE used < date('now', ?)", [f"-{KEEP_DAYS} days"])
                for start in range(0, len(keys), _BATCH):
                    batch = keys[start : start + _BATCH]
                    where = f"embedder = ? AND text IN ({','.join('?' * len(batch))})"  # question marks only
                    values = [self.sha256, *batch]
                    again = f"{where} AND used <> date('now')"
                    database.execute(f"UPDATE vectors SET used = date('now') WHERE {again}", values)  # noqa: S608
                    for key, data in database.execute(f"SELECT text, vector FROM vectors WHERE {where}", values):  # noqa: S608
                        if len(data) == 4 * self.dim:
                            found[key] = np.frombuffer(data, dtype="<f4").astype(np.float32)
        except (sqlite3.Error, OSError) as error:
            logger.warning("the embedding cache %s can't be read: %s", self._file, error)
            return {}
        return found

    def _write(self, vectors: Mapping[bytes, Vectors]) -> None:
        rows = [(self.sha256, key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        try:
            with closing(sqlite3.connect(self._file)) as database, database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, date('now'))", rows)
        except (sqlite3.Error, OSError) as error:
            logger.warning("the embedding cache %s can't be written: %s", self._file, error)
