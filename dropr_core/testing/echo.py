"""What the transport contract's tests are made of: the case of a technology, an answerer that obeys, requests.

Owns `TransportCase`, `Echo`, `Pair`, `request`. Must not know any technology.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import attrs

from dropr_core.contracts.transport import Caller, Connection, Listener, Transport
from dropr_core.errors import Refused
from dropr_core.testing.payloads import payload

WAIT = 30.0
"""Seconds after which a test gives up; no test needs them."""
_DIGITS = 12
MIB = 1 << 20


@attrs.frozen
class TransportCase:
    """What the tests need to know about a technology."""

    make: Callable[[], Transport]
    """A new transport; the tests close it."""
    listen: str
    """A url to listen on that asks for a free address (port 0, name 0)."""
    nobody: str
    """A url at which nobody listens."""


def request(size: int, verb: str = "echo") -> bytes:
    """A request of ``size`` bytes (at least 20) that says its own length and what to do with it."""
    head = f"{size:0{_DIGITS}d}{verb:<8}".encode()
    assert size >= len(head)
    return head + payload(size, size)[: size - len(head)]


class Echo:
    """An answerer for tests: what it does stands in the request, see `request`."""

    head_size = 4096

    def __init__(self) -> None:
        self.limit = 1 << 40
        self.answered = 0
        self.asked = threading.Semaphore(0)
        """Released with each request that came whole."""
        self.callers: list[Caller] = []
        self.heads: list[int] = []
        self.held: list[tuple[bytes, Future[bytes]]] = []
        self.lock = threading.Lock()

    def admit(self, head: bytes, caller: Caller) -> int:
        """The length that the head names, or the refusal that it asks for."""
        with self.lock:
            self.callers.append(caller)
            self.heads.append(len(head))
        if not head:
            return 0
        verb = head[_DIGITS : _DIGITS + 8].decode().strip()
        if verb == "crash":
            raise RuntimeError("secret detail of admit")
        if verb.startswith("no:"):
            codes = {"peer": "unknown_peer", "sign": "bad_signature", "big": "too_big", "frame": "bad_frame"}
            raise Refused(codes[verb[3:]], f"refused on purpose: {verb}")
        if int(head[:_DIGITS]) > self.limit:
            raise Refused("too_big", f"more than {self.limit} bytes")
        return int(head[:_DIGITS])

    def answer(self, request: bytes | memoryview, caller: Caller) -> "Future[bytes]":  # noqa: ARG002
        """Do what the request says: echo, hold, later, empty, refuse, fail, raise."""
        whole = bytes(request)
        future: Future[bytes] = Future()
        with self.lock:
            self.answered += 1
        verb = whole[_DIGITS : _DIGITS + 8].decode().strip() if whole else "echo"
        if verb == "hold":
            with self.lock:
                self.held.append((whole, future))
        elif verb == "later":
            threading.Timer(0.05, future.set_result, (whole,)).start()
        elif verb == "empty":
            future.set_result(b"")
        elif verb == "refuse":
            future.set_exception(Refused("bad_frame", "refused after reading"))
        elif verb == "fail":
            future.set_exception(RuntimeError("secret detail of answer"))
        elif verb == "raise":
            self.asked.release()
            raise RuntimeError("secret detail of answer")
        else:
            future.set_result(whole)
        self.asked.release()
        return future

    def forget(self) -> None:
        """Everything that was noted of requests that are answered."""
        with self.lock:
            self.callers.clear()
            self.heads.clear()

    def let_go(self) -> None:
        """Answer everything that was held."""
        with self.lock:
            held, self.held = self.held, []
        for whole, future in held:
            future.set_result(whole)


@attrs.frozen
class Pair:
    """Two transports, a listener on one and a connection on the other."""

    case: TransportCase
    asking: Transport
    answering: Transport
    listener: Listener
    connection: Connection
    echo: Echo

    def ask(self, data: bytes, idle: float = WAIT) -> bytes:
        """The answer to one request."""
        return self.connection.ask(data, idle=idle).result(WAIT)
