"""Flushing the write-ahead log of a file without a transaction.

Owns one descriptor of the log. Why its `fdatasync` flushes all that any process has committed (SQLite, "Write-Ahead
Logging" and `wal.c`): a commit without a sync has written its frames to the log when it returns. There they stand until
the log begins anew, and it does so only after a checkpoint, which syncs the log, copies, and syncs the database file,
also with synchronous=NORMAL. What follows the last commit in the log is garbage to whoever reads it.

A transaction for the same would keep everybody else from writing for as long as the disk takes.

The descriptor is kept: the kernel reports an error of the disk once to each that was open then, and one that is opened
later would be told that all is well. SQLite takes no POSIX locks on the log, so none is lost when it is closed.
"""

import os
import threading
from pathlib import Path


class Wal:
    """The log of one file, as long as a connection of this process keeps it from being removed."""

    def __init__(self, path: Path) -> None:
        """``path``: of the database. Nothing is opened yet."""
        self._path = f"{path}-wal"
        self._lock = threading.Lock()
        self._fd: int | None = None

    def open(self) -> None:
        """Use the log that is there now: whoever calls has synced it, its name included, and keeps it there. Raises
        OSError.
        """
        with self._lock:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def sync(self) -> bool:
        """Put all that was committed on stable storage; False: by this it cannot be done. Raises OSError."""
        with self._lock:
            if self._fd is None:
                return False
            try:  # another descriptor for the same open file: the sync takes long, and `close` must not wait for it
                fd = os.dup(self._fd)
            except OSError:  # out of handles
                return False
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        return True

    def close(self) -> None:
        """The log may be removed, or be another one: forget it. Safe twice."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
