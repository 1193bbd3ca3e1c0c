"""Server-sent events as model servers send them: bytes in, cut anywhere, the data of whole events out.

Knows the framing and nothing of what is inside. Lines end with LF or CRLF (a bare CR, which the standard allows too, is
sent by no model server). Field names other than ``data`` and comments mean nothing here and are skipped.
"""

MAX_EVENT_BYTES = 2**18
"""Longest event kept in memory while its end has not come; a token with log-probabilities has a few hundred bytes."""


class EventTooLong(ValueError):
    """An event is over MAX_EVENT_BYTES."""


class EventParser:
    """Fed with pieces of a stream in order. How the bytes were cut makes no difference to what comes out."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that is complete now, several data lines of one joined by LF.

        Raises:
            EventTooLong: the one that is not complete.
        """
        if self._rest:
            data = self._rest + data
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # the LF that belongs to it may come with the next piece
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n")
        *blocks, rest = data.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLong
        events = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:  # as all of them look, but for comments
                events.append(block[6:])
            elif (found := _data(block)) is not None:
                events.append(found)
        return events


def _data(block: bytes) -> bytes | None:
    """None where the block has no data line: a comment, or blank lines."""
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
