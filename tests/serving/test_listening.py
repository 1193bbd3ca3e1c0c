"""How `trendrag serve` listens."""

import socket

from serving.commands import _listen


def test_tokens_are_sent_at_once() -> None:
    """Connections do not hold a small piece back until the one before it is acknowledged (Nagle's algorithm)."""
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
