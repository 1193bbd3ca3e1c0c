"""Numbers that stand for texts in arrays."""

import hashlib


def hash64(text: str) -> int:
    """A signed number of 64 bits, the same for the same text always and everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)
