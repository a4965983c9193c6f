"""HTTP requests that end: one session of `requests` with a deadline for the whole exchange.

Owns the deadline and the proxies. The library's own time-out is for each read, so that headers or an answer that drip
would hold a thread for ever: when the time is over the connection is cut under it. Must not know what is asked.
"""

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
import requests.utils
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager


class Cable:
    """The socket of the exchange that is under way in one session, to be cut from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[socket.socket, bool] = {}
        """Second handles of sockets, good also when TLS takes the first one over, or when the connection is closed
        while its answer is still read from it; and whether the connection was closed."""
        self._under_way = False
        self._over = False

    def begin(self) -> None:
        """An exchange begins."""
        with self._lock:
            self._under_way, self._over = True, False

    def end(self) -> None:
        """It is over: let go of sockets whose connection was closed in it, so that the other side sees their end."""
        with self._lock:
            self._under_way = False
            self._let_go()

    def plug(self, connected: socket.socket) -> socket.socket:
        """A new connection was made; the handle for `unplug`."""
        handle = connected.dup()
        with self._lock:
            self._handles[handle] = False
            self._shut_if_over()
        return handle

    def unplug(self, handle: socket.socket) -> None:
        """A connection was closed. Its answer may still be read."""
        with self._lock:
            if handle in self._handles:
                self._handles[handle] = True
            if not self._under_way:
                self._let_go()

    def cut(self) -> None:
        """End the connection in both directions: who reads or writes gets an error or the end at once."""
        with self._lock:
            self._over = True
            self._shut_if_over()

    def _shut_if_over(self) -> None:
        for handle in self._handles if self._over else ():
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        for handle in [handle for handle, closed in self._handles.items() if closed]:
            del self._handles[handle]
            handle.close()


class _Plugged:
    """What both kinds of connections do besides."""

    cable: Cable
    handle: socket.socket | None = None

    def hold(self, connected: socket.socket) -> socket.socket:
        self.handle = self.cable.plug(connected)
        return connected

    def let_go(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            self.cable.unplug(handle)


class _Plain(_Plugged, HTTPConnection):
    def __init__(self, cable: Cable, *arguments: Any, **options: Any) -> None:
        self.cable = cable
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        return self.hold(super()._new_conn())

    def close(self) -> None:
        super().close()
        self.let_go()


class _Secure(_Plugged, HTTPSConnection):
    def __init__(self, cable: Cable, *arguments: Any, **options: Any) -> None:
        self.cable = cable
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        return self.hold(super()._new_conn())

    def close(self) -> None:
        super().close()
        self.let_go()


def _plain_pool(cable: Cable, host: str, port: int, **options: Any) -> HTTPConnectionPool:
    pool = HTTPConnectionPool(host, port, **options)
    pool.ConnectionCls = partial(_Plain, cable)  # type: ignore[assignment]  # it is only called
    return pool


def _secure_pool(cable: Cable, host: str, port: int, **options: Any) -> HTTPSConnectionPool:
    pool = HTTPSConnectionPool(host, port, **options)
    pool.ConnectionCls = partial(_Secure, cable)  # type: ignore[assignment]
    return pool


class _Adapter(HTTPAdapter):
    def __init__(self, cable: Cable) -> None:
        self._cable = cable
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._plug(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        self._plug(manager)
        return manager

    def _plug(self, manager: PoolManager) -> None:
        pools = {"http": partial(_plain_pool, self._cable), "https": partial(_secure_pool, self._cable)}
        manager.pool_classes_by_scheme = pools  # type: ignore[assignment]  # it is only called


class Session:
    """Requests of one thread, one after the other, over a connection that is kept."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._cable = Cable()
        self._session = requests.Session()
        # Nothing of the environment but what proxies_for has read: no netrc, which would put a password into requests.
        self._session.trust_env = False
        self._session.proxies = dict(proxies)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._cable))

    @contextlib.contextmanager
    def post(
        self, url: str, body: bytes | BinaryIO, headers: Mapping[str, str], *, connect: float, total: float,
        verify: bool | str,
    ) -> Iterator[requests.Response]:  # fmt: skip
        """POST; the answer's headers are here, its body is read within the block.

        Raises requests.RequestException, OSError. After ``total`` seconds the block ends with requests.ReadTimeout,
        whatever was read of the body until then.
        """
        over = threading.Event()
        lock = threading.Lock()
        done = False

        def end() -> None:
            with lock:
                if not done:
                    over.set()
                    self._cable.cut()

        self._cable.begin()
        timer = threading.Timer(total, end)
        timer.daemon = True
        timer.start()
        try:
            # Redirects are not followed: the body was meant for the configured address.
            with self._session.post(
                url, data=body, headers=dict(headers), verify=verify, stream=True, allow_redirects=False,
                timeout=(min(connect, total), total),
            ) as answer:  # fmt: skip
                yield answer
        except (requests.RequestException, OSError) as error:
            if over.is_set():
                raise requests.ReadTimeout(f"no whole answer within {total:g} s") from error
            raise
        finally:
            with lock:
                done = True
            timer.cancel()
            self._cable.end()
        # A body without a length looks whole when its connection was cut.
        if over.is_set():
            raise requests.ReadTimeout(f"no whole answer within {total:g} s")

    def close(self) -> None:
        """Close the connection; safe twice."""
        self._session.close()


def proxies_for(url: str, proxy: str | None) -> dict[str, str]:
    """The proxies for an address: ``proxy``, or ``none``; unsaid those of the environment, but none for loopback."""
    if proxy == "none":
        return {}
    if proxy is not None:
        return {"http": proxy, "https": proxy}
    return {} if is_loopback(url) else requests.utils.get_environ_proxies(url, no_proxy=None)


def authorities() -> str | bool:
    """The file of certificate authorities that the environment names, as everybody who uses `requests` expects."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def is_loopback(url: str) -> bool:
    """Whether what is sent there stays on this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
