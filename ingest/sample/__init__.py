"""A day of trends that ships with TrendRAG, for trying it without a network. Invented: publishers, headlines, numbers.

The payloads are in the sources' real formats and go through the very same parsers as live ones; only the network is
missing. ``sources.toml`` lists the sources, ``files.toml`` which file stands for which address.
"""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files

from ingest.fetcher import Fetched, HttpStatus
from ingest.sources import parse_sources
from ingest.sources.base import Source

RECORDED_AT = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
"""When the sample plays. Ages and scores of its trends are relative to this."""


def sample_sources() -> tuple[Source, ...]:
    return parse_sources((files("ingest.sample") / "sources.toml").read_text("utf-8"), "the sample's sources")


class SampleFetcher:
    """``ingest.fetcher.Fetcher`` over the bundled files: 200 with the file for an address it knows, else 404."""

    def __init__(self) -> None:
        self._files: dict[str, str] = tomllib.loads((files("ingest.sample") / "files.toml").read_text("utf-8"))

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:  # noqa: ARG002  (the port's)
        name = self._files.get(url)
        if name is None:
            raise HttpStatus(f"{url} is not part of the sample", 404, {})
        return Fetched((files("ingest.sample") / name).read_bytes(), {}, url, RECORDED_AT)
