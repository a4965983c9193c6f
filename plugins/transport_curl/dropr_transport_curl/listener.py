"""The answering side as a listener of our own: uvicorn in a thread, on a socket that we bind.

Owns the socket, the thread and the graceful end. Must not know what is answered.
"""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from dropr_core.contracts.transport import Answerer, Listener
from dropr_core.errors import Unreachable
from dropr_transport_curl.asgi import DroprApp
from dropr_transport_curl.guard import GuardedProtocol
from dropr_transport_curl.options import Options, Tls

_BACKLOG = 1024
_KEEP_ALIVE = 75
_LAST_WORDS = 1.0
"""Seconds for answers that are being written when the drain time is over."""


class _Server(uvicorn.Server):
    """uvicorn's server without its tick ten times a second, and with an end that we time ourselves."""

    def __init__(self, config: uvicorn.Config, app: DroprApp) -> None:
        super().__init__(config)
        self._app = app
        self._drain = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()

    async def main_loop(self) -> None:
        """Wait for `stop`; idle costs nothing."""
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self.on_tick(0)  # fills in the default headers
        self.ready.set()
        await self._stopping.wait()

    def stop(self, drain: float) -> None:
        """From any thread: end, with up to ``drain`` seconds for what is under way; a second call may shorten it."""

        def begin() -> None:
            self._drain = drain
            self._stopping.set()

        if self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(begin)
            except RuntimeError:  # it has ended already
                pass

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, wait, then cut off what is left."""
        loop = asyncio.get_running_loop()
        for sock in sockets or []:
            loop.remove_reader(sock)
        # Connections that asyncio accepted just now are known to nobody yet, and would be lost open if the server
        # closed before they arrive (cpython issue 109564). So let plain ones arrive, and end TLS handshakes.
        await _ticks()
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        await _cancel({task for task in asyncio.all_tasks() if _name(task) == "_accept_connection2"})
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()  # closes idle ones; busy ones after their answer
        if state.tasks and self._drain > 0:
            await asyncio.wait(set(state.tasks), timeout=self._drain)
        self._app.give_up()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=0.05)
        deadline = loop.time() + _LAST_WORDS
        while _writing(state.connections) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # bounded, and only while bytes are on their way out
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.abort()  # wakes tasks that still read: their caller is gone
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=_LAST_WORDS)
        await _ticks()  # the transports close their sockets


async def _ticks() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__name__", "")


def _writing(connections: object) -> bool:
    return any(one.transport.get_write_buffer_size() for one in connections)  # type: ignore[attr-defined]


class CurlListener(Listener):
    """An open door."""

    def __init__(self, url: str, answerer: Answerer, options: Options, log: logging.Logger) -> None:
        """Open it; raises Unreachable."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        context = _context(url, options.tls) if secure else None
        usual = 443 if secure else 80
        self._socket = _bind(url, parts.hostname or "127.0.0.1", usual if parts.port is None else parts.port)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.url = f"{parts.scheme}://{host}:{self._socket.getsockname()[1]}{parts.path}"
        app = DroprApp(
            answerer, parts.path, log=log, idle=options.body_idle, min_rate=options.min_rate, window=options.rate_window
        )
        config = uvicorn.Config(
            app, loop="asyncio", http=GuardedProtocol, ws="none", lifespan="off", log_config=None, interface="asgi3",
            proxy_headers=False, server_header=False, date_header=False, backlog=_BACKLOG,
            limit_concurrency=options.max_connections, timeout_keep_alive=_KEEP_ALIVE,
        )  # fmt: skip
        config.load()
        config.ssl = context
        self._server = _Server(config, app)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"dropr-listen-{self.url}", daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()
        self._server.ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise Unreachable(f"cannot listen on {url}: {self._failure}") from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except BaseException as error:  # also SystemExit, by which uvicorn gives up
            self._failure = error
        finally:
            self._socket.close()
            self._server.ready.set()

    def close(self, *, drain: float = 0.0) -> None:
        """See the contract."""
        self._server.stop(drain)
        if threading.current_thread() is not self._thread:
            self._thread.join(drain + 10.0)


def _bind(url: str, host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG * (host == "localhost")
        )[0]
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"cannot listen on {url}: the host '{host}' is not known here ({error})") from None
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio asks for the protocol by number
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Unreachable(f"cannot listen on {url}: {_why(error, host, port)}") from None
    return sock


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program; stop it or choose another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission for port {port}; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; 0.0.0.0 means all of them"
    return error.strerror or str(error)


def _context(url: str, tls: Tls) -> ssl.SSLContext:
    if not tls.cert:
        raise Unreachable(f"cannot listen on {url}: https needs a certificate; set 'tls.cert' and 'tls.key'")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    reading = f"'tls.cert' {tls.cert} and 'tls.key' {tls.key or '(in the same file)'}"
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        if tls.client_ca:
            reading = f"'tls.client_ca' {tls.client_ca}"
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Unreachable(f"cannot listen on {url}: {reading} cannot be used: {error}") from None
    return context
