"""Who may connect over CURVE, and under which identity: ZeroMQ's authentication protocol (ZAP, RFC 27).

Owns the handler of one context. A caller's identity is its public key. Runs in the engine's thread.
"""

from collections.abc import Callable, Collection

import zmq

from dropr_transport_zmq.engine import Engine, receive
from dropr_transport_zmq.keys import to_text

DOMAIN = b"dropr"


class Gatekeeper:
    """Answers ZeroMQ's question whether a key may come in."""

    def __init__(self, engine: Engine, clients: Collection[str], refused: Callable[[str, str], None]) -> None:
        """``clients``: public keys; none: all. ``refused`` is told key and address of who is sent away."""
        self._engine, self._clients, self._told = engine, frozenset(clients), refused
        self._socket = engine.context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("inproc://zeromq.zap.01")
        engine.watch(self._socket, self._asked)

    def _asked(self, _events: int) -> None:
        while (frames := receive(self._socket, 16)) is not None:
            parts = [frame.bytes for frame in frames]
            version, request = parts[0], parts[1] if len(parts) > 1 else b""
            code, text, user = b"400", b"refused", b""
            if len(parts) == 7 and version == b"1.0" and parts[5] == b"CURVE" and len(parts[6]) == 32:
                key = to_text(parts[6])
                if not self._clients or key in self._clients:
                    code, text, user = b"200", b"OK", key.encode()
                else:
                    self._told(key, parts[3].decode("utf-8", "replace"))
            self._socket.send_multipart([version, request, code, text, user, b""])

    def close(self) -> None:
        """No more answers: new handshakes fail."""
        self._engine.unwatch(self._socket)
        self._socket.close(0)
