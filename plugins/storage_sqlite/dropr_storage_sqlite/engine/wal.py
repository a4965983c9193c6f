"""Flushing the write-ahead log of a file without a transaction.

Owns one descriptor of the log. Why its `fdatasync` flushes all that any process has committed (SQLite, "Write-Ahead
Logging" and `wal.c`): a commit without a sync has written its frames to the log when it returns. There they stand until
the log begins anew, and it does so only after a checkpoint, which syncs the log, copies, and syncs the database file,
also with synchronous=NORMAL. What follows the last commit in the log is garbage to whoever reads it.

A transaction for the same would keep everybody else from writing for as long as the disk takes.

The descriptor is kept: the kernel reports an error of the disk once to each that was open then, and one that is opened
later would be told that all is well (`storage_kit.syncs`). SQLite takes no POSIX locks on the log, so none is lost
when it is closed.
"""

import os
import threading
from pathlib import Path

from dropr_core.storage_kit.syncs import Syncs
from dropr_storage_sqlite.engine.sqltypes import Connection

FLUSH = "UPDATE meta SET value = value + 1 WHERE key = 'flush'"


class Wal:
    """The log of one file, as long as a connection of this process keeps it from being removed."""

    def __init__(self, path: Path, syncs: Syncs) -> None:
        """``path``: of the database. Nothing is opened yet."""
        self._path, self._syncs = f"{path}-wal", syncs
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._syncing: dict[int, int] = {}
        """How many threads sync by a descriptor now; `close` does not wait for them, so the last of them closes it."""

    @property
    def is_open(self) -> bool:
        """Whether `sync` can be done by it."""
        return self._fd is not None

    def open(self) -> None:
        """Use the log that is there now: whoever calls has synced it, its name included, and keeps it there. Raises
        OSError.
        """
        with self._lock:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def sync(self) -> bool:
        """Put all that was committed on stable storage; False: it is not open. Raises OSError."""
        with self._lock:
            fd = self._fd
            if fd is None:
                return False
            self._syncing[fd] = self._syncing.get(fd, 0) + 1
        self._syncs.begin()
        try:
            os.fdatasync(fd)
        except OSError:
            self._syncs.met()
            raise
        finally:
            self._syncs.end()
            with self._lock:
                self._syncing[fd] -= 1
                if fd != self._fd and not self._syncing[fd]:
                    del self._syncing[fd]
                    os.close(fd)
        return True

    def close(self) -> None:
        """The log may be removed, or be another one: forget it. Safe twice."""
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None and not self._syncing.get(fd):
                self._syncing.pop(fd, None)
                os.close(fd)


def flush_by_commit(connection: Connection) -> None:
    """What a flush is where the log cannot be synced by itself."""
    connection.execute(FLUSH)
