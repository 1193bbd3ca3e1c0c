"""What an API key is: its form, what it allows, what is kept of it. Pure.

    tr_4g7m2kqp9xwz_<43 letters and digits, the secret><6, the check>

The prefix and the check are for machines that look for leaked keys in text (``FORM`` is their pattern, the check tells
a key from what only looks like one without asking anybody), and for people: a key that was cut off while copying is
known as such before a database is asked. The id is no secret. It finds the row and names the key in lists.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Scope = Literal["captions", "history", "metrics"]

SCOPES: Mapping[Scope, str] = {
    "captions": "write captions: at once, as a stream, as a job, or as an OpenAI model",
    "history": "read, rate, export and remove what was written with this key",
    "metrics": "read /metrics, and why /readyz says no",
}
"""Few, each for a holder of its own: an application that only writes, one that also shows what it wrote, and a monitor
that must not write. A job is a caption for later, so that it has no scope of its own. Trends are for every key."""

PREFIX = "tr_"
FORM = re.compile(r"tr_([0-9a-hjkmnp-tv-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u: ids are read out and typed
_LETTERS = string.digits + string.ascii_letters
_SECRET_LETTERS = 43  # 256 bits


@dataclass(frozen=True, slots=True)
class Claim:
    """A key as it was sent: well-formed, and not yet known to be good."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. ``digest`` is the SHA-256 of its secret in hexadecimal: the secret is random, 256 bits, so
    that a slow hash would add nothing. ``captions_per_day`` is None where there is no limit."""

    id: str
    name: str
    digest: str = field(repr=False)
    scopes: frozenset[str]
    captions_per_day: int | None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def fits(self, claim: Claim) -> bool:
        """Whether the secret is this key's. How long that takes does not depend on where they differ."""
        return hmac.compare_digest(_digest(claim.secret), self.digest)

    def fault(self, now: datetime) -> Literal["revoked", "expired"] | None:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else None


def new_key(
    name: str,
    scopes: frozenset[Scope],
    now: datetime,
    *,
    expires_at: datetime | None = None,
    captions_per_day: int | None = None,
) -> tuple[str, ApiKey]:
    """The key itself, which nobody can show again, and what is kept of it."""
    key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
    secret = "".join(secrets.choice(_LETTERS) for _ in range(_SECRET_LETTERS))
    kept = ApiKey(key_id, name, _digest(secret), frozenset(scopes), captions_per_day, now, expires_at)
    return f"{PREFIX}{key_id}_{secret}{_check(key_id, secret)}", kept


def read_key(text: str) -> Claim | None:
    """None where this is no key of ours, or was damaged."""
    found = FORM.fullmatch(text)
    if found is None or _check(found[1], found[2]) != found[3]:
        return None
    return Claim(found[1], found[2])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _check(key_id: str, secret: str) -> str:
    """CRC-32 as six digits to the base 62. It guards against accidents, and against nobody."""
    number = zlib.crc32(f"{PREFIX}{key_id}_{secret}".encode("ascii"))
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, len(_LETTERS))
        digits = _LETTERS[digit] + digits
    return digits
