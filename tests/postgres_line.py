"""A connection to a server that a test can cut.

Owns `Line`, a small proxy from a TCP port to a unix socket. Must not know what it carries.
"""

import contextlib
import socket
import threading
from typing import Self


class Line:
    """A way to a server over TCP that a test can cut. ``cut`` ends all connections and refuses new ones; ``freeze``
    lets nothing pass and says nothing, as a pulled plug does; ``mend`` ends both.
    """

    def __init__(self, target: str, host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self.host, self.port = self._listener.getsockname()
        self._mutex = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._cut = self._closed = False
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """The address of a database by this way."""
        more = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://dropr@{self.host}:{self.port}/{database}?{more}"

    def cut(self) -> None:
        """End everything that runs over it; nothing gets through any more."""
        self._cut = True
        self._drop()

    def freeze(self) -> None:
        """Let nothing pass, in either direction, and end nothing."""
        self._flowing.clear()

    def mend(self) -> None:
        """As it was."""
        self._cut = False
        self._flowing.set()

    def close(self) -> None:
        """The end of it; safe twice."""
        self._closed = self._cut = True
        self._flowing.set()
        self._listener.close()
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        with self._mutex:
            pairs, self._pairs = self._pairs, []
        for one in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                if self._cut:
                    raise ConnectionRefusedError
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            with self._mutex:
                self._pairs.append((client, server))
            left = [2]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(*ends, left), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        self._flowing.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._mutex:
            left[0] -= 1
            if left[0]:
                return
            self._pairs = [pair for pair in self._pairs if source not in pair]
        source.close()
        sink.close()
