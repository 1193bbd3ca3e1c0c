"""The user's list of sources as a text: a new entry at its end, everything else untouched.

The file is the user's, with comments and an order of their own: it is only ever appended to, the whole is parsed before
it takes the place of the old one, and that happens in one step. What entries mean is left to ``ingest.sources``.
"""

import json
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from ingest.sources import parse_sources
from ingest.sources.base import Source
from trendrag.errors import ConfigurationError

Fields = Mapping[str, str | Sequence[str]]
"""An entry's fields as they stand in the file: texts, and lists of texts."""

_COPIED = """\
# Your list of sources, begun as a copy of the built-in one by `trendrag sources add`. It is read in its place: what you
# change here counts, and sources that later versions of TrendRAG bring are not added by themselves.

"""
_FILLER = {"feed", "feeds", "rss", "atom", "xml", "index", "www", "api", "html", "php"}


def entry_text(fields: Fields) -> str:
    """One ``[[source]]`` of TOML. Empty values are left out."""
    lines = [f"{name} = {_value(value)}" for name, value in fields.items() if value]
    return "\n".join(["[[source]]", *lines, ""])


def entry(fields: Fields) -> Source:
    """The source that an entry with these fields is.

    Raises:
        ConfigurationError: a field is missing, unknown, or has a value that can't be used.
    """
    return parse_sources(entry_text(fields), "The new source")[0]


def appended(text: str, fields: Fields, *, where: str, now: datetime) -> str:
    """``text`` with one more entry.

    Raises:
        ConfigurationError: the list before or after can't be used, or has this id or address already.
    """
    new = entry(fields)
    existing = _listed(text, where)
    for each in existing:
        if each.id == new.id:
            raise ConfigurationError(f"{where} has a source {new.id!r} already; choose another name with --id")
        if same := {_same(url) for url in each.urls(now)} & {_same(url) for url in new.urls(now)}:
            raise ConfigurationError(f"{where} reads {min(same)} already, as {each.id!r}; nothing was added")
    line_end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text else line_end if text.endswith("\n") else line_end * 2
    grown = text + gap + entry_text(fields).replace("\n", line_end)
    try:
        listed = parse_sources(grown, where)
    except ConfigurationError as error:
        # E.g. a list in one line (source = [{…}]), which TOML doesn't let grow at its end.
        raise ConfigurationError(
            f"{where} can't be added to from outside ({error}). Add this yourself:\n{entry_text(fields)}"
        ) from error
    if listed != (*existing, new):
        raise ConfigurationError(f"{where} would not read back as meant; add this yourself:\n{entry_text(fields)}")
    return grown


def suggested_id(fields: Fields, taken: Collection[str]) -> str:
    """A readable id for an entry without one: from a feed's address, or from the type and what sets it apart."""
    if url := str(fields.get("url", "")):
        parts = urlsplit(url)
        said = f"{parts.hostname or ''} {parts.path}"
    else:
        said = " ".join(str(value) for value in fields.values() if isinstance(value, str))
    words = [word for word in re.findall(r"[a-z0-9]+", said.lower()) if word not in _FILLER]
    base = "-".join(words)[:56].strip("-") or "source"
    names = (base, *(f"{base}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def ids_in(text: str, where: str) -> set[str]:
    """The ids that a list has; none for a list that is still empty."""
    return {each.id for each in _listed(text, where)}


def read_list(file: Path) -> str | None:
    """The text of the list, its line ends as they are; None where there is no such file."""
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The sources file {file} can't be read: {error}") from error


def built_in_copy() -> str:
    """What a user's own list begins with."""
    return _COPIED + (files("ingest") / "sources.toml").read_text("utf-8")


def write_list(file: Path, text: str) -> None:
    """Puts ``text`` in the file's place in one step: whatever happens, the old or the new list is there, whole."""
    target = file.resolve()  # a link stays one
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as out:
            out.write(text.encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        if target.exists():
            draft.chmod(target.stat().st_mode & 0o7777)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(f"The sources file {file} can't be written: {error.strerror or error}") from error


def _listed(text: str, where: str) -> tuple[Source, ...]:
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return ()
    return parse_sources(text, where)


def _same(url: str) -> str:
    """Equal for spellings of one address."""
    parts = urlsplit(url)
    host = (parts.netloc or "").lower()
    return host + parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")


def _value(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's as well; TOML wants one more character escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(map(_value, value))}]"
