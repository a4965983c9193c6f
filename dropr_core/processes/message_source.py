"""Where the threads of a worker process get their messages from.

Owns the one consumer that they share, which holds some ahead: whoever has nothing to do takes the next message, and
while there is none, one of them waits for all. Rests while the store fails. Must not know handlers.
"""

import logging
import select
import threading
from collections.abc import Sequence

from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import WRITE, StoreTrouble
from dropr_core.errors import LeaseLost
from dropr_core.system.wake_up import WakeUp

CLAIMS = (WRITE, "claims")


class MessageSource:
    """Messages of some channels. Threads share it."""

    def __init__(
        self, runtime: Runtime, channels: Sequence[str], trouble: StoreTrouble, log: logging.Logger, label: str
    ) -> None:
        """Nothing is taken before `take`. Raises StoreError."""
        self._runtime, self._trouble, self._log = runtime, trouble, log
        self._consumer = PrefetchingConsumer(runtime, channels, on_error="continue", label=label)
        self._take_held = self._consumer.take_held
        self._turn = threading.Lock()
        """Held by the one thread that waits for messages, or asks a store which has failed."""
        self.stopped = threading.Event()
        """Set when there will be no more."""
        self._waiting = False
        self._wake = WakeUp()

    def take(self) -> Received | None:
        """The next message, as soon as there is one; its handler is to be called. None once there will be no more."""
        if not self.stopped.is_set() and (received := self._take_held()) is not None:
            return received
        while not self.stopped.is_set():
            if isinstance(found := self._look(waits=False), Received):
                return found
            with self._turn:
                if self.stopped.is_set():
                    return None
                found = self._look(waits=True)
                if isinstance(found, Received):
                    return found
                self._waiting = True
                try:
                    self._wait(found)
                finally:
                    self._waiting = False
        return None

    def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            self.stopped.wait(max(0.0, self._trouble.until(CLAIMS) - self._runtime.clock.now()))
        else:
            self._sleep(seconds)

    def waits(self) -> bool:
        """Whether somebody waits for messages: there are none now."""
        return self._waiting

    def holds(self) -> bool:
        """Whether messages are at hand that `take` gives without asking the store."""
        return self._consumer.holds()

    def _look(self, *, waits: bool) -> Received | float | None:
        """A message; or the seconds after which to look again at the latest; or None while the store fails.

        ``waits``: this thread is the one that will wait.
        """
        if self._trouble.rests(CLAIMS) or (self._trouble.fails(CLAIMS) and not waits):
            return None
        with self._trouble.guard(CLAIMS):
            try:
                if waits:
                    self._consumer.prepare()
                return self._consumer.take() or (self._consumer.patience(None) if waits else 0.0)
            except LeaseLost as error:
                self._log.warning("%s", error)
                return 0.0
        return None

    def _sleep(self, seconds: float) -> None:
        poll = select.poll()
        for fd in (self._consumer.fileno(), self._wake.fileno()):
            poll.register(fd, select.POLLIN)
        poll.poll(int(seconds * 1000) + 1)

    def withdraw(self, received: Received) -> None:
        """This process ends now, and with it the handling of this message: the attempt does not count."""
        self._consumer.withdraw(received)

    def stop(self) -> None:
        """There is nothing more to take: whoever waits for it comes back. Safe twice."""
        self.stopped.set()
        self._wake.wake()

    def close(self) -> None:
        """Give back what is leased, the attempts not counted; safe twice."""
        if self._wake.fileno() < 0:
            return
        self.stop()
        with self._turn:  # nobody waits any more
            with self._trouble.guard((WRITE, "leases")):  # its lock goes with it, and with the lock its leases
                self._consumer.close()
            self._wake.close()


__all__ = ["MessageSource"]
