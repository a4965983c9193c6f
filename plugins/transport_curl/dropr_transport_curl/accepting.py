"""The event loop of a listener: accepts connections, gives each a protocol, and ends in good order.

Owns accepting, TLS handshakes and the end. Takes connections itself instead of through uvicorn's server, so that a
connection is known, and can be counted and cut off, from its first moment on. Must not know HTTP or what is answered.
"""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Protocol

from uvicorn.server import ServerState

HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake."""
LAST_WORDS = 1.0
"""Seconds for answers that are being written when the drain time is over."""
_EVERY = 64
"""Connections accepted in one turn, so that a flood of them does not starve those that are there."""
_REST = 1.0
"""Seconds without accepting after the system had no descriptor or memory for one more connection."""
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class App(Protocol):
    """What is served."""

    def give_up(self) -> None:
        """Stop waiting for answers. In the event loop's thread."""


class Accepting:
    """Runs in a thread of its own (`run`); `stop` may be called from any."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, app: App, state: ServerState,
                 protocol: Callable[[asyncio.AbstractEventLoop], asyncio.Protocol],
                 log: logging.Logger) -> None:  # fmt: skip
        """``sock``: bound, listening and not blocking; closed at the end."""
        self._socket, self._context, self._app, self._state = sock, context, app, state
        self._protocol, self._log = protocol, log
        self._drain = 0.0
        self._scarce = False
        self._greeting: dict[asyncio.Task[None], socket.socket] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()

    async def run(self) -> None:
        """Serve until `stop`; idle costs nothing."""
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
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
                line, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    self._rest(error)
                    return
                continue  # the caller left before it was its turn
            line.setblocking(False)
            self._scarce = False
            task = self.loop.create_task(self._greet(line))
            self._greeting[task] = line
            task.add_done_callback(self._greeted)

    async def _greet(self, line: socket.socket) -> None:
        """Give a connection its protocol, after the TLS handshake if there is one."""
        loop = asyncio.get_running_loop()
        secure = self._context is not None
        try:
            await loop.connect_accepted_socket(
                lambda: self._protocol(loop), line, ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if secure else None,
            )  # fmt: skip
        except OSError:  # no TLS, a certificate that is not accepted, or too slow: not our trouble
            line.close()

    def _greeted(self, task: asyncio.Task[None]) -> None:
        line = self._greeting.pop(task)
        if task.cancelled():  # perhaps before it began
            line.close()
        elif error := task.exception():
            self._log.error("a new connection met a defect; the others go on", exc_info=error)

    def _rest(self, error: OSError) -> None:
        assert self.loop is not None
        if not self._scarce:
            self._scarce = True
            self._log.error("no new connections for a while: %s; raise the limit of open files, or look for what "
                            "holds them", error.strerror)  # fmt: skip
        self.loop.remove_reader(self._socket)
        self.loop.call_later(_REST, self._resume)

    def _resume(self) -> None:
        if self.loop is not None and not self._stopping.is_set():
            self.loop.add_reader(self._socket, self._accept)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    async def _end(self) -> None:
        """Take nothing new, wait, then cut off what is left."""
        loop, state = asyncio.get_running_loop(), self._state
        loop.remove_reader(self._socket)
        self._socket.close()
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
