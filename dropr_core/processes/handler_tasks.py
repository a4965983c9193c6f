"""The event loop of a worker process, on which async handlers are awaited, many messages at once.

Owns the loop and three threads: one takes messages, one has the loop, one settles, so that nothing which waits for the
store is done on the loop. Finds out when a handler blocks the loop. Must not know where messages come from, nor how
they are settled.
"""

import asyncio
import collections
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dropr_core.api.handler_call import call_async
from dropr_core.api.received import Received
from dropr_core.contracts.handler import AsyncHandler
from dropr_core.contracts.storage import Release, Settlement
from dropr_core.processes.at_work import AtWork, Running
from dropr_core.processes.stacks import thread_stack
from dropr_core.system.log_fields import about

BLOCKED = 5.0
"""Seconds without a turn of the loop after which the log says what blocks it; then after twice as long, and so on."""

LAST = 2.0
"""Seconds that cancelled handlers have to end, when the worker has to."""

Settled = tuple[Received, Settlement, float]
"""A message, what becomes of it, and how many seconds it took."""


class HandlerTasks:
    """At most ``places`` messages at once, from `start` until `take` gives none."""

    def __init__(
        self,
        places: int,
        handlers: Mapping[str, AsyncHandler],
        timeouts: Mapping[str, float | None],
        at_work: AtWork,
        take: Callable[[], Received | None],
        done: Callable[[Received, Settlement, float], None],
        broken: Callable[[BaseException], None],
        log: logging.Logger,
    ) -> None:
        """``done`` is told what becomes of a message, and how many seconds it took; ``broken`` what ended a thread."""
        self._handlers, self._timeouts, self._at_work = handlers, timeouts, at_work
        self._take, self._done, self._broken, self._log = take, done, broken, log
        self._places = threading.Semaphore(places)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Settlement]] = set()
        self._taken = self._settled = 0
        self._coming: collections.deque[Received] = collections.deque()
        """Taken, and on their way to the loop: it may be blocked."""
        self._settling: queue.SimpleQueue[Settled | None] = queue.SimpleQueue()
        self._asked: float | None = None
        """When the loop was asked for a sign of life that has not come yet."""
        self._next_word = BLOCKED
        self._giving_up = False
        self._runner, self._feeder, self._settler = (
            threading.Thread(target=self._guarded, args=(call,), name=f"dropr-worker-{name}", daemon=True)
            for name, call in (("loop", self._run), ("feeder", self._feed), ("settler", self._settle))
        )

    def start(self) -> None:
        """Begin to work."""
        for thread in (self._runner, self._settler, self._feeder):
            thread.start()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            # A worker that takes nothing, or settles nothing, would look alive.
            self._broken(error)

    # ── the three threads ────────────────────────────────────────────────────────────────────────

    def _feed(self) -> None:
        while True:
            self._places.acquire()
            received = self._take()
            if received is None:
                return
            self._taken += 1
            self._coming.append(received)
            if len(self._coming) == 1:  # else the loop has been woken and is still to come for the first of them
                self._loop.call_soon_threadsafe(self._begin_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _settle(self) -> None:
        while (one := self._settling.get()) is not None:
            self._done(*one)
            self._settled += 1
            self._places.release()

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────

    def _begin_all(self) -> None:
        while self._coming:
            received = self._coming[0]
            self._begin(received)
            self._coming.popleft()

    def _begin(self, received: Received) -> None:
        if self._giving_up:  # the loop was blocked until now
            self._settling.put((received, Release(received.claim, counted=False), 0.0))
            return
        channel = received.channel
        handled = call_async(self._handlers[channel], received, self._timeouts.get(channel), self._log)
        task = self._loop.create_task(handled, name=f"{channel}, message {received.id},")
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, received, self._at_work.begin(received, task)))

    def _end(self, received: Received, running: Running, task: "asyncio.Task[Settlement]") -> None:
        self._tasks.discard(task)
        took = self._at_work.end(running)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._broken(error)
                return
            change = task.result()
        elif self._giving_up:
            change = Release(received.claim, counted=False)
        else:
            change = received.make_failure(None, "its handler cancelled itself")
            self._log.warning("%s on %s: its handler cancelled itself; %s", received.id, received.channel,
                              received.outlook(change),
                              extra=about(message=received.id, channel=received.channel))  # fmt: skip
        self._settling.put((received, change, took))

    def _give_up(self) -> None:
        self._giving_up = True
        for task in self._tasks:
            task.cancel()

    # ── looking after it ─────────────────────────────────────────────────────────────────────────

    def not_begun(self) -> list[Received]:
        """What was taken and has not come to the loop yet."""
        return list(self._coming)

    def look(self, now: float) -> "asyncio.Task[Any] | None":
        """Ask the loop for a sign of life, and say what blocks it. The task that does, if one does."""
        if self._asked is None:
            self._asked, self._next_word = now, BLOCKED
            self._loop.call_soon_threadsafe(self._answer)
            return None
        silent = now - self._asked
        if silent < min(BLOCKED, self._next_word):
            return None
        task: asyncio.Task[Any] | None = asyncio.current_task(self._loop)
        if silent >= self._next_word:
            self._next_word *= 2
            self._log.error(
                "the event loop has not turned for %.0f s, and %d messages wait for it: %s blocks it; use the async "
                "form of what it calls, or asyncio.to_thread. It is at:",
                silent, len(self._tasks), "a callback" if task is None else f"the handler of {task.get_name()}",
                extra={"stack": thread_stack(self._runner.ident or 0)},
            )  # fmt: skip
        return task

    def _answer(self) -> None:
        self._asked = None

    def ended(self, seconds: float) -> bool:
        """Wait up to so long for all messages to be handled and settled, once `take` gives none; whether they are."""
        deadline = time.monotonic() + seconds
        if self._feeder.ident is not None:
            self._feeder.join(timeout=seconds)
        while time.monotonic() < deadline and self._busy:
            time.sleep(0.01)
        return not self._busy

    @property
    def _busy(self) -> bool:
        return self._feeder.is_alive() or self._taken != self._settled

    def close(self) -> bool:
        """Cancel what still runs, and end the loop; whether it ended. What was cancelled goes back, not counted. Safe
        twice.
        """
        if self._runner.is_alive():
            with contextlib.suppress(RuntimeError):  # it was closed in this moment
                self._loop.call_soon_threadsafe(self._give_up)
            self.ended(LAST)
            self._settling.put(None)
            self._settler.join(LAST)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._runner.join(LAST)
        elif not self._loop.is_closed():
            self._loop.close()  # it was never started
        return not self._runner.is_alive()


__all__ = ["HandlerTasks"]
