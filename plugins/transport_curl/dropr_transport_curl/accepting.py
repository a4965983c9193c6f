"""The event loop of a listener: accepts connections, gives each a protocol, and ends in good order.

Owns accepting, TLS handshakes, the time until a caller's first request is admitted, what is done with callers of a
penalised address, and the end. Takes connections itself instead of through uvicorn's server, so that a connection is
counted, and can be cut off, from its first moment on, also before and in its TLS handshake. Must not know HTTP or what
is answered.
"""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from uvicorn.server import ServerState

from dropr_core.contracts.transport import Answerer
from dropr_core.system.connections import Connections, Place
from dropr_core.system.penalties import Penalties
from dropr_core.system.tally import Tally
from dropr_transport_curl.screening import Screening

LAST_WORDS = 1.0
"""Seconds for answers that are being written when the drain time is over."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds until a refused stranger is told so, the first time on a connection and at most."""
_EVERY = 64
"""Connections accepted in one turn, so that a flood of them does not starve those that are there."""
REST = 1.0
"""Seconds without accepting after the system had no descriptor or memory for one more connection."""
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class App(Protocol):
    """What is served."""

    def give_up(self) -> None:
        """Stop waiting for answers. In the event loop's thread."""


class Visit:
    """One connection, from the moment that it is accepted."""

    def __init__(self, connections: Connections, line: socket.socket, address: str, now: float,
                 refused: Callable[[str], None]) -> None:  # fmt: skip
        """``refused`` is told the address with each refusal, and when it ends without a request."""
        self._connections, self.line, self._address, self._told = connections, line, address, refused
        self.greeting: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        """Once it has one."""
        self._refusals, self._over = 0, False
        self._place: Place = connections.enter(address, now, self.cut)

    @property
    def admitted(self) -> bool:
        """Whether a request that came on it was admitted."""
        return self._place.admitted

    def admit(self) -> bool:
        """A request that came on it is admitted; False if there is no place for one more such connection."""
        return self._connections.admit(self._place)

    def refused(self) -> float:
        """A request that came on it is refused: seconds until it shall be told so, more each time; 0 for a peer."""
        if self._place.admitted:
            return 0.0
        self._refusals += 1
        self._told(self._address)
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._refusals - 1, 10)))

    def cut(self) -> None:
        """End it, whatever it is doing."""
        if self.transport is not None:
            self.transport.abort()
        elif self.greeting is not None:
            self.greeting.cancel()

    def left(self) -> None:
        """It has ended; safe twice."""
        if not self._over and not self._place.admitted and not self._refusals:
            self._told(self._address)
        self._over = True
        self._connections.leave(self._place)


