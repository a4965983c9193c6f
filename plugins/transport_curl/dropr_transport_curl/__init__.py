"""HTTP(S) transport: libcurl asks, an ASGI application answers.

Owns the plugin's surface: `Options`, the hook, the transport, `asgi_app`. Must not know what is moved.
"""

import logging
import threading
from typing import ClassVar
from urllib.parse import urlsplit

from dropr_core.contracts.context import Context
from dropr_core.contracts.transport import Answerer, Connection, Introduction, Listener, Transport, Trust
from dropr_core.errors import Closed, Unreachable
from dropr_core.hookspecs import hookimpl
from dropr_transport_curl.asgi import DroprApp
from dropr_transport_curl.client import Client, CurlConnection
from dropr_transport_curl.listener import CurlListener
from dropr_transport_curl.options import Options, Tls
from dropr_transport_curl.trusting import find_trust, own_fingerprint

__all__ = ["SCHEMES", "CurlTransport", "DroprApp", "Options", "Tls", "asgi_app", "dropr_asgi", "dropr_transport"]

SCHEMES = ("https", "http")


class CurlTransport(Transport):
    """One instance serves all peers and listeners of a node."""

    schemes = SCHEMES
    abilities = frozenset({"encrypted"})
    encrypted_schemes: ClassVar[frozenset[str]] = frozenset({"https"})

    def __init__(self, options: Options, log: logging.Logger) -> None:
        self._options, self._log = options, log
        self._client = Client(options, log)
        self._lock = threading.Lock()
        self._listeners: list[CurlListener] = []
        self._closed = False

    def check(self, url: str, *, listen: bool) -> str | None:
        """See the contract."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            return f"'{url}' is no url: {error}"
        if parts.scheme not in self.schemes:
            return f"'{url}' must begin with https:// or http://"
        if not parts.hostname or any(sign.isspace() or not sign.isprintable() for sign in url):
            return f"'{url}' names no usable host; write something like {parts.scheme}://peer.example:8420"
        if "@" in parts.netloc:
            return "put no credentials into a url: it appears in logs; peers know each other by their keys"
        if parts.query or parts.fragment:
            return f"'{url}' must end with the path; dropr asks without '?' and '#'"
        if listen and parts.scheme == "https" and not self._options.tls.cert:
            return f"listening on '{url}' needs a certificate; set the transport's option 'tls.cert' (and 'tls.key')"
        if not listen and port == 0:
            return f"'{url}': nobody listens on port 0"
        return None

    def connect(self, url: str) -> Connection:
        """See the contract."""
        return CurlConnection(self._client, url)

    def listen(self, url: str, answerer: Answerer) -> Listener:
        """See the contract."""
        wrong = self.check(url, listen=True)
        if wrong:
            raise Unreachable(f"cannot listen: {wrong}")
        with self._lock:
            if self._closed:
                raise Closed("this transport is closed")
            listener = CurlListener(url, answerer, self._options, self._log)
            self._listeners.append(listener)
            return listener

    def introduce(self, url: str) -> Introduction:
        """See the contract."""
        return Introduction(url, own_fingerprint(self._options) if urlsplit(url).scheme == "https" else "")

    def trust(self, introduction: Introduction) -> Trust | None:
        """See the contract."""
        url, certificate = introduction.url, introduction.certificate
        if not certificate or urlsplit(url).scheme != "https":
            return None
        return find_trust(url, certificate, self._options)

    def close(self) -> None:
        """See the contract."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
        self._client.close()
        for listener in listeners:
            listener.close()


def asgi_app(answerer: Answerer) -> DroprApp:
    """The application to mount into another ASGI application; it takes POSTs at the mount and below it."""
    return DroprApp(answerer)


@hookimpl
def dropr_asgi(answerer: Answerer) -> DroprApp:
    """The application that `dropr_core.asgi` mounts."""
    return asgi_app(answerer)


@hookimpl
def dropr_transport(options: Options, context: Context) -> Transport:
    """Make the transport of one node."""
    return CurlTransport(options, context.log)
