"""The asking side: connections, and the one thread that carries the requests of all of them.

Owns the thread, its queue and the wake-up socket, and who may work with the engine: the thread whenever it is awake;
while it sleeps, whoever asks something short sends it himself. That saves a message two changes of thread on its way.
Must not know HTTP: `engine.py` and `verdict.py` do.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future

from dropr_core.contracts.transport import Connection, Tail
from dropr_core.errors import Closed
from dropr_transport_curl.engine import Engine
from dropr_transport_curl.options import Options
from dropr_transport_curl.slot import Request
from dropr_transport_curl.verdict import failed

_JOIN = 10.0
_SHORT = 64 << 10
"""Bytes of a request that whoever asks may send himself; a longer one would take too much of his time."""


class Client:
    """All outgoing requests of one transport. The thread starts with the first request."""

    def __init__(self, options: Options, log: logging.Logger) -> None:
        self._options, self._log = options, log
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._awake = False
        self._asked: deque[Request] = deque()
        self._dropped: deque[object] = deque()
        self._notifier: socket.socket | None = None
        self._working = threading.Lock()
        """Held by whoever works with the engine; by the thread unless it sleeps. Never waited for with `_lock` held."""
        self._engine: Engine | None = None
        self._broken = False
        """Whether the engine met a defect in a thread that asked."""

    def submit(self, request: Request) -> None:
        """Send a request; its future fails with Closed after `close` and in a forked child."""
        if os.getpid() != self._pid:
            request.future.set_exception(Closed("this transport was opened by the parent process; open the node anew"))
            return
        if self._begin(request):
            return
        with self._lock:
            if not self._closed:
                self._asked.append(request)
                self._notify()
                return
        request.future.set_exception(Closed(f"{request.url}: this transport is closed"))

    def _begin(self, request: Request) -> bool:
        """Send a short request at once while the thread sleeps; False: it is awake, and takes it from the queue."""
        if request.tail is not None or len(request.body) > _SHORT or not self._working.acquire(blocking=False):
            return False
        try:
            if self._engine is None or self._closed or self._broken:
                return False
            begun = True
            try:
                sleeps_on = self._engine.begin(request)
            except Exception:
                self._log.exception("a request met a defect of the engine; those that are under way are given up")
                self._broken, sleeps_on, begun = True, False, self._engine.holds(request)
        finally:
            self._working.release()
        if not sleeps_on:
            with self._lock:
                if not self._closed:
                    self._notify()
        return begun

    def drop(self, owner: object) -> None:
        """End the requests of one connection; soon, not at once."""
        if os.getpid() != self._pid:  # before the lock: in a forked child nobody may ever give it back
            return
        with self._lock:
            if self._thread is not None and not self._closed:
                self._dropped.append(owner)
                self._notify()

    def _notify(self) -> None:  # the lock is held
        if self._thread is None:
            subscription, self._notifier = socket.socketpair()
            subscription.setblocking(False)
            self._notifier.setblocking(False)
            self._thread = threading.Thread(target=self._run, args=(subscription,), name="dropr-curl", daemon=True)
            self._thread.start()
        if not self._awake:
            self._awake = True
            assert self._notifier is not None
            self._notifier.send(b"!")

    def close(self) -> None:
        """End everything (Unanswered, or Unreachable where nothing was sent); safe twice."""
        if os.getpid() != self._pid:
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self, subscription: socket.socket) -> None:
        engine: Engine | None = None

        def heard() -> None:
            try:
                subscription.recv(64)
            except BlockingIOError:
                pass

        try:
            while not self._closed:
                engine = Engine(self._options, subscription.fileno(), heard)
                try:
                    self._drive(engine)
                except Exception:
                    with self._working:
                        self._engine = None  # what is asked from now on waits for the next one
                    self._log.exception("the thread that talks to peers met a defect; its requests are given up")
                    time.sleep(0.1)  # a defect that comes back at once must not burn a processor
                finally:
                    with self._working:
                        self._engine, self._broken = None, False
                        engine.give_up(None, "the transport was closed")
                        engine.close()
        finally:
            with self._lock:
                self._closed = True
                rest = list(self._asked)
                self._asked.clear()
                subscription.close()
                if self._notifier is not None:
                    self._notifier.close()
            for request in rest:
                request.future.set_exception(failed(request.url, -1, "the transport was closed", started=False))

    def _drive(self, engine: Engine) -> None:
        while not self._closed and not self._broken:
            with self._working:
                self._engine = engine
                self._take(engine)
                pause = engine.pause()
            ready = [] if self._closed or self._broken else engine.sleep(pause)
            with self._working:
                engine.turn(ready)

    def _take(self, engine: Engine) -> None:
        """Begin what was asked meanwhile, and end what was dropped."""
        with self._lock:
            self._awake = False
            asked, self._asked = self._asked, deque()
            dropped, self._dropped = self._dropped, deque()
        try:
            while asked:
                engine.add(asked.popleft())
        except BaseException:
            with self._lock:
                self._asked.extendleft(reversed(asked))
            raise
        for owner in dropped:
            engine.give_up(owner, "the connection was closed")


class CurlConnection(Connection):
    """A way to one url. Sockets are kept and shared by the client, so it holds nothing itself."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url
        self._closed = False

    def ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        """See the contract. After `close` the future fails with Closed."""
        return self._ask(request, None, idle)

    def ask_long(self, beginning: bytes, tail: Tail, *, idle: float) -> "Future[bytes]":
        """See the contract: the tail is read as the peer takes it."""
        return self._ask(beginning, tail, idle)

    def _ask(self, request: bytes, tail: Tail | None, idle: float) -> "Future[bytes]":
        future: Future[bytes] = Future()
        future.set_running_or_notify_cancel()  # the other side cannot be made to forget it
        if self._closed:
            future.set_exception(Closed(f"{self._url}: this connection is closed"))
        else:
            self._client.submit(Request(self._url, request, idle, future, self, tail))
        return future

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        if not self._closed:
            self._closed = True
            self._client.drop(self)