class Accepting:
    """Runs in a thread of its own (`run`); `stop` may be called from any."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, app: App, answerer: Answerer,
                 state: ServerState, connections: Connections,
                 protocol: Callable[[asyncio.AbstractEventLoop, Visit], asyncio.Protocol],
                 place: str, log: logging.Logger) -> None:  # fmt: skip
        """``sock``: bound, listening and not blocking; closed at the end. ``place``: its url, for the log."""
        self._socket, self._context, self._app, self._state = sock, context, app, state
        self._answerer, self._connections, self._protocol = answerer, connections, protocol
        self._place, self._log = place, log
        self.penalties, self._penalised = Penalties(), Tally()
        self._screening: Screening | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._drain = 0.0
        self._scarce = False
        self._greeting: dict[asyncio.Task[None], Visit] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()

    async def run(self) -> None:
        """Serve until `stop`; idle costs nothing."""
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._context is None:
            self._screening = Screening(self._answerer, self._connections, self.loop, self._refused, self._passes,
                                        self._serve)  # fmt: skip
        self.loop.add_reader(self._socket, self._accept)
        self.ready.set()
        await self._stopping.wait()
        await self._end()

    def stop(self, drain: float) -> None:
        """End, with up to ``drain`` seconds for what is under way; a second call may shorten it."""

        def begin() -> None:
            self._drain = drain
            self._stopping.set()

        if self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(begin)
            except RuntimeError:  # it has ended already
                pass

    # ── beginning ────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> None:
        assert self.loop is not None
        for _ in range(_EVERY):
            try:
                line, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    self._rest(error)
                    return
                continue  # the caller left before it was its turn
            line.setblocking(False)
            self._scarce = False
            if not self.penalties.penalised(str(address[0]), self.loop.time()):
                self._serve(line, str(address[0]))
            elif self._screening is not None:
                self._screening.enter(line, address)
            elif self._passes(str(address[0])):
                self._serve(line, str(address[0]))
            else:  # a handshake costs many times what is saved here, and nothing can be judged before it
                line.close()
            if self._looking is None:
                self._look()

    def _serve(self, line: socket.socket, address: str) -> None:
        assert self.loop is not None
        visit = Visit(self._connections, line, address, self.loop.time(), self._refused)
        task = visit.greeting = self.loop.create_task(self._greet(visit))
        self._greeting[task] = visit
        task.add_done_callback(self._greeted)

    def _refused(self, address: str) -> None:
        if self.penalties.refused(address, monotonic()) and self._penalised.add():
            self._log.warning("%s: many callers at %s are refused: for a while new ones from there get no answer, "
                              "unless they have a key (%d times so far); stop whoever calls there",
                              self._place, address, self._penalised.count)  # fmt: skip

    def _passes(self, address: str) -> bool:
        return self.penalties.passes(address, monotonic())

    async def _greet(self, visit: Visit) -> None:
        """Give a connection its protocol, after the TLS handshake if there is one."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: self._protocol(loop, visit), visit.line, ssl=self._context)
        except OSError:  # no TLS, a certificate that is not accepted: not our trouble
            visit.line.close()
            visit.left()

    def _greeted(self, task: asyncio.Task[None]) -> None:
        visit = self._greeting.pop(task)
        if task.cancelled():  # perhaps before it began
            if visit.transport is None:
                visit.line.close()
            else:  # the handshake was done: else it would wait for the other side's farewell, with its line closed
                visit.transport.abort()
            visit.left()
        elif error := task.exception():
            visit.left()
            self._log.error("a new connection met a defect; the others go on", exc_info=error)

    def _look(self) -> None:
        """Cut off the strangers whose time is over, and come again while there are any."""
        assert self.loop is not None
        due = self._connections.look(self.loop.time())
        self._looking = None if due is None else self.loop.call_at(due, self._look)

    def _rest(self, error: OSError) -> None:
        assert self.loop is not None
        if not self._scarce:
            self._scarce = True
            self._log.error("no new connections for a while: %s; raise the limit of open files, or look for what "
                            "holds them", error.strerror)  # fmt: skip
        self.loop.remove_reader(self._socket)
        self.loop.call_later(REST, self._resume)

    def _resume(self) -> None:
        if self.loop is not None and not self._stopping.is_set():
            self.loop.add_reader(self._socket, self._accept)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    async def _end(self) -> None:
        """Take nothing new, wait, then cut off what is left."""
        loop, state = asyncio.get_running_loop(), self._state
        loop.remove_reader(self._socket)
        self._socket.close()
        if self._looking is not None:
            self._looking.cancel()
        if self._screening is not None:
            self._screening.close()
        greeting = set(self._greeting)
        if self._context is None and greeting:  # these will be there in a moment, and are then closed in order
            await asyncio.wait(greeting)
        for task in greeting:
            task.cancel()
        await asyncio.gather(*greeting, return_exceptions=True)
        for connection in list(state.connections):
            connection.shutdown()  # closes idle ones; busy ones after their answer
        if state.tasks and self._drain > 0:
            await asyncio.wait(set(state.tasks), timeout=self._drain)
        self._app.give_up()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=0.05)
        deadline = loop.time() + LAST_WORDS
        while _writing(state.connections) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # bounded, and only while bytes are on their way out
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.abort()  # wakes tasks that still read: their caller is gone
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=LAST_WORDS)
        for _ in range(4):  # the transports close their sockets
            await asyncio.sleep(0)


def _writing(connections: object) -> bool:
    return any(one.transport.get_write_buffer_size() for one in connections)  # type: ignore[attr-defined]
