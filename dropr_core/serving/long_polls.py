"""Long polls: requests that wait until there is something to say, without a thread each.

Owns one thread that sleeps on the topics of the notifier and on the deadlines of those who wait. Must not know what is
asked: `Retry` asks again.
"""

import heapq
import itertools
import logging
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future

from dropr_core.errors import WriteFailed
from dropr_core.protocol.endpoint import Request, Wait
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import LOOK_AGAIN, Notifier, Subscription
from dropr_core.system.wake_up import WakeUp

Retry = Callable[[Request, bool, "Future[bytes]"], Wait | None]
"""Ask again, for the last time or not; None when it is answered."""


class LongPolls:
    """Requests that wait for something to happen: one thread for all of them, asleep between."""

    def __init__(self, notifier: Notifier, clock: Clock, retry: Retry, log: logging.Logger) -> None:
        self._notifier, self._clock, self._retry, self._log = notifier, clock, retry, log
        self._lock = threading.Lock()
        self._new: list[tuple[Request, Wait, Future[bytes]]] = []
        self._wake = WakeUp()
        self._closing = False
        self._thread: threading.Thread | None = None

    def enter(self, request: Request, wait: Wait, return_to: "Future[bytes]") -> None:
        """Let a request wait; once they are closed it is answered at once. Raises RuntimeError: no thread left."""
        with self._lock:
            closing = self._closing
            if not closing:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="dropr-long-polls", daemon=True)
                    thread.start()
                    self._thread = thread
                self._new.append((request, wait, return_to))
                self._wake.wake()
        if closing:
            self._retry(request, True, return_to)

    def _run(self) -> None:
        subscriptions: dict[str, _Waiters] = {}
        order = itertools.count()
        deadlines: list[tuple[float, int, str]] = []
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            with self._lock:
                new, self._new = self._new, []
                closing = self._closing
            for request, wait, return_to in new:
                key = "\0".join(wait.topics)
                waiters = subscriptions.get(key)
                if waiters is None:
                    waiters = subscriptions[key] = self._make_waiters(wait.topics)
                    if waiters.subscription is not None:
                        poll.register(waiters.subscription.fileno(), select.POLLIN)
                # Who can hear no notifier is answered soon with what there is, and asks again by itself; not at
                # once, for then it would ask without end.
                deadline = self._clock.now() + (wait.seconds if waiters.subscription else min(wait.seconds, LOOK_AGAIN))
                waiters.waiting.append((deadline, request, return_to))
                heapq.heappush(deadlines, (deadline, next(order), key))
                waiters.fresh = True
            now = self._clock.now()
            due = set()
            while deadlines and deadlines[0][0] <= now:
                due.add(heapq.heappop(deadlines)[2])
            for key, waiters in list(subscriptions.items()):
                if closing or key in due or waiters.fresh or waiters.notified:
                    waiters.ask_again(self._retry, now, closing)
                if not waiters.waiting and not closing:
                    if waiters.subscription is not None:
                        poll.unregister(waiters.subscription.fileno())
                    waiters.close()
                    del subscriptions[key]
            if closing:
                for waiters in subscriptions.values():
                    waiters.close()
                return
            left = min(deadlines[0][0] - self._clock.now(), LOOK_AGAIN) if deadlines else None
            ready = {fd for fd, _ in poll.poll(None if left is None else max(0, int(left * 1000) + 1))}
            if not ready:
                for waiters in subscriptions.values():
                    waiters.notified = True  # who was killed between commit and notification woke nobody
            if self._wake.fileno() in ready:
                self._wake.drain()
            for waiters in subscriptions.values():
                if waiters.subscription is not None and waiters.subscription.fileno() in ready:
                    waiters.notified = True

    def _make_waiters(self, topics: tuple[str, ...]) -> "_Waiters":
        """Without a subscription where none can be made: all others who wait go on."""
        try:
            return _Waiters(self._notifier.subscribe(*topics))
        except WriteFailed as error:
            self._log.error("long polls are cut to %.0f s: %s", LOOK_AGAIN, error)
            return _Waiters(None)

    def close(self) -> None:
        """Answer everybody with what there is; safe twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            thread = self._thread
        self._wake.wake()
        if thread is not None:
            thread.join()
        self._wake.close()


class _Waiters:
    """Those who wait for the same topics."""

    def __init__(self, subscription: Subscription | None) -> None:
        self.subscription = subscription
        self.waiting: list[tuple[float, Request, Future[bytes]]] = []
        self.fresh = True
        self.notified = False

    def ask_again(self, retry: Retry, now: float, closing: bool) -> None:
        """Ask again for each, unless it has an answer by now."""
        # Prepared before the stores are looked at: what comes after the look notifies.
        if self.subscription is not None:
            self.subscription.prepare()
        self.fresh = self.notified = False
        still = []
        for deadline, request, return_to in self.waiting:
            if retry(request, closing or deadline <= now, return_to) is not None:
                still.append((deadline, request, return_to))
        self.waiting = still

    def close(self) -> None:
        """Stop listening; safe twice."""
        if self.subscription is not None:
            self.subscription.close()
