"""Waking a thread of this process that sleeps in `poll` or `select`.

Owns a pipe and the safety of its numbers: once a descriptor is closed its number may be that of another file, perhaps
a store's, and whoever wakes a moment later must not write into that. So waking and closing exclude each other, and
waking what has ended does nothing. Must not know who sleeps, nor why.
"""

import contextlib
import os
import threading


class WakeUp:
    """One sleeper's pipe. The sleeper polls `fileno`, and drains it when it is awake; anybody may wake it."""

    def __init__(self) -> None:
        """Raises OSError: no file handle is left."""
        self._pid = os.getpid()
        self._turn = threading.RLock()  # again by the same thread: a signal's handler may wake, or close, too
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """What the sleeper polls for reading; -1 once it is closed."""
        return self._reader

    def signal_fd(self) -> int:
        """For `signal.set_wakeup_fd`, which must be taken back before `close`."""
        return self._writer

    def wake(self) -> None:
        """End the sleep, or the next one. Never waits; safe from any thread, and after `close`.

        In a forked child it does nothing: who sleeps there is a thread of the parent.
        """
        if os.getpid() != self._pid:
            return  # and the lock may be held by a thread that the child does not have
        with self._turn, contextlib.suppress(OSError):  # full: it was said often enough
            if self._writer >= 0:
                os.write(self._writer, b"!")

    def drain(self) -> None:
        """Forget what was said. For the sleeper, before it looks for the reason."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._reader, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Give the descriptors back, when nobody sleeps any more; safe twice, and in a forked child."""
        if os.getpid() != self._pid:
            self._close()
            return
        with self._turn:
            self._close()

    def _close(self) -> None:
        reader, self._reader = self._reader, -1
        writer, self._writer = self._writer, -1
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)


__all__ = ["WakeUp"]
