"""The one thread of a transport: it owns all sockets, sleeps in a ZeroMQ poller, and is woken by a byte.

Owns the thread, the poller, the timers and the ZeroMQ context. Must not know what the sockets say. All
that touches a socket runs here; other threads hand work over with `post` and `run`.
"""

import heapq
import itertools
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

import attrs
import zmq

from dropr_core.errors import Closed

T = TypeVar("T")
_JOIN = 40.0
_SOCKETS = 65_000

EVENTS = (
    zmq.Event.CONNECTED | zmq.Event.ACCEPTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.DISCONNECTED | zmq.Event.CONNECT_RETRIED | zmq.Event.CLOSED
    | zmq.Event.MONITOR_STOPPED
)  # fmt: skip
"""What a monitor is told: never HANDSHAKE_FAILED_PROTOCOL.

libzmq 4.3.5 tells that event between setting errno and looking at it, and telling it changes errno
(curve_mechanism_base_t::decode). It then takes a damaged frame for "try again", keeps the connection half dead, and
its next heartbeat aborts the process: `Assertion failed: !_io_error`. Whoever finished a handshake could end a process
with one bad frame and a reset. All other events are told where errno has been used (docs/decisions/0011).
"""


_MORE, _LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)
BURST = 0.002
"""Seconds within which a second request shows that there are many."""
PATIENCE = 0.002
"""Seconds for which the thread is let run at most."""
_FEW = 16
"""Cancelled timers that may stay until their time."""


@attrs.define
class Timer:
    """What is to be done later; nothing, once it was done or cancelled."""

    work: Callable[[], None] | None


