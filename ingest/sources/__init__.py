"""The kinds of source there are, and the file that lists those in use.

A new kind is one module beside these and one more member of ``AnySource``.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ingest.sources.base import Source
from ingest.sources.bluesky import Bluesky
from ingest.sources.gdelt import Gdelt
from ingest.sources.google_trends import GoogleTrends
from ingest.sources.hackernews import HackerNews
from ingest.sources.mastodon import Mastodon
from ingest.sources.reddit import Reddit
from ingest.sources.rss import Rss
from ingest.sources.wikimedia import Wikimedia
from ingest.sources.youtube import YouTube
from trendrag.errors import ConfigurationError

_Any = Bluesky | Gdelt | GoogleTrends | HackerNews | Mastodon | Reddit | Rss | Wikimedia | YouTube
AnySource = Annotated[_Any, Field(discriminator="type")]
_ENTRY: TypeAdapter[_Any] = TypeAdapter(AnySource)


def load_sources(file: Path | None) -> tuple[Source, ...]:
    """The sources that ``file`` lists, or the built-in ones.

    Raises:
        ConfigurationError: the file can't be read, lists nothing, or has an entry that can't be used (it is named).
    """
    if file is None:
        return parse_sources((files("ingest") / "sources.toml").read_text("utf-8"), "the built-in sources")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The sources file {file} can't be read: {error}") from error
    return parse_sources(text, str(file))


def parse_sources(text: str, where: str) -> tuple[Source, ...]:
    """As ``load_sources``, from the file's text. ``where`` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}") from error
    if unknown := sorted(data.keys() - {"source"}):
        raise ConfigurationError(f"{where}: unknown part {unknown[0]!r}; entries begin with [[source]]")
    entries = data.get("source", [])
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{where} lists no source; each begins with a line [[source]]")
    sources: dict[str, Source] = {}
    for number, entry in enumerate(entries, 1):
        label = f"{where}, entry {number}"
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            label += f" ({entry['id']})"
        source = _source(entry, label)
        if source.id in sources:
            raise ConfigurationError(f"{label}: the id is already taken by another entry")
        sources[source.id] = source
    return tuple(sources.values())


def _source(entry: Any, label: str) -> Source:
    try:
        return _ENTRY.validate_python(entry)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False, include_context=False):
            # The first part of the place is the entry's type, by which pydantic chose the model.
            place = ".".join(str(part) for part in fault["loc"][1:])
            message = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"]
            faults.append(f"{place}: {message}" if place else f"type: {message}")
        raise ConfigurationError(f"{label}: {'; '.join(faults)}") from error
