"""Locks that die with their process.

Owns the one primitive behind "only one daemon per store" and "a lease lives as long as its
consumer": an flock on a file, given up by the kernel at the moment the process ends, however it
ends. Must not know who locks what for which purpose.
"""

import contextlib
import fcntl
import os
import struct
import time
import weakref
from pathlib import Path
from typing import Protocol

from dropr_core.errors import Held
from dropr_core.system.ownership import open_private

_BYTES = struct.Struct("@hhqqi")
"""Of `struct flock`: type, from where, start, length, process."""
ASKERS = 0.02
"""Seconds that a lock waits for those who only ask whether it is held."""


class FileLock:
    """An exclusive lock on ``path`` for as long as this object, and this process, lives.

    flock belongs to the open file: two objects in one process exclude each other, as two processes
    do. A forked child closes its copy at once, so that it cannot keep the lock beyond its parent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, purpose: str = "") -> None:
        """Take the lock now, or raise Held naming the holder; also OSError. Writes pid and purpose for people."""
        fd = open_private(self.path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(fd)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
            os.close(fd)
            raise Held(f"{self.path} is held by {holder}; stop that process first") from None
        except BaseException:
            os.close(fd)
            raise
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same, only not who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()} {purpose}\n".encode(), 0)
        self._fd = fd
        _inherited.add(self)

    def release(self) -> None:
        """Give the lock up; safe twice. The file stays: removing it would let two hold "the" lock."""
        fd, self._fd = self._fd, None
        _inherited.discard(self)
        if fd is not None:
            os.close(fd)


def _lock(fd: int) -> None:
    """Take the lock; wait a moment for those who only ask whether it is held. Raises BlockingIOError."""
    give_up = time.monotonic() + ASKERS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise
            time.sleep(0.001)
        else:
            return


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on ``path``. A missing file is not held. Writes nothing, anywhere.

    To ask is to hold a shared lock for a moment: askers do not see each other, and `FileLock.acquire` waits for them.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


# ── single bytes ─────────────────────────────────────────────────────────────────────────────────
# Such a lock is of the open file, not of the process: no other descriptor of the process gives it up by being closed.


def lock_bytes(fd: int, at: int, count: int = 1) -> bool:
    """Whether all these bytes are this open file's now; else nothing has changed."""
    try:
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, at, count)
    except OSError:
        return False
    return True


def unlock_bytes(fd: int, at: int, count: int = 1) -> None:
    """Give them back, those of them that are held. Raises OSError."""
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, at, count)


def are_free(fd: int, at: int, count: int = 1) -> bool:
    """Whether no other open file holds a lock there."""
    try:
        return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, at, count) == fcntl.F_UNLCK
    except OSError:
        return False


def _ask(fd: int, command: int, kind: int, at: int, count: int) -> int:
    """The kind of lock that the answer names."""
    answer = fcntl.fcntl(fd, command, _BYTES.pack(kind, os.SEEK_SET, at, count, 0))
    return int(_BYTES.unpack(answer)[0])


# ── forks ────────────────────────────────────────────────────────────────────────────────────────


class Releasable(Protocol):
    """Something that holds a lock."""

    def release(self) -> None:
        """Give it up; safe twice."""
        ...


# Locks that a forked child must let go of. The set is weak: a lock that nobody holds is not in it.
_inherited: "weakref.WeakSet[Releasable]" = weakref.WeakSet()


def release_in_child(lock: Releasable) -> None:
    """Let every forked child give up its copy of a lock, so that it cannot keep the lock beyond its parent."""
    _inherited.add(lock)


def _release_in_child() -> None:
    for lock in list(_inherited):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
