"""The inproc addresses of this process: a shared ZeroMQ context and who listens under which name.

Owns the one thing that all transports of a process must share to find each other. Must not know what
they say.
"""

import itertools
import os
import threading
from collections.abc import Callable

import zmq

from dropr_core.errors import Unreachable


class Hub:
    """Names inside one process. The context lives as long as anybody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._listeners: dict[str, dict[object, Callable[[], None]]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._users = 0

    def use(self) -> "zmq.Context[zmq.Socket[bytes]]":
        """The shared context; each use is ended with `leave`."""
        with self._lock:
            if self._pid != os.getpid():  # the parent's context and names are not ours
                self._pid, self._context, self._users, self._listeners = os.getpid(), None, 0, {}
            if self._context is None:
                self._context = zmq.Context()
                self._context.set(zmq.MAX_SOCKETS, 65_000)
            self._users += 1
            return self._context

    def leave(self) -> None:
        """A user has closed all its sockets."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            context, self._context = self._context, None
        if context is not None:
            context.term()

    def enter(self, name: str) -> str:
        """Take a name (``0``: a fresh one) for a listener. Raises Unreachable if it is taken."""
        with self._lock:
            name = f"dropr-{next(self._numbers)}" if name == "0" else name
            if name in self._listeners:
                raise Unreachable(f"cannot listen on zmq+inproc://{name}: somebody in this process does already")
            self._listeners[name] = {}
            return name

    def quit(self, name: str) -> None:
        """The listener closes: give the name back and tell those who talk to it."""
        with self._lock:
            callers = self._listeners.pop(name, {})
        for gone in callers.values():
            gone()

    def meet(self, name: str, who: object, gone: Callable[[], None]) -> bool:
        """Whether somebody listens under this name; then ``gone`` is called once it closes."""
        with self._lock:
            callers = self._listeners.get(name)
            if callers is None:
                return False
            callers[who] = gone
            return True

    def part(self, name: str, who: object) -> None:
        """``who`` does not care any more."""
        with self._lock:
            self._listeners.get(name, {}).pop(who, None)
