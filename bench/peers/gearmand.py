"""gearmand as it ships, its jobs in memory, by a raw socket.

Owns the client: background jobs submitted, grabbed and completed, one by one or many ahead. Must not know who answers.
"""

import shutil
import socket
import struct
import subprocess

from bench.peers.figure import BODY

REQUEST = b"\0REQ"
CAN_DO, GRAB_JOB, WORK_COMPLETE, SUBMIT_JOB_BG = 1, 9, 13, 18
JOB_CREATED, NO_JOB, JOB_ASSIGN = 8, 10, 11
FUNCTION = b"bench"


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if shutil.which("gearmand") else "gearmand is not installed"


def version() -> str:
    """The server's."""
    return subprocess.run(["gearmand", "-V"], capture_output=True, text=True, check=False).stdout.strip()


def packet(kind: int, *parts: bytes) -> bytes:
    """A request."""
    data = b"\0".join(parts)
    return REQUEST + struct.pack(">II", kind, len(data)) + data


class Client:
    """One connection, which submits and works."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 16)
        self._socket.sendall(packet(CAN_DO, FUNCTION))

    def _answer(self) -> tuple[int, bytes]:
        kind, size = struct.unpack(">4xII", self._file.read(12))
        return kind, self._file.read(size)

    def submit(self, count: int, ahead: int = 1) -> None:
        """So many background jobs, ``ahead`` of them in one write."""
        one = packet(SUBMIT_JOB_BG, FUNCTION, b"", BODY)
        for begin in range(0, count, ahead):
            some = min(ahead, count - begin)
            self._socket.sendall(one * some)
            for _ in range(some):
                kind, _ = self._answer()
                assert kind == JOB_CREATED, kind

    def work(self, count: int) -> None:
        """Grab and complete up to so many, one by one; less if there are no more."""
        grab = packet(GRAB_JOB)
        self._socket.sendall(grab)
        for done in range(count):
            kind, data = self._answer()
            if kind == NO_JOB:
                return
            assert kind == JOB_ASSIGN, kind
            complete = packet(WORK_COMPLETE, data.split(b"\0", 1)[0], b"")
            self._socket.sendall(complete if done == count - 1 else complete + grab)

    def close(self) -> None:
        """Close."""
        self._file.close()
        self._socket.close()
