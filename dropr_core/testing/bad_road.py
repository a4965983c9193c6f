"""A road between two nodes that loses, doubles and stops requests, as often as a test asks.

Owns `Faults` (what happens how often) and `BadRoad` (a transport with faults in front of it). Of a request it
knows whether it carries messages, and nothing else. Must not know nodes or stores.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import attrs

from dropr_core.contracts.transport import Answerer, Connection, Listener, Transport
from dropr_core.errors import Unanswered, Unreachable
from dropr_core.protocol import frames, messages

SURELY = 3
"""Pushes that a fault strikes for sure, where a test wants one to strike."""


@attrs.define(slots=False)
class Faults:
    """What the road does to requests: each a probability."""

    lost: float = 0.0
    """The request does not arrive, and nobody knows."""
    unanswered: float = 0.0
    """It arrives, and the answer does not come back."""
    doubled: float = 0.0
    """It arrives twice at once."""
    repeated: float = 0.0
    """It arrives again after it was answered, and what comes back is the answer to the second."""
    closed: float = 0.0
    """It does not arrive, and that is certain."""
    seed: int = 0
    surely: str = ""
    """The name of a fault that strikes the first pushes (`SURELY` of them), whatever the dice say: where dice alone
    decide, a run may have struck nothing but greetings, and then it proves nothing."""

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 - the same every time
        self._lock = threading.Lock()
        self._owed = SURELY if self.surely else 0
        self.done: dict[str, int] = {}
        """How often each happened."""

    def pick(self, *, push: bool) -> str:
        """What happens to the next request."""
        with self._lock:
            fate = self._drawn()
            if push and self._owed:
                self._owed -= 1
                fate = self.surely
            if fate:
                self.done[fate] = self.done.get(fate, 0) + 1
            return fate

    def _drawn(self) -> str:
        value = self._dice.random()
        for name in ("lost", "unanswered", "doubled", "repeated", "closed"):
            value -= getattr(self, name)
            if value < 0:
                return name
        return ""


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
        fate = self._faults().pick(push=is_push(request))
        if fate in {"lost", "closed"}:
            future: Future[bytes] = Future()
            kind = Unanswered if fate == "lost" else Unreachable
            future.set_exception(kind(f"{self._url}: the kit closed the road"))
            return future
        if fate == "doubled":
            self._inner.ask(request, idle=idle)
        asked = self._inner.ask(request, idle=idle)
        if fate == "repeated":
            return self._again(asked, request, idle)
        return self._forgotten(asked) if fate == "unanswered" else asked

    def _again(self, asked: "Future[bytes]", request: bytes, idle: float) -> "Future[bytes]":
        future: Future[bytes] = Future()
        future.set_running_or_notify_cancel()
        asked.add_done_callback(lambda _: self._inner.ask(request, idle=idle).add_done_callback(partial(_pass, future)))
        return future

    def _forgotten(self, asked: "Future[bytes]") -> "Future[bytes]":
        future: Future[bytes] = Future()

        def end(_: object) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(Unanswered(f"{self._url}: the kit lost the answer"))

        asked.add_done_callback(end)
        return future

    def close(self) -> None:
        self._inner.close()


def _pass(future: "Future[bytes]", answered: "Future[bytes]") -> None:
    error = answered.exception(0)
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answered.result(0))


def is_push(request: bytes) -> bool:
    """Whether a request carries messages."""
    return frames.read_head(request, len(request)).header.verb == messages.PUSH


__all__ = ["BadRoad", "Faults"]
