"""The flag of a topic: one byte in a file, "somebody may be about to sleep".

Owns the file, and the descriptors that the subscriptions of one process share to raise it. When it is raised and
cleared, and why no wake-up is lost, stands in notifier.py.
"""

import contextlib
import os
import weakref
from pathlib import Path

from dropr_core.system.ownership import make_private_directory, open_private

MAX_FLAGS = 256
"""Topics whose flag one process keeps open to raise it, and as many mapped to look at it; each costs a descriptor."""

NAME = "flag"
HIDDEN = "."
"""Begins the names of what is not finished yet; senders pass over them."""

_HOW = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Flag:
    """One topic's flag, to be raised by all who hold it. Closed when the last of them lets go."""

    def __init__(self, topic: Path, fd: int | None) -> None:
        """Made by `Flags.open`; without ``fd`` the file is opened each time."""
        self._topic, self._fd = topic, fd
        if fd is not None:
            weakref.finalize(self, os.close, fd)

    def set(self) -> None:
        """Say that somebody may be about to sleep. Raises OSError."""
        if self._fd is not None:
            # A system call and not a store: it also orders this write before the look that follows it.
            os.pwrite(self._fd, b"\1", 0)
            return
        fd = open_flag(self._topic)
        try:
            os.pwrite(fd, b"\1", 0)
        finally:
            os.close(fd)

    def is_current(self) -> bool:
        """Whether it is still the file that senders look at."""
        if self._fd is None:
            return False
        try:
            mine, theirs = os.fstat(self._fd), (self._topic / NAME).lstat()
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)


class Flags:
    """The open flags of one notifier. Safe to use from many threads, and after a fork.

    No lock, which a fork could leave taken: two threads that open the same one at once have a descriptor each.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakValueDictionary[Path, Flag] = weakref.WeakValueDictionary()

    def open(self, topic: Path) -> Flag:
        """The flag of a topic, shared with whoever holds it already. Raises OSError."""
        flag = self._open.get(topic)
        if flag is not None and flag.is_current():
            return flag
        fd = open_flag(topic)
        if flag is None and len(self._open) >= MAX_FLAGS:
            os.close(fd)
            return Flag(topic, None)
        flag = self._open[topic] = Flag(topic, fd)
        return flag


def open_flag(topic: Path) -> int:
    """The topic's flag for reading and writing, made if it is not there. Raises OSError."""
    path = topic / NAME
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, _HOW)
    # One level up at most: where the store's directory is gone, nothing may bring it back by half.
    for directory in (topic.parent, topic):
        make_private_directory(directory)
    # Linked into place when it has its byte: an empty file could not be mapped, and whoever filled it
    # later could wipe out a flag that was set meanwhile.
    hidden = topic / f"{HIDDEN}{os.getpid()}-{os.urandom(6).hex()}"
    fd = open_private(hidden, _HOW | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, b"\0")
        with contextlib.suppress(FileExistsError):
            os.link(hidden, path)
    finally:
        os.close(fd)
        hidden.unlink()
    return os.open(path, _HOW)


def clear_flag(topic: Path) -> None:
    """Take the flag down. Raises OSError if it is not there."""
    fd = os.open(topic / NAME, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(OSError):  # not cleared: the next notification is needless, none is lost
            os.pwrite(fd, b"\0", 0)
    finally:
        os.close(fd)
