"""A body as it arrives, within a limit. What it is limited to, and what a damaged one means, is left to the fetcher."""

import zlib


class TooLarge(Exception):
    """A body passed its limit."""


class Body:
    """Collects a body, at most ``max_bytes`` of it both as sent and inflated.

    Raises from ``feed`` and ``finish``:
        TooLarge: the limit is passed. No more than the limit is ever held.
        zlib.error: the compressed data is damaged or cut off.
    """

    def __init__(self, max_bytes: int, *, compressed: bool) -> None:
        self._max_bytes = max_bytes
        self._sent = 0
        self._body = bytearray()
        self._inflater = _gzip() if compressed else None

    def feed(self, chunk: bytes) -> None:
        self._sent += len(chunk)
        if self._sent > self._max_bytes:
            raise TooLarge
        while chunk:
            if self._inflater is None:
                self._body += chunk
                chunk = b""
            else:
                if self._inflater.eof:  # gzip data may be several members, one after the other
                    self._inflater = _gzip()
                # One byte above the limit is enough to know that it is passed.
                self._body += self._inflater.decompress(chunk, self._max_bytes - len(self._body) + 1)
                chunk = self._inflater.unused_data
            if len(self._body) > self._max_bytes:
                raise TooLarge

    def finish(self) -> bytes:
        if self._inflater and self._sent and not self._inflater.eof:
            raise zlib.error("cut off")
        return bytes(self._body)


def _gzip() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
