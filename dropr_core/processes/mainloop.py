"""The main loop that daemon, server and worker share: sleep until something happens.

Owns waking up: by signals, by other threads' posts, by file descriptors, by time; and the beat to
the angel on every turn. Must not know what a turn does.
"""

import collections
import contextlib
import faulthandler
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.system.turns import Turns
from dropr_core.system.wake_up import WakeUp


class MainLoop:
    """Wakes one thread up. Entered by the main thread, it takes SIGTERM, SIGINT and SIGHUP."""

    def __init__(self, heart: Heartbeat) -> None:
        self.stopping = False
        """Set by SIGTERM, SIGINT, or the death of the angel."""
        self.reload = False
        """Set by SIGHUP; the owner clears it."""
        self._heart = heart
        self._turns = Turns()
        self._posts: collections.deque[Callable[[], None]] = collections.deque()
        self._wake = WakeUp()
        self._old: dict[signal.Signals, object] = {}
        self._old_wakeup = -1

    def __enter__(self) -> Self:
        # The wake-up descriptor makes a signal end the sleep even if it comes just before it.
        self._old_wakeup = signal.set_wakeup_fd(self._wake.signal_fd(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._old[number] = signal.signal(number, self._signal)
        if not faulthandler.is_enabled():
            # A library in C may abort the process (the angel starts it again): then the log says where that was.
            with contextlib.suppress(RuntimeError, ValueError, OSError):  # no standard error, or a closed one
                faulthandler.enable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave us it takes back
        self._old.clear()
        signal.set_wakeup_fd(self._old_wakeup)
        self.close()

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` done by the loop's thread, soon. Safe from any thread."""
        self._posts.append(call)
        self.wake()

    def generation(self) -> "Generation":
        """A way to post for those who may be closed while the loop goes on."""
        return Generation(self.post)

    def wake(self) -> None:
        """End the sleep. Safe from any thread and after close."""
        self._wake.wake()

    @property
    def has_posts(self) -> bool:
        """Whether there is something that was posted."""
        return bool(self._posts)

    def run_posts(self) -> int:
        """Do what was posted so far; how many calls that were."""
        count = 0
        for _ in range(len(self._posts)):
            self._posts.popleft()()
            count += 1
        return count

    def beat(self) -> None:
        """Tell the angel, and whoever looks, that this process makes progress, where a turn takes long."""
        self._heart.beat()
        self._turns.awake()

    def sleep(self, timeout: float | None, *fds: int) -> bool:
        """Sleep until a signal, a post, a readable descriptor, or the time (seconds); then beat. Returns whether it
        was not the time.
        """
        self._heart.beat()
        limit = self._heart.interval if timeout is None else min(timeout, self._heart.interval)
        if self._posts or self.stopping:
            limit = min(limit, 0.0 if self._posts else 0.05)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        lifeline = self._heart.lifeline
        for fd in (*fds, *(() if lifeline is None else (lifeline,))):
            poll.register(fd, select.POLLIN)
        # Rounded up: waking a fraction of a millisecond too early would spin until the time has come.
        self._turns.asleep(limit)
        found = poll.poll(max(0, int(limit * 1000 + 0.999)))
        self._turns.awake()
        for fd, _ in found:
            if fd == self._wake.fileno():
                self._wake.drain()
            elif fd == lifeline and self._heart.orphaned:
                self.stopping = True
        return bool(found)

    def _signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stopping = True
            self._turns.stopping()

    def close(self) -> None:
        """Release the pipe; safe twice."""
        self._turns.close()
        self._wake.close()


class Generation:
    """Posts of those that are made together and closed together; after `close` none of them is done any more.

    Whoever is closed may still have answers on their way from other threads: they would find closed stores.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """Made by `MainLoop.generation`."""
        self._post, self._closed = post, False

    def post(self, call: Callable[[], None]) -> None:
        """As `MainLoop.post`."""
        self._post(lambda: self._do(call))

    def _do(self, call: Callable[[], None]) -> None:
        if not self._closed:
            call()

    def close(self) -> None:
        """Drop what was posted and what will be. For the loop's thread; safe twice."""
        self._closed = True
