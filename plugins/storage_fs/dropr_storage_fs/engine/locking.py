"""Who may come in: closed, forked, only looking, and one at a time among threads and processes.

Owns the lock of a half. Must not know what is done inside.
"""

import fcntl
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.errors import Closed, StoreGone, StoreReadOnly
from dropr_storage_fs.engine.opening import MARKER
from dropr_storage_fs.files import shared


class Locked:
    """The lock of a half, for `with`."""

    __slots__ = ("_half",)

    def __init__(self, half: "Door") -> None:
        self._half = half

    def __enter__(self) -> None:
        self._half.lock()

    def __exit__(self, *_: object) -> None:
        self._half.unlock()


class Door:
    """The part of `Half` that lets calls in."""

    directory: Path
    context: Context
    words: Any
    _lock_path: str
    _lock_fd: int
    _life_fd: int
    _inode: tuple[int, int]
    _pid: int
    _closed: bool
    _depth: int
    _held: Locked
    _mutex: "threading.RLock"
    _repair: Callable[[], None]

    def enter(self, *, write: bool) -> None:
        """Raise Closed after close or in a forked child, StoreReadOnly for a write to what was opened to look."""
        if self._closed:
            raise Closed(f"{self.directory} was closed")
        if os.getpid() != self._pid:
            raise Closed(f"{self.directory} was opened before a fork; open the node anew in the child process")
        if write and self.context.read_only:
            raise StoreReadOnly(f"{self.directory} was opened only to look")

    def locked(self) -> Locked:
        """Inside, no other thread and no other process reads or writes."""
        return self._held

    def lock(self) -> None:
        """Take the lock; see `locked`."""
        self._mutex.acquire()
        self._depth += 1
        try:
            if self._closed:
                raise Closed(f"{self.directory} was closed")
            if self._lock_fd >= 0 and self._depth == 1:  # an observer that is told of damage may look, too
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
                if self.words[shared.BUSY] and not self.context.read_only:
                    self._repair()
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Give the lock back."""
        self._depth -= 1
        if self._lock_fd >= 0 and self._depth == 0:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        self._mutex.release()

    def _check_there(self) -> None:
        try:
            found = os.stat(self._lock_path)  # noqa: PTH116 -- every write pays for it
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._inode:
            raise StoreGone(
                f"{self.directory} is gone, or is another store than the one that was opened; put it back, or remove "
                f"{MARKER} beside it to begin with an empty store; then restart"
            )

    def remember_forks(self) -> None:
        """A forked child gives its copies of the locks up at once: they must not outlive this process."""
        _inherited.add(self)


# Halves whose locks a forked child must let go of. The set is weak: a half that nobody holds is not in it.
_inherited: "weakref.WeakSet[Door]" = weakref.WeakSet()


def _let_go_in_child() -> None:
    for door in list(_inherited):
        for name in ("_lock_fd", "_life_fd"):
            fd = getattr(door, name)
            if fd >= 0:
                os.close(fd)
                setattr(door, name, -1)


os.register_at_fork(after_in_child=_let_go_in_child)
