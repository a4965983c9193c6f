"""The turns of a main loop, to be seen from outside: whether a process goes on, or only exists.

Owns a page of memory that a process keeps while it lives: since when its loop works, or until when it sleeps.
It is a file without a name (memfd), which others of the same user read below /proc: no disk is written, nobody wakes
up for it. Must not know what the loop does, nor what its silence means. Only on Linux; elsewhere nothing is shown.
"""

import contextlib
import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

NAME = "dropr-turns"
FILES = 256
"""Open files of a process that are looked at for the page: it is made early, so its number is low."""
_PAGE = struct.Struct("<Bdd")
_STOPPING = 2
_ASLEEP = 1


class Turn(NamedTuple):
    """Where a main loop is."""

    since: float
    """Seconds that it has worked by now, or slept."""
    late: float
    """Seconds for which it works without a pause, or should have woken up; 0: nothing is wrong."""
    stopping: bool
    """Whether it was told to stop, and drains."""


class Turns:
    """This process' page. One thread writes; closed with the process."""

    def __init__(self) -> None:
        self._page: mmap.mmap | None = None
        self._stopping = 0
        with contextlib.suppress(OSError, AttributeError, ValueError):  # no Linux, or no descriptor left
            fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
            try:
                os.ftruncate(fd, mmap.PAGESIZE)
                self._page = mmap.mmap(fd, mmap.PAGESIZE)  # which has a descriptor of its own
            finally:
                os.close(fd)
        self.awake()

    def awake(self) -> None:
        """The loop works from now on."""
        self._write(0, 0.0)

    def asleep(self, seconds: float) -> None:
        """It sleeps, so long at most."""
        self._write(_ASLEEP, max(0.0, seconds))

    def stopping(self) -> None:
        """From now on it drains."""
        self._stopping = _STOPPING

    def _write(self, kind: int, seconds: float) -> None:
        if self._page is not None:
            now = _now()
            _PAGE.pack_into(self._page, 0, kind | self._stopping, now, now + seconds)

    def close(self) -> None:
        """Give the page back; safe twice."""
        page, self._page = self._page, None
        if page is not None:
            page.close()


def turn_of(pid: int) -> Turn | None:
    """Where the main loop of a process is; None if it does not show that, or is not ours to look at."""
    directory = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(OSError, ValueError, struct.error):
        for number in sorted(map(int, os.listdir(directory)))[:FILES]:  # noqa: PTH208 - names are wanted
            with contextlib.suppress(OSError):
                if os.readlink(directory / str(number)).startswith(f"/memfd:{NAME}"):  # noqa: PTH115
                    with (directory / str(number)).open("rb", buffering=0) as file:
                        return _read(file.read(_PAGE.size))
    return None


def _read(data: bytes) -> Turn:
    kind, began, until = _PAGE.unpack(data)
    now = _now()
    late = now - until if kind & _ASLEEP else now - began
    return Turn(max(0.0, now - began), max(0.0, late), bool(kind & _STOPPING))


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP), or is traced; False where nobody can tell."""
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0] in {"T", "t"}
    return False


def _now() -> float:
    """Seconds that stand still while the machine sleeps, the same in every process."""
    return time.monotonic()
