"""The little of NATS's client protocol that is needed to push JetStream to its limit from Python.

Owns publishing with many unacknowledged and taking from a push consumer, on a blocking socket. nats-py reaches a tenth
of it, so that the client would be measured and not the server.
"""

import socket
import time


class Nats:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        self._line_until(b"PONG")

    def publish_all(self, subject: str, body: bytes, count: int, in_flight: int) -> None:
        """Publish, at most so many without the stream's acknowledgement; return when all are acknowledged."""
        inbox = f"_INBOX.{time.monotonic_ns()}"
        self._socket.sendall(f"SUB {inbox} 1\r\n".encode())
        one = f"PUB {subject} {inbox} {len(body)}\r\n".encode() + body + b"\r\n"
        sent = acknowledged = 0
        while acknowledged < count:
            more = min(in_flight - (sent - acknowledged), count - sent)
            if more:
                self._socket.sendall(one * more)
                sent += more
            for _, answer in self._messages():
                if b'"error"' in answer:
                    raise RuntimeError(f"the stream refused a message: {answer!r}")
                acknowledged += 1
        self._socket.sendall(b"UNSUB 1\r\n")

    def subscribe(self, subject: str) -> None:
        """Begin to receive."""
        self._socket.sendall(f"SUB {subject} 2\r\nPING\r\n".encode())
        self._line_until(b"PONG")

    def take(self, count: int) -> None:
        """Receive so many; each 500th acknowledges all before it (AckPolicy.ALL)."""
        taken = 0
        while taken < count:
            for reply, _ in self._messages():
                taken += 1
                if taken % 500 == 0 or taken == count:
                    self._socket.sendall(b"PUB " + reply + b" 4\r\n+ACK\r\n")

    def close(self) -> None:
        """What was sent before has reached the server when this returns."""
        self._socket.sendall(b"PING\r\n")
        self._line_until(b"PONG")
        self._socket.close()

    def _read(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data

    def _line_until(self, word: bytes) -> None:
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                self._read()
                continue
            self._buffer = rest
            if line.startswith(b"-ERR"):
                raise RuntimeError(line.decode())
            if line.startswith(word):
                return

    def _messages(self) -> list[tuple[bytes, bytes]]:
        """The messages of one read: (where to answer, body)."""
        self._read()
        buffer, at, found = self._buffer, 0, []
        while (end := buffer.find(b"\r\n", at)) >= 0:
            words = buffer[at:end].split(b" ")
            if words[0] == b"MSG":
                size = int(words[-1])
                if len(buffer) < end + 4 + size:
                    break
                found.append((words[3] if len(words) == 5 else b"", buffer[end + 2 : end + 2 + size]))
                at = end + 4 + size
            elif words[0] == b"-ERR":
                raise RuntimeError(buffer[at:end].decode())
            else:
                if words[0] == b"PING":
                    self._socket.sendall(b"PONG\r\n")
                at = end + 2
        self._buffer = buffer[at:]
        return found
