"""A plain client of beanstalkd's protocol for tests: bytes out, whole answers in.

Owns where an answer ends. Must not know who is asked: the original and our door answer it alike.
"""

import socket
from typing import Self

from support.nodes import PATIENCE


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send, without waiting for an answer."""
        self.socket.sendall(data)

    def answer(self) -> bytes:
        """The next answer, with the chunk that belongs to it; empty at the end."""
        line = self._file.readline()
        words = line.split()
        if words and words[0] in (b"RESERVED", b"FOUND", b"OK"):
            size = int(words[-1])
            chunk = self._file.read(size + 2)
            assert chunk[size:] == b"\r\n"
            line += chunk
        return line

    def ask(self, command: str, body: bytes | None = None) -> bytes:
        """The answer to one command. ``body``: of a put, whose command lacks its size."""
        line = command.encode() if body is None else b"%s %d\r\n%s" % (command.encode(), len(body), body)
        self.send(line + b"\r\n")
        return self.answer()

    def put(self, body: bytes, priority: int = 0, delay: int = 0, ttr: int = 60) -> int:
        """Put a job; its id."""
        answer = self.ask(f"put {priority} {delay} {ttr}", body)
        assert answer.startswith(b"INSERTED "), answer
        return int(answer.split()[1])

    def reserve(self, seconds: int | None = 20) -> tuple[int, bytes]:
        """Reserve a job; its id and body."""
        answer = self.ask("reserve" if seconds is None else f"reserve-with-timeout {seconds}")
        head, _, rest = answer.partition(b"\r\n")
        assert head.startswith(b"RESERVED "), answer
        return int(head.split()[1]), rest[:-2]

    def ended(self) -> bool:
        """Whether the other side closes the connection; waits for it."""
        return self._file.read(1) == b""

    def close(self) -> None:
        """End it; safe twice."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
