"""How a key is sent: ``X-API-Key: KEY`` or ``Authorization: Bearer KEY``. Pure, over headers as bytes from anybody."""

from collections.abc import Sequence
from typing import Literal

from serving.identity.keys import PREFIX, Claim, read_key

MAX_CHARS = 200
"""Longest value that is looked at; a key of ours has 65."""


def claimed(headers: Sequence[tuple[bytes, bytes]], *, required: bool) -> Claim | Literal["malformed"] | None:
    """The key that comes with a request, ``malformed`` where what comes is none, and None where nothing comes.

    Names of headers are in lower case (ASGI). Two different keys are malformed: proxies and we might each believe
    another one. Authorization of another scheme is somebody else's. Where no key is required, only what begins like
    one of ours is looked at: OpenAI's clients can't go without a key, and send any word.
    """
    sent = {value.strip() for name, value in headers if name == b"x-api-key"}
    sent |= {_bearer(value) for name, value in headers if name == b"authorization"}
    sent.discard(b"")
    ours = {value for value in sent if value.startswith(PREFIX.encode("ascii"))}
    if not ours:
        return "malformed" if sent and required else None
    value = ours.pop()
    if ours or len(value) > MAX_CHARS or not value.isascii():
        return "malformed"
    return read_key(value.decode("ascii")) or "malformed"


def _bearer(value: bytes) -> bytes:
    """What follows the scheme; empty for another scheme."""
    scheme, _, rest = value.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else b""
