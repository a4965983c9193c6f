"""A road between two nodes that loses, doubles and stops requests, as often as a test asks.

Owns `Faults` (what happens how often) and `BadRoad` (a transport with faults in front of it). Must not know
nodes, stores or what a request says.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future

import attrs

from dropr_core.contracts.transport import Answerer, Connection, Listener, Transport
from dropr_core.errors import Unanswered, Unreachable


@attrs.define(slots=False)
class Faults:
    """What the road does to requests: each a probability."""

    lost: float = 0.0
    """The request does not arrive, and nobody knows."""
    unanswered: float = 0.0
    """It arrives, and the answer does not come back."""
    doubled: float = 0.0
    """It arrives twice."""
    closed: float = 0.0
    """It does not arrive, and that is certain."""
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 - the same every time
        self._lock = threading.Lock()
        self.done: dict[str, int] = {}
        """How often each happened."""

    def pick(self) -> str:
        """What happens to the next request."""
        with self._lock:
            value = self._dice.random()
            for name in ("lost", "unanswered", "doubled", "closed"):
                value -= getattr(self, name)
                if value < 0:
                    self.done[name] = self.done.get(name, 0) + 1
                    return name
            return "good"


class BadRoad(Transport):
    """A transport with faults in front of it."""

    schemes = ()

    def __init__(self, inner: Transport, faults: Callable[[], Faults]) -> None:
        self._inner, self._faults = inner, faults

    def for_url(self, url: str) -> Transport:  # noqa: ARG002 - in the place of `transports.Transports`
        """The one transport that there is."""
        return self

    def check(self, url: str, *, listen: bool) -> str | None:
        """As the transport says."""
        return self._inner.check(url, listen=listen)

    def connect(self, url: str) -> Connection:
        """A connection with faults."""
        return _BadConnection(self._inner.connect(url), url, self._faults)

    def listen(self, url: str, answerer: Answerer) -> Listener:
        """A good door."""
        return self._inner.listen(url, answerer)

    def close(self) -> None:
        """Close the transport."""
        self._inner.close()


class _BadConnection(Connection):
    def __init__(self, inner: Connection, url: str, faults: Callable[[], Faults]) -> None:
        self._inner, self._url, self._faults = inner, url, faults

    def ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        fate = self._faults().pick()
        if fate in {"lost", "closed"}:
            future: Future[bytes] = Future()
            kind = Unanswered if fate == "lost" else Unreachable
            future.set_exception(kind(f"{self._url}: the kit closed the road"))
            return future
        if fate == "doubled":
            self._inner.ask(request, idle=idle)
        asked = self._inner.ask(request, idle=idle)
        return self._forgotten(asked) if fate == "unanswered" else asked

    def _forgotten(self, asked: "Future[bytes]") -> "Future[bytes]":
        future: Future[bytes] = Future()

        def end(_: object) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(Unanswered(f"{self._url}: the kit lost the answer"))

        asked.add_done_callback(end)
        return future

    def close(self) -> None:
        self._inner.close()


__all__ = ["BadRoad", "Faults"]
