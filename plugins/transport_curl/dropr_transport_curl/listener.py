"""The answering side as a listener of our own: uvicorn's HTTP protocol in a thread, on a socket that we bind.

Owns the socket, the thread, TLS and the settings of uvicorn's protocol. Must not know what is answered.
"""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from urllib.parse import urlsplit

import uvicorn
from uvicorn.server import ServerState

from dropr_core.contracts.transport import Answerer, Listener
from dropr_core.errors import Unreachable
from dropr_core.system.connections import Connections
from dropr_transport_curl import seam
from dropr_transport_curl.accepting import Accepting, Visit
from dropr_transport_curl.asgi import DroprApp
from dropr_transport_curl.guard import GuardedProtocol, quiet
from dropr_transport_curl.options import Options, Tls

_BACKLOG = 1024
_KEEP_ALIVE = 75


class CurlListener(Listener):
    """An open door."""

    def __init__(self, url: str, answerer: Answerer, options: Options, log: logging.Logger) -> None:
        """Open it; raises Unreachable."""
        lacks = seam.missing()
        if lacks:
            raise Unreachable(
                f"cannot listen on {url}: uvicorn {uvicorn.__version__} lacks {', '.join(lacks)}, which this "
                "version of dropr-transport-curl relies on; install the uvicorn that its release names"
            )
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        context = _context(url, options.tls) if secure else None
        usual = 443 if secure else 80
        self._socket = _bind(url, parts.hostname or "127.0.0.1", usual if parts.port is None else parts.port)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.url = f"{parts.scheme}://{host}:{self._socket.getsockname()[1]}{parts.path}"
        app = DroprApp(
            answerer, parts.path, log=log, idle=options.body_idle, min_rate=options.min_rate,
            window=options.rate_window, room=options.max_held,
        )  # fmt: skip
        config = uvicorn.Config(
            app, loop="none", http=GuardedProtocol, ws="none", lifespan="off", log_config=None, interface="asgi3",
            proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )  # fmt: skip
        config.load()
        state = ServerState()
        connections = Connections(
            options.max_connections, options.max_strangers, options.max_strangers_per_address, options.admission
        )

        quietly = quiet(log, self.url)

        def protocol(loop: asyncio.AbstractEventLoop, visit: Visit) -> GuardedProtocol:
            return GuardedProtocol(
                visit, quietly, app.begin, config=config, server_state=state, app_state={}, _loop=loop
            )

        self.connections = connections
        self._server = Accepting(self._socket, context, app, answerer, state, connections, protocol, self.url, log)
        self._thread = threading.Thread(target=self._run, name=f"dropr-listen-{self.url}", daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()
        self._server.ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise Unreachable(f"cannot listen on {url}: {self._failure}") from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._server.run())
        except BaseException as error:
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
