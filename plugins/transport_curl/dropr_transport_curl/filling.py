"""Reading the body of a long request straight into one buffer.

Owns the protocol that takes over a connection while such a body comes in, and the buffers. Must not know what
is read, nor when reading is allowed (asgi.py). A server that is not ours offers nothing of this, and asgi.py
then reads as ASGI says: each byte is copied several times on that way, and a process is woken for each part.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

EXTENSION = "dropr.fill"
"""Name of the ASGI extension: ``await extension(view, moved)`` fills the view with what follows of the body."""

KEPT = 5
"""Buffers kept for the next requests."""


class Gone(Exception):
    """The caller hung up: nobody is left to answer."""


class Host(Protocol):
    """The HTTP protocol whose connection is taken over for a while."""

    transport: asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""

    def pause_writing(self) -> None:
        """The caller does not read."""

    def resume_writing(self) -> None:
        """It does again."""


class Filler(asyncio.BufferedProtocol):
    """Fills one view from one connection, and gives the connection back."""

    def __init__(self, host: Host, view: memoryview, moved: Callable[[int], None]) -> None:
        """``moved``: called with the bytes that came."""
        self._host, self._view, self._moved = host, view, moved
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the next bytes belong."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self._view = self._view[nbytes:]
        self._moved(nbytes)
        if not self._view:
            self._host.transport.set_protocol(self._host)  # type: ignore[arg-type]
            if not self.done.done():
                self.done.set_result(None)

    def eof_received(self) -> None:
        """The caller will send no more: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended in the middle."""
        self._view = memoryview(b"")
        if not self.done.done():
            self.done.set_exception(Gone())
        self._host.connection_lost(exc)

    def pause_writing(self) -> None:
        """Passed on."""
        self._host.pause_writing()

    def resume_writing(self) -> None:
        """Passed on."""
        self._host.resume_writing()

    def give_up(self) -> None:
        """Whoever waits has gone: give the connection back as it is, and let go of the buffer."""
        self._view = memoryview(b"")
        if self._host.transport.get_protocol() is self:
            self._host.transport.set_protocol(self._host)  # type: ignore[arg-type]


class Buffers:
    """Memory for long requests, used again: fresh pages for each would cost as much as the reading."""

    def __init__(self, idle: float = 10.0) -> None:
        """``idle``: seconds without a request after which they are given back."""
        self._idle = idle
        self._kept: list[bytearray] = []
        self._timer: Any = None

    def take(self, size: int) -> memoryview:
        """A view of so many bytes. Nobody else has one of the same bytes. In the event loop's thread."""
        self._rearm()
        for place, buffer in enumerate(self._kept):
            if size <= len(buffer) <= 2 * size and _free(buffer):
                self._kept.append(self._kept.pop(place))
                return memoryview(buffer)[:size]
        buffer = bytearray(size)
        self._kept.append(buffer)
        del self._kept[:-KEPT]
        return memoryview(buffer)

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle, self._kept.clear)


def _free(buffer: bytearray) -> bool:
    """Whether nobody looks at it any more, wherever the view went: Python refuses to resize it else."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
