"""The dispatcher: authenticates, answers, and lets long polls wait without a thread each.

Owns the threads between a transport's listener and the endpoint. Must not know sockets or verbs.
"""

import heapq
import itertools
import logging
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused, WriteFailed
from dropr_core.protocol.endpoint import Endpoint, Request, Wait
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import LOOK_AGAIN, Notifier, Subscription

ALIVE_EVERY = 2.0
"""Seconds at least between two words to the daemon that one peer is alive."""


_Retry = Callable[[Request, bool, "Future[bytes]"], Wait | None]


class Dispatcher:
    """Implements `contracts.transport.Answerer` over an endpoint."""

    def __init__(self, endpoint: Endpoint, notifier: Notifier, clock: Clock, alive: Callable[[str], None],
                 log: logging.Logger, threads: int = 4) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.head_size = endpoint.head_size
        self._clock, self._alive, self._log = clock, alive, log
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dropr-dispatcher")
        self._seen: dict[str, float] = {}
        self._room = LongPolls(notifier, clock, self._retry, log)

    def admit(self, head: bytes, caller: Caller) -> int:
        """Judge a request by its beginning (see the contract)."""
        return self.endpoint.admit(head, caller)

    def answer(self, request: bytes | memoryview, caller: Caller) -> "Future[bytes]":
        """The answer, now or after a long poll (see the contract)."""
        return_to: Future[bytes] = Future()
        try:
            self._pool.submit(self._first, request, caller, return_to)
        except RuntimeError as error:  # closed; or no thread can be started
            self._failed(Refused("busy", f"this node cannot answer now: {error}"), return_to)
        return return_to

    def _first(self, frame: bytes | memoryview, caller: Caller, return_to: "Future[bytes]") -> None:
        try:
            request = self.endpoint.open(frame, caller)
            self._note(request.peer)
            answer = self.endpoint.answer(request)
            if isinstance(answer, Wait):
                self._room.enter(request, answer, return_to)
                return
        except BaseException as error:
            self._failed(error, return_to)
            return
        if _still_wanted(return_to):
            return_to.set_result(answer)

    def _retry(self, request: Request, final: bool, return_to: "Future[bytes]") -> Wait | None:
        """Ask again for a request that waits; None when it is answered."""
        if return_to.cancelled():
            return None
        try:
            answer = self.endpoint.answer(request, first=False, final=final)
        except BaseException as error:
            self._failed(error, return_to)
            return None
        if isinstance(answer, Wait):
            return answer
        if _still_wanted(return_to):
            return_to.set_result(answer)
        return None

    def _failed(self, error: BaseException, return_to: "Future[bytes]") -> None:
        if not isinstance(error, Exception) or not hasattr(error, "code"):
            self._log.error("a request could not be answered: %s: %s", type(error).__name__, error)
        if _still_wanted(return_to):
            return_to.set_exception(error)

    def _note(self, peer: str) -> None:
        now = self._clock.now()
        if now - self._seen.get(peer, float("-inf")) >= ALIVE_EVERY:
            self._seen[peer] = now
            self._alive(peer)

    def close_waiting(self) -> None:
        """End all long polls with what there is; safe twice."""
        self._room.close()

    def close(self) -> None:
        """End all long polls, finish what is being answered, then stop; safe twice."""
        self._room.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.endpoint.close()


def _still_wanted(return_to: "Future[bytes]") -> bool:
    """Whether the asker is still there. From now on it cannot leave between this question and the answer."""
    return return_to.set_running_or_notify_cancel()


class LongPolls:
    """Requests that wait for something to happen: one thread for all of them, asleep between."""

    def __init__(self, notifier: Notifier, clock: Clock, retry: _Retry, log: logging.Logger) -> None:
        self._notifier, self._clock, self._retry, self._log = notifier, clock, retry, log
        self._lock = threading.Lock()
        self._new: list[tuple[Request, Wait, Future[bytes]]] = []
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closing = False
        self._thread: threading.Thread | None = None

    def enter(self, request: Request, wait: Wait, return_to: "Future[bytes]") -> None:
        """Let a request wait; once the room is closed it is answered at once. Raises RuntimeError: no thread left."""
        with self._lock:
            closing = self._closing
            if not closing:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="dropr-waiting-room", daemon=True)
                    thread.start()
                    self._thread = thread
                self._new.append((request, wait, return_to))
                self._wake()  # under the lock: after `close` the number may be that of another file
        if closing:
            self._retry(request, True, return_to)

    def _wake(self) -> None:
        try:
            os.write(self._writer, b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it is awake already; closed: nobody sleeps

    def _run(self) -> None:
        subscriptions: dict[str, _Waiters] = {}
        order = itertools.count()
        deadlines: list[tuple[float, int, str]] = []
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
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
            if self._reader in ready:
                try:
                    os.read(self._reader, 4096)
                except BlockingIOError:
                    pass
            for waiters in subscriptions.values():
                if waiters.subscription is not None and waiters.subscription.fileno() in ready:
                    waiters.notified = True

    def _make_waiters(self, topics: tuple[str, ...]) -> "_Waiters":
        """Without a subscription where none can be made: the room and all others who wait in it go on."""
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
        self._wake()
        if thread is not None:
            thread.join()
        os.close(self._reader)
        os.close(self._writer)


class _Waiters:
    """Those who wait for the same topics."""

    def __init__(self, subscription: Subscription | None) -> None:
        self.subscription = subscription
        self.waiting: list[tuple[float, Request, Future[bytes]]] = []
        self.fresh = True
        self.notified = False

    def ask_again(self, retry: _Retry, now: float, closing: bool) -> None:
        """Ask again for each, unless it has an answer by now."""
        # Armed before the stores are looked at: what comes after the look notifies.
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
