"""A way to a server on loopback that can be cut, and mended."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes bytes on to ``target``. While cut, all connections are gone and new ones end at once."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._up = True
        self._passing = threading.Event()
        self._passing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def cut(self) -> None:
        with self._lock:
            self._up = False
            for each in self._open:
                _end(each)
            self._open.clear()

    def freeze(self) -> None:
        """Connections stay, and no byte gets through any more: as where a cable is pulled."""
        self._passing.clear()

    def mend(self) -> None:
        with self._lock:
            self._up = True
        self._passing.set()

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            self.cut()
            self._passing.set()
            _end(self._listening)
            accepting.join()

    def _accept(self) -> None:
        with suppress(OSError):  # at the end
            while True:
                client, _ = self._listening.accept()
                with self._lock:
                    if not self._up:
                        _end(client)
                        continue
                    server = socket.create_connection(self._target)
                    self._open |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                sink.sendall(data)
        _end(source)
        _end(sink)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
