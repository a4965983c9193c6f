"""The locks of one half: one at a time among threads and processes.

Owns the files ``write.lock`` (held while something is read or written), ``flush<n>.lock`` (held by a process that
flushes a log for several) and ``life.lock`` (shared by everybody who has the half open). Must not know what is done
inside.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from dropr_core.errors import Closed, StoreGone
from dropr_core.storage_kit.guard import Guard
from dropr_core.system.locks import release_in_child
from dropr_storage_fs.files import disk

FLUSHES = 2
"""Processes that flush at once what several write to."""
MARKER = "store-fs.json"
"""The file in the data directory that says that both halves were made."""


class HalfLock:
    """A lock for `with`: inside, no other thread and no other process reads or writes."""

    def __init__(self, directory: Path, guard: Guard, entered: Callable[[], None]) -> None:
        """``entered`` is called whenever the lock between processes has been taken; what it raises goes through."""
        self._directory, self._guard, self._entered = directory, guard, entered
        self._path = str(directory / "write.lock")
        self._mutex, self._depth = threading.RLock(), 0
        self._write_fd = self._life_fd = -1
        self._flush_fds: list[int] = []
        self._inode = (0, 0)
        release_in_child(self)

    def check_there(self) -> None:
        """Raise StoreGone if the directory is not the one that was opened."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 -- every write pays for it
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._inode:
            raise StoreGone(
                f"{self._directory} is gone, or is another store than the one that was opened; put it back, or remove "
                f"{MARKER} beside it to begin with an empty store; then restart"
            )

    # ── one at a time ────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> None:
        self._mutex.acquire()
        self._depth += 1
        try:
            if self._guard.closed:
                raise Closed(f"{self._directory} was closed")
            if self._write_fd >= 0 and self._depth == 1:  # an observer that is told of damage may look, too
                fcntl.flock(self._write_fd, fcntl.LOCK_EX)
                self._entered()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._write_fd >= 0 and self._depth == 0:
            fcntl.flock(self._write_fd, fcntl.LOCK_UN)
        self._mutex.release()

    # ── flushing ─────────────────────────────────────────────────────────────────────────────────

    def queue_for_flush(self) -> tuple[int, bool]:
        """Wait for a place among those who flush a log that several processes write to, of which there are two: one
        flush does not wait for another, and more would only share the disk. Returns the descriptor for `flushed`, and
        whether others flush or have flushed meanwhile. Never called inside the lock. Raises OSError.
        """
        while len(self._flush_fds) < FLUSHES:
            name = f"flush{len(self._flush_fds)}.lock"
            self._flush_fds.append(disk.open_file(self._directory / name, write=True, create=True))
        for fd in self._flush_fds:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return fd, fd != self._flush_fds[0]
        fd = self._flush_fds[os.getpid() % FLUSHES]
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd, True

    @staticmethod
    def flushed(fd: int) -> None:
        """The next one may flush. After `close` there is nothing to give back."""
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)

    # ── opening and closing ──────────────────────────────────────────────────────────────────────

    def open_to_write(self) -> bool:
        """Open the lock files, making them. Returns whether nobody else has the half open; then nobody can open it
        until `share`. Raises OSError.
        """
        self._life_fd = disk.open_file(self._directory / "life.lock", write=True, create=True)
        self._write_fd = disk.open_file(self._directory / "write.lock", write=True, create=True)
        found = os.fstat(self._write_fd)
        self._inode = (found.st_dev, found.st_ino)
        return self._life_alone()

    def share(self) -> None:
        """Others may have the half open, too."""
        fcntl.flock(self._life_fd, fcntl.LOCK_SH)

    def open_to_follow(self) -> bool:
        """Open the lock files to look at a half that others have open; False if nobody has. Raises OSError."""
        self._life_fd = disk.open_file(self._directory / "life.lock")
        if self._life_alone():
            fcntl.flock(self._life_fd, fcntl.LOCK_UN)
            return False
        self._write_fd = disk.open_file(self._directory / "write.lock")
        return True

    def _life_alone(self) -> bool:
        try:
            fcntl.flock(self._life_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self, release: Callable[[], None]) -> None:
        """Nobody is let in any more; ``release`` runs when nobody is inside. Safe twice."""
        with self._mutex:
            self._guard.closed = True
            release()
            self.release()

    def release(self) -> None:
        """Give the locks up: after this, or in a forked child, where they must not outlive the parent."""
        for fd in (self._write_fd, self._life_fd, *self._flush_fds):
            if fd >= 0:
                os.close(fd)
        self._write_fd = self._life_fd = -1
        self._flush_fds = []