class Engine:
    """A thread for sockets. It starts with the first `post`."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._awake = False
        """Whether it was woken, and will look at what was posted. Raised after posting, taken down before that look."""
        self._handed_at = 0.0
        self._posted: deque[Callable[[], None]] = deque()
        self._notifier: socket.socket | None = None
        # in the thread
        self._poller = zmq.Poller()
        self._watched: dict[Any, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self.at_end: list[Callable[[], None]] = []
        """Called in the thread when the engine closes; each must not fail."""

    # ── from any thread ──────────────────────────────────────────────────────────────────────────

    def post(self, work: Callable[[], None]) -> bool:
        """Have ``work`` done in the thread; whether it slept. Raises Closed, also in a forked child."""
        if os.getpid() != self._pid:
            raise Closed("this transport was opened by the parent process; open the node anew")
        with self._lock:
            if self._closed:
                raise Closed("this transport is closed")
            self._posted.append(work)
            if self._thread is None:
                subscription, self._notifier = socket.socketpair()
                subscription.setblocking(False)
                self._notifier.setblocking(False)
                self._thread = threading.Thread(target=self._main, args=(subscription,), name="dropr-zmq", daemon=True)
                self._thread.start()
            if self._awake:
                return False
            self._awake = True
            assert self._notifier is not None
            self._notifier.send(b"!")
            return True

    def hand_over(self, work: Callable[[], None]) -> None:
        """`post`, and let the thread run at once if it slept: else it wakes up, and then waits for the interpreter,
        which this thread keeps until it happens to wait for something. A burst is posted without that. Raises Closed.
        """
        done = threading.Lock()
        done.acquire()

        def do() -> None:
            try:
                work()
            finally:
                done.release()

        now = monotonic()
        burst, self._handed_at = now - self._handed_at < BURST, now
        if self.post(do) and not burst and not self.here:
            done.acquire(timeout=PATIENCE)

    def run(self, work: Callable[[], T]) -> T:
        """Have ``work`` done in the thread and wait for its result. Raises what it raises, and Closed."""
        if self.here:
            return work()
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self.post(do)
        return done.result()

    @property
    def here(self) -> bool:
        """Whether this is the thread itself."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """Close everything and end the thread; safe twice, and in a forked child, where it does nothing."""
        if os.getpid() != self._pid:
            self._closed = True
            return
        with self._lock:
            thread = self._thread
            if not self._closed:
                self._closed = True
                if self._notifier is not None and not self._awake:
                    self._notifier.send(b"!")
        if thread is not None and not self.here:
            thread.join(_JOIN)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────

    @property
    def context(self) -> "zmq.Context[zmq.Socket[bytes]]":
        """The ZeroMQ context of this transport."""
        if self._context is None:
            self._context = zmq.Context()
            self._context.set(zmq.MAX_SOCKETS, _SOCKETS)
        return self._context

    def monitor(self, watched: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
        """A socket on which ZeroMQ tells what happens to ``watched``, one of this context."""
        # pyzmq's own names repeat with the file descriptor, and the old one may be in use for a moment still.
        name = f"inproc://dropr-monitor-{next(self._order)}"
        watched.monitor(name, EVENTS)
        monitor = self.context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(name)
        return monitor

    def watch(self, what: Any, ready: Callable[[int], None], events: int = zmq.POLLIN) -> None:
        """Call ``ready`` with the events whenever a socket has some; again: look for other events."""
        self._poller.register(what, events)
        self._watched[what] = ready

    def unwatch(self, what: Any) -> None:
        """No more."""
        if self._watched.pop(what, None) is not None:
            self._poller.unregister(what)

    def after(self, seconds: float, work: Callable[[], None]) -> "Timer":
        """Do ``work`` in so many seconds, unless it is cancelled before."""
        timer = Timer(work)
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._order), timer))
        return timer

    def cancel(self, timer: "Timer") -> None:
        """Not any more; safe twice, and after it was done. What it held is let go of at once."""
        if timer.work is None:
            return
        timer.work = None
        self._cancelled += 1
        if self._cancelled > _FEW and 2 * self._cancelled > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].work is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def later(self, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        """`after`; what it returns is its `cancel`."""
        timer = self.after(seconds, work)
        return lambda: self.cancel(timer)

    def _main(self, subscription: socket.socket) -> None:
        def heard(_events: int) -> None:
            try:
                subscription.recv(64)
            except BlockingIOError:
                pass

        self.watch(subscription.fileno(), heard)
        try:
            while not self._closed:
                try:
                    self._turn()
                except zmq.ZMQError:
                    self._log.exception("a defect in the ZeroMQ transport; the others go on")
                    for what in [what for what in self._watched if getattr(what, "closed", False)]:
                        self.unwatch(what)
                    time.sleep(0.1)  # a defect that comes back at once must not burn a processor
        finally:
            self._end(subscription)

    def _turn(self) -> None:
        pause = max(0, int((self._timers[0][0] - monotonic()) * 1000) + 1) if self._timers else None
        for what, events in self._poller.poll(pause):
            ready = self._watched.get(what)
            if ready is not None:
                self._guarded(ready, events)
        # Behind `heard`, else that could take the byte of what is posted after this look. Without the lock: who posted
        # a moment ago may still hold it.
        self._awake = False
        for _ in range(len(self._posted)):
            self._guarded(self._posted.popleft())
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            due, timer.work = timer.work, None
            if due is None:
                self._cancelled = max(0, self._cancelled - 1)
            else:
                self._guarded(due)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception:
            self._log.exception("a defect in the ZeroMQ transport; the others go on")

    def _end(self, subscription: socket.socket) -> None:
        with self._lock:
            self._closed = True
            posted, self._posted = self._posted, deque()
        for work in posted:  # who waits for one of these must not wait for ever
            self._guarded(work)
        for work in self.at_end:
            self._guarded(work)
        self._timers.clear()
        self._watched.clear()
        self._poller = zmq.Poller()
        with self._lock:
            subscription.close()
            if self._notifier is not None:
                self._notifier.close()
                self._notifier = None
        if self._context is not None:
            self._context.term()  # as long as the sockets' linger at most


class Deadline:
    """One timer for many: looks again when the earliest of them may be due, and sleeps when there is none."""

    def __init__(self, engine: Engine, look: Callable[[float], float | None]) -> None:
        """``look`` gets the time, ends what is over, and returns when (monotonic) to look again."""
        self._engine, self._look = engine, look
        self._set: float | None = None
        self._timer: Timer | None = None

    def by(self, when: float) -> None:
        """Look not later than ``when``."""
        if self._set is None or when < self._set:
            self.stop()
            self._set = when
            self._timer = self._engine.after(when - monotonic(), self._fire)

    def stop(self) -> None:
        """Do not look, until somebody says `by` again."""
        self._set = None
        if self._timer is not None:
            self._engine.cancel(self._timer)
            self._timer = None

    def _fire(self) -> None:
        self._set = self._timer = None
        now = monotonic()
        again = self._look(now)
        if again is not None:
            self.by(max(again, now + 0.01))


def send_now(target: "zmq.Socket[bytes]", parts: Sequence[bytes | memoryview]) -> None:
    """One message, without waiting. Raises zmq.Again. As `send_multipart`, whose flags take longer than sending."""
    for part in parts[:-1]:
        target.send(part, _MORE)
    target.send(parts[-1], _LAST)


def receive(source: "zmq.Socket[bytes]", most: int) -> "list[zmq.Frame] | None":
    """The parts of the next message, at most ``most + 1`` of them, or None if there is none now."""
    try:
        frame = source.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts = [frame]
    while frame.more:
        frame = source.recv(copy=False)
        if len(parts) <= most:
            parts.append(frame)
    return parts
