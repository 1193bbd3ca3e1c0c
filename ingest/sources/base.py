"""What every trend source is: an entry of the sources file that knows its addresses and its format."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, StringConstraints

from ingest.observation import Origin, Parsed
from ingest.policy import LONGEST, SHORTEST
from trendrag.errors import ConfigurationError, ParseError
from trendrag.settings import IngestSettings
from trendrag.types import Frozen

SourceId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
_LANGUAGE = r"^[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8})*$"
Language = Annotated[str, StringConstraints(pattern=_LANGUAGE, max_length=35)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$", max_length=255)]
_INTERVAL = re.compile(r"([0-9]{1,4})\s*([mh])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1)}


def interval(value: object) -> object:
    """ "15m" or "2h" as a duration. One that is shorter or longer than any wait would be a promise that nobody keeps.

    Raises:
        ValueError: it is written otherwise, or is out of range.
    """
    if isinstance(value, timedelta):
        return value
    found = _INTERVAL.fullmatch(value.strip()) if isinstance(value, str) else None
    given = int(found[1]) * _UNITS[found[2]] if found else timedelta()
    if not SHORTEST <= given <= LONGEST:
        raise ValueError('must be from "5m" to "24h", in minutes or hours')
    return given


def interval_text(given: timedelta) -> str:
    """As the sources file has it: the inverse of ``interval``."""
    hours, minutes = divmod(int(given.total_seconds()) // 60, 60)
    return f"{hours * 60 + minutes}m" if minutes else f"{hours}h"


Interval = Annotated[timedelta, BeforeValidator(interval), PlainSerializer(interval_text)]


class Source(Protocol):
    """One entry of the sources file."""

    @property
    def id(self) -> str: ...

    @property
    def family(self) -> str:
        """The publisher behind it. Agreement between families counts, agreement within one does not."""

    @property
    def every(self) -> timedelta:
        """How often it is worth a look, where the server does not ask for a longer pause."""

    @property
    def live(self) -> bool:
        """True for a list of what is going on now: the same list again is a new sighting of what is on it. False for
        dated items, of which the same list again says nothing. In doubt True, which only costs a second reading."""

    @property
    def fingerprint(self) -> str:
        """Changes with the entry, and with nothing else."""

    def urls(self, now: datetime) -> tuple[str, ...]:
        """Where to look, the best first. The next one is tried only where the one before answers 404."""

    def headers(self, settings: IngestSettings) -> Mapping[str, str]:
        """What to send with each request: a key, where the source needs one. Addresses never hold a key, because they
        are shown in errors and reports.

        Raises:
            ConfigurationError: the source needs a key and ``settings`` have none; says which variable to set.
        """

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        """The observations in ``payload``. A legitimate empty list gives none.

        Raises:
            ParseError: the payload isn't in the source's format. Never another exception, whatever the bytes are.
        """


class SourceEntry(Frozen):
    """Fields that every entry of the sources file has."""

    id: SourceId
    language: Language = "und"
    categories: tuple[str, ...] = Field(default=(), max_length=10)
    every: Interval = timedelta(minutes=15)

    live: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        # Without defaults: a field that a later version adds is no change of the entry.
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

    def headers(self, settings: IngestSettings) -> Mapping[str, str]:  # noqa: ARG002  (most need no key)
        return {}

    def _origin(self, observed_at: datetime, **fields: Any) -> Origin:
        return Origin(
            source=self.id,
            observed_at=observed_at,
            **({"language": self.language} | fields),
            categories=self.categories,
        )


def plain_key(secret: SecretStr, variable: str) -> str:
    """The text of a key that ``variable`` sets.

    Raises:
        ConfigurationError: no key has such characters. Checked here, since an HTTP client would quote what it refuses.
    """
    key = secret.get_secret_value().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{variable} is empty or has characters that no key has; copy the key again")
    return key


def read_json(payload: bytes, what: str) -> Any:
    """The JSON in ``payload``.

    Raises:
        ParseError: it isn't JSON, says whether it looks like a page instead.
    """
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ParseError(f"{what}: {instead_of_data(payload)}") from error


def instead_of_data(payload: bytes) -> str:
    """What ``payload`` seems to be, where it is not the JSON that was asked for."""
    head = payload[:200].lstrip().lower()
    if not head:
        return "the answer is empty"
    if looks_like_html(payload):
        return "the answer is a web page (a block or consent page?), not data"
    return "the answer is damaged or cut off" if head[:1] in (b"{", b"[") else "the answer is in another format"


def looks_like_html(payload: bytes) -> bool:
    head = payload[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def iso_date(value: object) -> datetime | None:
    """An ISO 8601 date with its offset; None where it is none, or says no offset."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def epoch(value: object) -> datetime | None:
    """Seconds since 1970 as a datetime; None where it is no number or no date."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def language_tag(value: object) -> str | None:
    """``value`` where it has the form of a BCP 47 tag of at most 35 characters, else None. "zxx" (no words) is none."""
    if not isinstance(value, str) or len(value) > 35 or value.lower() == "zxx":
        return None
    return value if re.match(_LANGUAGE, value) and not value.endswith("\n") else None
