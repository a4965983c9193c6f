"""What a process keeps open of a topic: its flag, one byte in a file, "somebody may be about to sleep", and the FIFOs
of those who listen, so that they are woken before anything is looked up.

Owns the file, the descriptors that the subscriptions of one process share to raise it (`Flags`), those of who notifies
(`Way`), and when a FIFO is taken for that of a dead subscription. When a flag is raised and cleared, and why no wake-up
is lost, stands in notifier.py.
"""

import contextlib
import errno
import mmap
import os
import time
import weakref
from pathlib import Path

from dropr_core.system.ownership import make_private_directory, open_private

MAX_FLAGS = 256
"""Topics whose flag one process keeps open to raise it, and as many mapped to look at it; each costs a descriptor."""

MAX_MAPPED = 8
"""Of those that it raises so many are mapped, which costs another descriptor: enough for a daemon, or a consumer."""

NAME = "flag"
HIDDEN = "."
"""Begins the names of what is not finished yet; senders pass over them."""

MAX_WAYS = 16
"""Topics to which a notifier keeps the way open."""
MAX_KEPT = 4
"""Listeners of one topic that it keeps open; the others are looked up each time."""

SETTLED = 3.0
"""Seconds after which a directory's date tells of each change that comes: dates have steps, of 2 s at most."""

_TAKE_DOWN = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FIFO = _TAKE_DOWN | os.O_NONBLOCK
_HOW = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Flag:
    """One topic's flag, to be raised by all who hold it. Closed when the last of them lets go."""

    def __init__(self, topic: Path, fd: int | None, *, mapped: bool = False) -> None:
        """Made by `Flags.open`; without ``fd`` the file is opened each time. ``mapped``: it is seen without a call."""
        self._topic, self._fd = topic, fd
        self._seen: mmap.mmap | None = None
        if fd is not None:
            weakref.finalize(self, os.close, fd)
            if mapped:
                with contextlib.suppress(OSError, ValueError):
                    self._seen = mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_READ)

    @property
    def is_raised(self) -> bool:
        """Whether it is seen, without a call, that it was raised already. Whoever clears it from now on notifies all
        that are linked: it is as if we had.
        """
        return self._seen is not None and self._seen[0] != 0

    def set(self) -> None:
        """Say that somebody may be about to sleep. Raises OSError."""
        if self.is_raised:
            return
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
        flag = self._open[topic] = Flag(topic, fd, mapped=len(self._open) < MAX_MAPPED)
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


class _Handle:
    """A descriptor that is closed when nobody holds it any more: so no thread can write into one that another one has
    closed, and no lock is needed, which a fork could leave taken.
    """

    __slots__ = ("fd",)

    def __init__(self, path: str, how: int) -> None:
        self.fd = -1
        self.fd = os.open(path, how)

    def wake(self) -> bool:
        """Whether its listener is still there."""
        try:
            os.write(self.fd, b"!")
        except BlockingIOError:  # full: notified often enough
            return True
        except OSError:
            return False
        return True

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Way:
    """To the listeners of one topic. Safe to use from many threads, and after a fork."""

    def __init__(self, topic: Path) -> None:
        """Raises OSError where there is no such topic."""
        self._topic = str(topic)
        self._flag = _Handle(f"{topic}/{NAME}", _TAKE_DOWN)
        self._known: tuple[int, dict[str, _Handle]] = -1, {}
        """The date of the directory if that tells of all who come, else -1; and who listens. Never changed, but
        replaced: other threads may be going through it.
        """

    def notify(self) -> bool:
        """Clear the flag and wake everybody; False: another topic stands there by now, whose flag is another one.

        Raises OSError.
        """
        with contextlib.suppress(OSError):  # not cleared: the next notification is needless, none is lost
            os.pwrite(self._flag.fd, b"\0", 0)
        seen, known = self._known
        woken = {name: one for name, one in known.items() if one.wake()}
        date = os.stat(self._topic).st_mtime_ns  # noqa: PTH116 - of each message, and paths cost more
        if date != seen or len(woken) != len(known):
            self._look(date, known, woken)
        return os.fstat(self._flag.fd).st_nlink > 0

    def _look(self, date: int, known: dict[str, _Handle], woken: dict[str, _Handle]) -> None:
        """Wake those who are not known, after the directory had this date."""
        tells = date < time.time_ns() - SETTLED * 1e9
        names = [name for name in os.listdir(self._topic)  # noqa: PTH208
                 if name != NAME and not name.startswith(HIDDEN)]  # fmt: skip
        if len(names) != len(known) or len(woken) != len(known) or not woken.keys() >= set(names):
            known = self._wake_others(names, woken)
        self._known = date if tells and len(names) == len(known) else -1, known

    def _wake_others(self, names: list[str], woken: dict[str, _Handle]) -> dict[str, _Handle]:
        """Those that were not known; what is worth to be known from now on."""
        kept = {name: woken[name] for name in names if name in woken}
        for name in names:
            if name not in woken and (one := _open(f"{self._topic}/{name}")) is not None:
                one.wake()
                if len(kept) < MAX_KEPT:
                    kept[name] = one
        return kept


def _open(fifo: str) -> _Handle | None:
    try:
        return _Handle(fifo, _FIFO)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody has it open: its process died
            with contextlib.suppress(OSError):
                os.unlink(fifo)  # noqa: PTH108 - it is no Path
    return None
