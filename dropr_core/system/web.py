"""An ASGI application at one listening socket, served by uvicorn in an event loop of the process that asks for it.

Owns uvicorn's settings, the limits that it lacks, and the end in good order. Takes a socket that is bound and listens.
Imported only where something of the web is served: it needs uvicorn and httptools, WebSockets need websockets (whoever
serves names them among its dependencies). Must not know what is served, nor to whom.

What a request's head, chunk framing and trailers may take is bounded before anything of it is parsed, and who sends or
reads nothing is cut off. Requests with two lengths, or a length and chunks, are refused by httptools, which is strict.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dropr_core.system.loading import unforked
from dropr_core.system.tally import Tally, quiet
from dropr_core.system.whole_answers import WholeAnswers

PATIENCE = 30.0
"""Seconds within which the head of a request must be there, some of its body must come, some of an answer be read."""
HANDSHAKE = 10.0
"""Seconds for the TLS handshake."""
KEEP_ALIVE = 75.0
"""Seconds for which a connection is kept between two requests."""
OVERHEAD = 16 << 10
"""Most bytes of a request's head; with some for each byte of body also of what is no body: chunk sizes, trailers."""
_FRAMING = 8
"""Bytes of chunk framing allowed for each byte of body: that much has a chunk of one byte."""
_LEAST = 1000
"""Bytes of a body that must come within PATIENCE."""
MAX_FRAME = 1 << 20
"""Most bytes of one WebSocket message."""


class WebDoor:
    """One listening socket with an application behind it."""

    def __init__(
        self,
        application: Callable[[Any, Any, Any], Awaitable[None]],
        sock: socket.socket,
        context: ssl.SSLContext | None,
        *,
        max_connections: int,
        place: str,
        log: logging.Logger,
    ) -> None:
        """``sock`` is closed by `close`. ``context``: for TLS. ``place``: the url, for the log."""
        self._socket, self._context = sock, context
        self._most, self._place, self._log, self._full = max_connections, place, log, Tally()
        self._config = uvicorn.Config(
            cast("Any", application), loop="none", http=_Http, ws=_web_sockets(), lifespan="off", log_config=None,
            interface="asgi3", proxy_headers=False, server_header=False, date_header=False, access_log=False,
            timeout_keep_alive=cast("int", KEEP_ALIVE), ws_max_size=MAX_FRAME, ws_ping_interval=60.0,
            ws_ping_timeout=60.0, ws_per_message_deflate=False,
        )  # fmt: skip
        self._config.load()
        self.state = ServerState()
        self._quiet = quiet(log, place)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._visitor,
            sock=self._socket,
            ssl=self._context,
            ssl_handshake_timeout=None if self._context is None else HANDSHAKE,
        )

    def _visitor(self) -> asyncio.Protocol:
        if len(self.state.connections) >= self._most:
            if self._full.add():
                self._log.warning(
                    "%s: all %d connections are taken, a new one was closed at once (%d so far); raise "
                    "max_connections, or look for the program that holds them", self._place, self._most,
                    self._full.count,
                )  # fmt: skip
            return _Closed()
        return _Http(self._config, self.state, {}, self._quiet)

    async def drain(self) -> None:
        """Accept nothing more, and return when every request has ended. Cancel it to wait no longer."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        while self.state.tasks:
            await asyncio.wait(list(self.state.tasks))

    def abort(self) -> None:
        """Cut off what is left. Safe twice."""
        if self._server is not None:
            self._server.close()
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        self._socket.close()


async def serve(door: WebDoor, end: asyncio.Event) -> None:
    """Answer until ``end`` is set and what is under way has ended; cancelled, cut off what is left."""
    try:
        await door.start()
        await end.wait()
        await door.drain()
    finally:
        door.abort()


class _Closed(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class _Watch:
    """Whether a connection moves: looks every PATIENCE seconds while there is something to look at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, look: "Any") -> None:
        """Call ``look`` after PATIENCE."""
        self.end()
        self._timer = self._loop.call_later(PATIENCE, look)

    def end(self) -> None:
        """Nothing to look at."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Http(HttpToolsProtocol):
    """One connection, with the limits that uvicorn's protocol lacks."""

    def __init__(self, config: Any, server_state: ServerState, app_state: dict[str, Any], log: logging.Logger) -> None:
        super().__init__(config, server_state, app_state)
        self.logger, self.access_log = log, False
        self._reading, self._writing = _Watch(self.loop), _Watch(self.loop)
        self._in_head, self._began = True, False
        self._other = self._body = self._looked_at = self._unread = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(WholeAnswers(cast("asyncio.Transport", transport), self.loop))
        self._reading.begin(self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading.end()
        self._writing.end()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def handle_websocket_upgrade(self) -> None:
        self._reading.end()
        super().handle_websocket_upgrade()

    # ── what comes ───────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        before, self._began = self._body, False
        super().data_received(data)
        if self._began:  # of a new request: what came before it counts no more
            self._other = 0
            return
        self._other += len(data) - (self._body - before)
        if self._other > OVERHEAD + _FRAMING * self._body:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._in_head = self._began = True
        self._body = self._looked_at = 0
        self._reading.begin(self._look)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading.end()
        super().on_message_complete()

    def _look(self) -> None:
        moved, self._looked_at = self._body - self._looked_at, self._body
        if self._in_head or (moved < _LEAST and not self.flow.read_paused):
            self.transport.abort()
        else:
            self._reading.begin(self._look)

    # ── what goes ────────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._writing.begin(self._look_at_reader)

    def resume_writing(self) -> None:
        self._writing.end()
        super().resume_writing()

    def _look_at_reader(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._unread >= before:  # it took nothing
            self.transport.abort()
        else:
            self._writing.begin(self._look_at_reader)

    def timeout_keep_alive_handler(self) -> None:
        """After idle time: a last answer that nobody reads must not hold the connection open for ever."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()


def _web_sockets() -> Any:
    """The protocol for WebSockets; None without the library."""
    try:
        with unforked:
            from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    except ImportError:
        return None

    class _WebSocket(WebSocketsSansIOProtocol):
        """With a limit on the time that a reader may take for nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._writing, self._unread = _Watch(self.loop), 0

        def connection_lost(self, exc: Exception | None) -> None:
            self._writing.end()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.transport.get_write_buffer_size()
            self._writing.begin(self._look_at_reader)

        def resume_writing(self) -> None:
            self._writing.end()
            super().resume_writing()

        def _look_at_reader(self) -> None:
            before, self._unread = self._unread, self.transport.get_write_buffer_size()
            if self._unread >= before:
                self.transport.abort()
            else:
                self._writing.begin(self._look_at_reader)

    return _WebSocket
