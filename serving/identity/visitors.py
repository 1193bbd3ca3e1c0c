"""Visitors of the page: a random id in a signed cookie, so that each finds what was written for them before.

The cookie says who, and opens nothing. Whoever loads the page gets one.
"""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from itsdangerous import BadSignature, Signer

from trendrag.errors import ConfigurationError
from trendrag.settings import Settings

log = logging.getLogger(__name__)

COOKIE = "trendrag_visitor"
SECURE_COOKIE = "__Host-trendrag_visitor"
"""Over HTTPS. Browsers take a cookie of such a name from this very host alone, and no neighbour can plant one."""
MAX_AGE_S = 180 * 24 * 3600
MIN_SECRET_CHARS = 32
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_MAX_CHARS = 200


class Visitors:
    """``secrets`` are what cookies are signed with: the first signs, all of them are taken."""

    def __init__(self, secrets: Sequence[str]) -> None:
        newest_last = list(reversed(secrets))
        self._signer = Signer(newest_last, "trendrag.visitor", digest_method=hashlib.sha256, key_derivation="hmac")

    def new(self) -> str:
        """An id that nobody has."""
        return secrets.token_urlsafe(16)

    def signed(self, visitor: str) -> str:
        """The cookie's value."""
        return self._signer.sign(visitor).decode("ascii")

    def read(self, cookie: str | None) -> str | None:
        """The visitor's id, None where the cookie is not one of ours."""
        if cookie is None or len(cookie) > _MAX_CHARS:
            return None
        try:
            visitor = self._signer.unsign(cookie).decode("ascii")
        except (BadSignature, ValueError):
            return None
        return visitor if _ID.fullmatch(visitor) else None


def visitor_secrets(settings: Settings) -> tuple[str, ...]:
    """Those of TRENDRAG_SERVER__SECRET, else of a file in the data directory, which is made where there is none: by one
    process, readable for its user alone. Where none can be made, one that ends with this process.

    Raises:
        ConfigurationError: a secret is too short to be one.
    """
    if settings.server.secret is not None:
        return _each(settings.server.secret.get_secret_value(), "TRENDRAG_SERVER__SECRET")
    file = settings.data_dir / "visitor-secrets"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", fallback_to_soft=False):
            if not file.exists():
                _make(file)
            text = file.read_text("ascii")
    except (OSError, NotImplementedError, UnicodeDecodeError) as error:
        log.warning("%s can't be used (%s): visitors are forgotten when this server ends", file, type(error).__name__)
        return (secrets.token_urlsafe(48),)
    return _each(text, str(file))


def _make(file: Path) -> None:
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
        out.write(f"{secrets.token_urlsafe(48)}\n")
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(file)


def _each(text: str, where: str) -> tuple[str, ...]:
    found = tuple(re.split(r"[\s,]+", text.strip()))
    if any(len(each) < MIN_SECRET_CHARS for each in found):
        raise ConfigurationError(
            f"{where} needs secrets of at least {MIN_SECRET_CHARS} characters, one or several with commas between, the "
            "newest first. Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    return found
