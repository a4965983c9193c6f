"""The flush interval: what was committed without a flush gets one soon.

Owns one thread for each half of a store, started with the first such commit and asleep on a
condition whenever nothing is unflushed. For any storage on a disk; must not know what it flushes.
"""

import logging
import threading
import time
from collections.abc import Callable

from dropr_core.errors import Closed, DroprError, StoreGone

RETRY = 1.0
"""Seconds to wait after a flush that failed."""


class Flusher:
    """Calls ``flush`` at most ``interval`` seconds after `mark`."""

    def __init__(self, interval: float, flush: Callable[[], None], log: logging.Logger, name: str) -> None:
        self._interval, self._flush, self._log, self._name = interval, flush, log, name
        self._changed = threading.Condition()
        self._dirty = False
        self._since = 0.0
        """When the first commit was made that no flush has followed."""
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def dirty(self) -> bool:
        """Whether something was committed that no flush has followed yet."""
        return self._dirty

    def mark(self) -> None:
        """Something was committed without a flush. Call it after the commit."""
        if self._dirty:  # cleared only before a flush begins, so that flush covers this commit
            return
        with self._changed:
            self._since = time.monotonic()
            self._dirty = True
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def clean(self) -> None:
        """A flush is about to begin: what it covers needs no other."""
        self._dirty = False

    def covered(self, since: float) -> None:
        """Another commit, which began at ``since`` (``time.monotonic()``), was flushed, and with it all that came
        before: only what was committed later still needs a flush.
        """
        with self._changed:
            self._since = max(self._since, since)

    def _run(self) -> None:
        pause, failing = self._interval, False
        while True:
            with self._changed:
                while not self._closing and (left := self._left(pause)) != 0.0:
                    self._changed.wait(left)
                if self._closing:
                    return
                self._since = time.monotonic()
            try:
                self._flush()
                if failing:
                    self._log.info("%s: flushes go through again", self._name)
                pause, failing = self._interval, False
            except (StoreGone, Closed):
                return
            except (DroprError, OSError) as error:  # whatever it is, the thread must go on
                if not failing:
                    self._log.warning(
                        "%s: flush failed, tried again every %g s from now on: %s", self._name, RETRY, error
                    )
                self._since = time.monotonic()
                self._dirty = failing = True
                pause = RETRY

    def _left(self, pause: float) -> float | None:
        """Seconds until a flush is due; None if nothing is unflushed, perhaps because somebody else has flushed."""
        return max(0.0, self._since + pause - time.monotonic()) if self._dirty else None

    def close(self) -> None:
        """Stop the thread. What is still dirty is the caller's to flush. Safe twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)
