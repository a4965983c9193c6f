"""The child's side of being watched: heart-beats, the lifeline, and when to ask for a fresh start.

Owns the environment variables by which an angel hands a name and two pipes to its child. On the first
the child writes a byte on each turn of its main loop, so that a process that lives but is stuck is
told from one that works. The second is never written: it ends when the angel dies, however it dies,
so that a child without an angel drains and makes room for the next one.
Must not know what the process does, nor how the angel judges it.
"""

import os
import select
import stat
import time
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import frozen

BEAT_VARIABLE = "DROPR_HEARTBEAT_FD"
LIFELINE_VARIABLE = "DROPR_LIFELINE_FD"
INTERVAL_VARIABLE = "DROPR_HEARTBEAT_INTERVAL"
NAME_VARIABLE = "DROPR_CHILD_NAME"
"""What the angel calls this process: `worker-2` among several of one role."""

BEAT, READY = b".", b"R"
"""The bytes on the beat pipe: one more turn was done; start-up is over."""

UNWATCHED_INTERVAL = 3600.0
"""Seconds. What ``interval`` says when nobody listens: long, yet good as a time-out for select()."""


class Heartbeat:
    """Tells the angel that the main loop turns. Does nothing at all when there is no angel.

    Call ``ready()`` once after start-up, ``beat()`` on each turn (and between the steps of a long
    start-up), let no turn wait longer than ``interval`` seconds, and drain and exit when
    ``lifeline`` becomes readable or ``orphaned`` is true. Nothing here ever blocks or raises.
    """

    def __init__(self, beat_fd: int | None, lifeline_fd: int | None, interval: float, name: str = "") -> None:
        self.name = name
        """What the angel calls this process; empty without one."""
        self.interval = interval
        """Seconds. A main loop should turn at least this often."""
        self._beat_fd, self._lifeline_fd = beat_fd, lifeline_fd
        self._orphaned = False
        self._last = -float("inf")

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Self:
        """Take over the pipes that the angel left in the environment (default ``os.environ``).

        The variables are removed and the pipes are kept from this process's own children: the numbers
        would mean other files there.
        """
        environ = os.environ if environ is None else environ
        beat_fd = _take_pipe(environ.pop(BEAT_VARIABLE, ""))
        lifeline_fd = _take_pipe(environ.pop(LIFELINE_VARIABLE, ""))
        name = environ.pop(NAME_VARIABLE, "")
        try:
            interval = float(environ.pop(INTERVAL_VARIABLE, ""))
        except ValueError:
            interval = UNWATCHED_INTERVAL
        if beat_fd is None or not 0 < interval <= UNWATCHED_INTERVAL:
            interval = UNWATCHED_INTERVAL
        return cls(beat_fd, lifeline_fd, interval, name)

    @property
    def watched(self) -> bool:
        """Whether an angel listens, or listened."""
        return self._beat_fd is not None

    @property
    def lifeline(self) -> int | None:
        """A file descriptor that becomes readable (at its end) when the angel dies; only to be polled."""
        return self._lifeline_fd

    @property
    def orphaned(self) -> bool:
        """Whether there was an angel and it is gone: finish what is begun, then exit."""
        if not self._orphaned and self._lifeline_fd is not None:
            poll = select.poll()
            poll.register(self._lifeline_fd, select.POLLIN)
            self._orphaned = bool(poll.poll(0))
        return self._orphaned

    def beat(self) -> None:
        """Say that one more turn was done. Cheap: of a fast loop's beats only a few are written."""
        now = time.monotonic()
        if now - self._last >= self.interval / 4:
            self._last = now
            self._write(BEAT)

    def ready(self) -> None:
        """Say that start-up is over and work begins."""
        self._write(READY)

    def close(self) -> None:
        """Give the pipes back. Safe twice. A child that works on after this counts as stuck."""
        for fd in (self._beat_fd, self._lifeline_fd):
            if fd is not None:
                os.close(fd)
        self._beat_fd = self._lifeline_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, byte: bytes) -> None:
        if self._beat_fd is None:
            return
        try:
            os.write(self._beat_fd, byte)
        except BlockingIOError:  # the angel is late in reading: what is in the pipe speaks for us
            pass
        except OSError:  # nobody holds the other end any more
            self._orphaned = True


def _take_pipe(text: str) -> int | None:
    """The file descriptor named by ``text`` if it is a pipe of ours, else None."""
    try:
        fd = int(text)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):  # a stale number, by now of some other file
            return None
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
    except (ValueError, OSError, OverflowError):
        return None
    return fd


def resident_bytes(pid: int | None = None) -> int | None:
    """Main memory that a process (default: this one) holds, in bytes; None where nobody can tell."""
    try:
        statm = Path(f"/proc/{'self' if pid is None else pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


@frozen
class RecycleLimits:
    """When a long-running child should drain and exit with ``Exit.RECYCLE`` for a fresh start."""

    max_count: int | None = None
    """Pieces of work in one life."""
    max_memory: int | None = None
    """Bytes of main memory."""

    def due(self, count: int) -> str:
        """Why it is time after ``count`` pieces of work, as half a sentence; empty when it is not."""
        if self.max_count is not None and count >= self.max_count:
            return f"{count} done, the limit for one life is {self.max_count}"
        if self.max_memory is not None:
            held = resident_bytes()
            if held is not None and held > self.max_memory:
                return f"{mebibytes(held)} of memory held, the limit is {mebibytes(self.max_memory)}"
        return ""


def mebibytes(count: int) -> str:
    """A count of bytes for people."""
    return f"{count / 2**20:.0f} MiB"
