"""A plain client of a stream gateway for tests."""

import socket
from typing import Self
from urllib.parse import urlsplit

from support.nodes import PATIENCE


class Talk:
    """One connection; lines out, lines in."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(parts.path)
        else:
            self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def say(self, *requests: str) -> None:
        """Send requests, without waiting for answers."""
        self.socket.sendall("".join(f"{request}\n" for request in requests).encode())

    def hear(self) -> str:
        """The next line; empty at the end."""
        while b"\n" not in self._data:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return ""
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def ask(self, request: str) -> str:
        """The answer to a request."""
        self.say(request)
        return self.hear()

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
