"""The threads of a worker process, in which handlers are called one message after the other.

Owns the threads. How many of them are at work at once is decided in crew.py. Must not know where messages come from,
how they are settled, nor what takes too long.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from dropr_core.api.handler_call import call
from dropr_core.api.received import Received
from dropr_core.contracts.handler import Handler
from dropr_core.contracts.storage import Settlement
from dropr_core.processes.at_work import AtWork
from dropr_core.processes.crew import SHORT, Crew


class HandlerThreads:
    """So many threads, from `start` until `take` gives no message."""

    def __init__(
        self,
        count: int,
        handlers: Mapping[str, Handler],
        at_work: AtWork,
        crew: Crew,
        take: Callable[[], Received | None],
        done: Callable[[Received, Settlement, float], None],
        broken: Callable[[BaseException], None],
        log: logging.Logger,
    ) -> None:
        """``done`` is told what becomes of a message, and how many seconds it took; ``broken`` what ended a thread."""
        self._handlers, self._at_work, self._take, self._done = handlers, at_work, take, done
        self._crew, self._broken, self._log = crew, broken, log
        self._threads = [
            threading.Thread(target=self._work, name=f"dropr-worker-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        take, done, begin, end = self._take, self._done, self._at_work.begin, self._at_work.end
        handlers, crew, log = self._handlers, self._crew, self._log
        try:
            while (received := take()) is not None:
                running = begin(received)
                try:
                    change = call(handlers[received.channel], received, log)
                finally:
                    took = end(running)
                done(received, change, took)
                if crew.crowded or took > SHORT:
                    crew.handled(took)
        except BaseException as error:
            # A worker without threads would look alive and do nothing.
            self._broken(error)

    def ended(self, seconds: float) -> bool:
        """Wait up to so long for all of them to end; whether they have."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


__all__ = ["HandlerThreads"]
