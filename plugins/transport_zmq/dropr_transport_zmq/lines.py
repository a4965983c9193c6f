"""The TCP connections of a listener, as ZeroMQ's monitor tells of them, and how one is cut off.

Owns which of them are strangers' (system/connections.py), and what a stranger may send. ZeroMQ has neither limits on
connections nor a way to end one, and keeps the parts of a message until its last one is there, however many. But it
tells descriptors: a copy of one, if it still is the connection that it was, is shut down from outside, and ZeroMQ
sees its caller leave. Runs in the engine's thread. Must not know messages.
"""

import logging
import os
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import attrs

from dropr_core.system.connections import Connections, Place
from dropr_core.system.penalties import Penalties
from dropr_core.system.tally import Tally
from dropr_transport_zmq.engine import Deadline, Engine
from dropr_transport_zmq.options import Options

MOST = 4 << 20
"""Bytes that a stranger may send; the first piece of its first request decides and has 64 KiB."""
REFUSALS = 20
"""Requests of a stranger that are judged and refused on one connection; the rest is read and thrown away."""
LOOK_EVERY = 0.25
"""Seconds between two looks at how much strangers have sent, while there are any."""
_BYTES_RECEIVED = struct.Struct("=128xQ")
"""Where the kernel's ``struct tcp_info`` has ``tcpi_bytes_received``."""


@attrs.define(eq=False)
class Line:
    """One connection."""

    fd: int
    peer: tuple[object, ...]
    """Its other end, by which it is known again; empty: it was gone at once."""
    place: Place
    refusals: int = 0


class Judged(Protocol):
    """What the answering side asks and says about the connection on which a request came."""

    def heard_out(self, fd: int) -> bool:
        """Whether its requests are still judged."""

    def admit(self, fd: int) -> bool:
        """One is admitted; False: there is no place for it."""

    def refused(self, fd: int) -> None:
        """One is refused."""


class Everybody:
    """Where the system says who may connect (a socket file, this process): no stranger is there."""

    def heard_out(self, _fd: int) -> bool:
        """Always."""
        return True

    def admit(self, _fd: int) -> bool:
        """Always."""
        return True

    def refused(self, _fd: int) -> None:
        """Nothing to count."""


class Lines:
    """All of one listener."""

    def __init__(self, engine: Engine, options: Options, news: Callable[[], None], catch_up: Callable[[], None],
                 log: logging.Logger) -> None:  # fmt: skip
        """``news`` reads the monitor; ``catch_up`` the messages, before strangers are judged by what they have sent."""
        self.connections = Connections(
            options.max_connections, options.max_strangers, options.max_strangers_per_address, options.admission
        )
        self.penalties, self._penalised = Penalties(), Tally()
        self._news, self._catch_up, self._log = news, catch_up, log
        self._lines: dict[int, Line] = {}
        self._strangers: dict[Place, Line] = {}
        self._cut_off: set[int] = set()
        """Descriptors of those that were cut off, until they are others'. What they said before is still to be read."""
        self._deadline = Deadline(engine, self._look)

    def accepted(self, fd: int) -> None:
        """ZeroMQ took a connection."""
        self.disconnected(fd)  # should its end not have been told
        self._cut_off.discard(fd)
        peer: tuple[object, ...] = ()
        line = _copy(fd)
        if line is not None:
            with line:
                peer = _peer(line)
        now, address = monotonic(), _host(peer)
        place = self.connections.enter(address, now, lambda: self._cut(fd))
        self._lines[fd] = self._strangers[place] = Line(fd, peer, place)
        if self.penalties.penalised(address, now) and not self.penalties.passes(address, now):
            self.connections.drop(place)  # before the handshake, which costs most
            return
        self._deadline.by(now + LOOK_EVERY)

    def disconnected(self, fd: int) -> None:
        """A connection ended."""
        line = self._lines.pop(fd, None)
        if line is not None:
            self._strangers.pop(line.place, None)
            if not line.place.admitted and not line.refusals:
                self._note(_host(line.peer))
            self.connections.leave(line.place)

    def heard_out(self, fd: int) -> bool:
        """Whether a request that came on it is judged: a peer's always, of a stranger's the first ones."""
        line = self._line(fd)
        if line is None:
            return fd not in self._cut_off
        if line.place.admitted or line.refusals < REFUSALS:
            return True
        if self.penalties.penalised(_host(line.peer), monotonic()):
            self.connections.drop(line.place)  # even to throw away what comes would cost more
        return False

    def admit(self, fd: int) -> bool:
        """A request that came on it is admitted; False if there is no place for one more such connection."""
        line = self._line(fd)
        if line is None:
            return True  # it has left already, and nothing that is told to it arrives
        good = self.connections.admit(line.place)
        if good:
            self._strangers.pop(line.place, None)
        return good

    def refused(self, fd: int) -> None:
        """A request that came on it is refused."""
        line = self._line(fd)
        if line is not None:
            line.refusals += 1
            if not line.place.admitted:
                self._note(_host(line.peer))

    def _note(self, address: str) -> None:
        if self.penalties.refused(address, monotonic()) and self._penalised.add():
            self._log.warning("many callers at %s are refused: for a while most new connections from there are cut off "
                              "(%d times so far); stop whoever calls there",
                              address, self._penalised.count)  # fmt: skip

    def _line(self, fd: int) -> Line | None:
        if fd >= 0 and fd not in self._lines:
            self._news()  # what came on it overtook the word that it is there
        return self._lines.get(fd)

    def close(self) -> None:
        """Forget all: ZeroMQ ends them with the listener."""
        self._lines.clear()
        self._strangers.clear()
        self._cut_off.clear()

    def _look(self, now: float) -> float | None:
        self._catch_up()
        self.connections.look(now)
        for line in list(self._strangers.values()):
            if _received(line) > MOST:
                self.connections.drop(line.place)
        return now + LOOK_EVERY if self._strangers else None

    def _cut(self, fd: int) -> None:
        line = self._lines.get(fd)
        self.disconnected(fd)
        self._cut_off.add(fd)
        copy = None if line is None else _copy(fd)
        if line is None or copy is None:
            return
        with copy:
            if line.peer and _peer(copy) == line.peer:
                try:
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # nothing lingers
                    copy.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself


def _copy(fd: int) -> socket.socket | None:
    """A descriptor of our own for what ``fd`` is now; None if that is no socket any more."""
    try:
        copy = os.dup(fd)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _peer(line: socket.socket) -> tuple[object, ...]:
    try:
        peer = line.getpeername()
    except OSError:
        return ()
    return peer if isinstance(peer, tuple) else ()


def _host(peer: tuple[object, ...]) -> str:
    return str(peer[0]) if peer else ""


def _received(line: Line) -> int:
    """Bytes that came on it; 0 where the system does not tell."""
    copy = _copy(line.fd)
    if copy is None:
        return 0
    with copy:
        if _peer(copy) != line.peer:
            return 0
        try:
            known = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
        except (OSError, AttributeError):
            return 0
        return int(_BYTES_RECEIVED.unpack(known)[0]) if len(known) == _BYTES_RECEIVED.size else 0
