"""What the long-running commands write to stderr: one line an event, as text or as JSON.

Ours are the loggers of this project's packages; only they follow the level that is set. Libraries are heard from
warnings on, whatever the level and whatever other variables ask of them: what they print at DEBUG changes with their
versions, and has been headers with keys, whole requests, and a photo's EXIF. Behind that stand two nets, for what
nobody thought of: values of secret settings are blotted out, and so is everything as long and dense as an encoded
image.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from trendrag.settings import LogSettings

OURS = ("trendrag", "indexes", "ingest", "serving", "evals")
"""The packages whose loggers follow the level that is set."""

_SAY_WHEN_THEY_START = "uvicorn"
MAX_CHARS = 2_000
"""Longest message; what is longer was not written by a person."""

_MAX_SAID = 300
_SHORTEST_SECRET = 6
_BLOTTED = "[secret]"
_ENCODED = re.compile(r"[A-Za-z0-9+/_=-]{200,}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_bound: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039  (replaced, never changed)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Lines written in here carry these, also those of tasks that are started in here.

    They take the place of all that was bound before: a server's requests on one connection may begin in the context of
    the request before them.
    """
    token = _bound.set(fields)
    try:
        yield
    finally:
        _bound.reset(token)


def set_up_logging(settings: LogSettings, secrets: BaseModel, stream: TextIO | None = None) -> None:
    """Everything that this process logs goes to ``stream`` (by default stderr), warnings of Python's too.

    Args:
        secrets: the settings whose secret values may never be read in the log.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    values = frozenset(_secrets(secrets))
    handler.setFormatter(_JsonLines(values) if settings.format == "json" else _TextLines(values))
    handler.addFilter(_may_be_read)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger(_SAY_WHEN_THEY_START).setLevel(max(level, logging.INFO))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def _may_be_read(record: logging.LogRecord) -> bool:
    """Asked of each record, since some libraries take their logger's level from a variable of their own."""
    package = record.name.partition(".")[0]
    if package in OURS or record.levelno >= logging.WARNING:
        return True
    return package == _SAY_WHEN_THEY_START and record.levelno >= logging.INFO


class _Lines(logging.Formatter):
    def __init__(self, secrets: frozenset[str]) -> None:
        super().__init__()
        self._secrets = sorted(secrets, key=len, reverse=True)

    def _safe(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _BLOTTED)
        return _ENCODED.sub(lambda found: f"[{len(found[0])} characters]", text)

    def message(self, record: logging.LogRecord) -> str:
        return self._safe(record.getMessage())[:MAX_CHARS]

    def failure(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        return self._safe(told(error)) if error else ""


class _TextLines(_Lines):
    """``2026-11-21T09:05:12.345Z INFO serving.http: message [request_id=…]``; a traceback takes lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        said = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], self.message(record))
        where = " ".join(f"{name}={value}" for name, value in _bound.get().items())
        line = f"{_moment(record)} {record.levelname} {record.name}: {said}" + (f" [{where}]" if where else "")
        failure = self.failure(record)
        return f"{line}\n{failure}" if failure else line


class _JsonLines(_Lines):
    """One object a line: time, level, logger, message, what is bound, the record's ``fields`` and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **_bound.get(),
            **getattr(record, "fields", {}),
        }
        if failure := self.failure(record):
            line["exception"] = failure
        return json.dumps(line, default=str)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(error: BaseException) -> str:
    """An exception, what caused it and where, like Python's own traceback. Messages are capped, and pydantic's, which
    quote the value that they refuse, say the field and the rule only."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    lines: list[str] = []
    for each in reversed(chain):
        lines += [*traceback.format_tb(each.__traceback__), f"{type(each).__qualname__}: {_said(each)}\n"]
        if isinstance(each, BaseExceptionGroup):
            lines += [told(inner) + "\n" for inner in each.exceptions]
    return "".join(lines).rstrip("\n")


def _said(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])} {fault['type']}" for fault in faults)
    return str(error)[:_MAX_SAID]


def _secrets(settings: BaseModel) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _secrets(value)
        elif isinstance(value, SecretStr):
            whole = value.get_secret_value()
            # Of an address with a password in it, libraries may quote either.
            password = urlsplit(whole).password if "://" in whole else None
            found = (whole, password, unquote(password) if password else None)
            yield from (each for each in found if each and len(each) >= _SHORTEST_SECRET)
