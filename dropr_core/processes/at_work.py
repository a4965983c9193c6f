"""What a worker is at: which messages, since when, and what is said of those that take too long.

Owns the list of what is being handled now, and the log's lines about a handler that does not end: which, at what
message, and where in its code. Must not know how handlers are run, nor what becomes of their messages.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dropr_core.api.received import Received
from dropr_core.processes.stacks import task_stack, thread_stack
from dropr_core.system.log_fields import about

LONG = 60.0
"""Seconds after which a handler without a `timeout` is named in the log; then after twice as long, and so on."""

GRACE = 5.0
"""Seconds that an async handler has to end once it was cancelled."""

EVERY = 1.0
"""Seconds between two looks at what is being handled; none while nothing is."""


class Running:
    """One message that is being handled."""

    __slots__ = ("next_word", "overdue", "received", "started", "task", "thread")

    def __init__(self, received: Received, started: float, next_word: float, task: "asyncio.Task[Any] | None") -> None:
        self.received, self.started, self.next_word, self.task = received, started, next_word, task
        self.thread = threading.get_ident()
        self.overdue = False
        """Its time was over, and it did not end by that."""

    @property
    def stack(self) -> str:
        """Where it is now."""
        if self.task is None:
            return thread_stack(self.thread)
        running = asyncio.current_task(self.task.get_loop()) is self.task
        return thread_stack(self.thread) if running else task_stack(self.task)


class AtWork:
    """What is being handled in one process. `begin` and `end` are for any thread, the rest for one."""

    def __init__(
        self,
        timeouts: Mapping[str, float | None],
        wake: Callable[[], None],
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeouts``: seconds for each channel; ``wake``: called when work begins after a time without any."""
        self._timeouts, self._wake, self._log, self._clock = timeouts, wake, log, clock
        # Of a thread that is at the end of its time nothing can be done: it is found at once. A task is cancelled then.
        self._first = {channel: LONG if limit is None else limit for channel, limit in timeouts.items()}
        self._running: dict[Running, None] = {}
        self._watched = False
        self.every = min([EVERY, *(limit for limit in timeouts.values() if limit)])
        """Seconds between two calls of `look`."""
        self.stuck = ""
        """Which handler does not end though its time is over, as half a sentence."""

    def begin(self, received: Received, task: "asyncio.Task[Any] | None" = None) -> Running:
        """A handler is called for it, in this thread or by a task in this thread."""
        now = self._clock()
        first = self._first.get(received.channel, LONG)
        grace = GRACE if task is not None and self._timeouts.get(received.channel) else 0.0
        running = Running(received, now, now + first + grace, task)
        self._running[running] = None
        if not self._watched:
            self._watched = True
            self._wake()
        return running

    def end(self, running: Running) -> float:
        """It has returned; after how many seconds."""
        self._running.pop(running, None)
        return self._clock() - running.started

    @property
    def watched(self) -> bool:
        """Whether `look` has to be called again: something was being handled when it was called last."""
        return self._watched

    def now(self) -> list[Running]:
        """What is being handled at this moment, the longest first."""
        return sorted(self._running, key=lambda one: one.started)

    def look(self, blocked: "asyncio.Task[Any] | None" = None) -> None:
        """Say what takes too long. ``blocked``: this task holds up all others, which are not to blame."""
        found = self.now()
        if not found:
            self._watched = False
            # Who has begun since then has seen that it is watched, and woke nobody.
            self._watched = bool(self._running)
            return
        now = self._clock()
        for running in found:
            if now >= running.next_word and (running.task is None or blocked in (None, running.task)):
                self._tell(running, now)

    def _tell(self, running: Running, now: float) -> None:
        received, took = running.received, now - running.started
        limit = self._timeouts.get(received.channel)
        what = f"the handler of {received.channel}"
        if limit is None:
            running.next_word = running.started + 2 * max(LONG, running.next_word - running.started)
            self._say(logging.WARNING, f"{what} is still at {received.id} after {took:.0f} s", running)
            return
        if running.overdue:
            running.next_word = now + LONG
            self._say(logging.WARNING, f"{what} is still at {received.id}, after {took:.0f} s", running)
            return
        running.overdue, running.next_word = True, now + LONG
        how = "cannot be stopped" if running.task is None else "did not end when it was cancelled"
        self.stuck = f"{what} takes longer than its timeout of {limit:g} s and {how}"
        self._say(
            logging.ERROR,
            f"{what} is at {received.id} for {took:.3g} s, longer than its timeout of {limit:g} s, and {how}: this "
            "process takes nothing more, lets the others end, and makes room for a fresh one; the attempt has failed",
            running,
        )

    def _say(self, level: int, text: str, running: Running) -> None:
        received = running.received
        fields = about(message=received.id, channel=received.channel)
        self._log.log(level, "%s; it is at:", text, extra={"stack": running.stack, **fields})


__all__ = ["AtWork", "Running"]
