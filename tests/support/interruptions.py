"""A process that is killed, or a disk that is full, at each step of a piece of work in turn.

Owns what counts as a step: a call of the operating system that changes a file, a statement of SQLite, and some steps
within one. Must not know what the work is.
"""

import errno
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

CALLS = ("write", "pwrite", "fdatasync", "fsync", "ftruncate", "open", "rename", "replace", "unlink", "mkdir", "link")
WRITES = ("write", "pwrite", "mkdir", "link")
GROWTH = 8
"""Pages by which a file grows at most, for the count."""
WITHIN = 40
"""Steps of SQLite's machine between two moments within a statement."""


class Steps:
    """Counts steps in this process; at the one with this number something happens."""

    def __init__(self, number: int, happens: Callable[[], None]) -> None:
        self.count, self._number, self._happens = 0, number, happens

    def step(self) -> None:
        """One more."""
        self.count += 1
        if self.count == self._number:
            self._happens()

    def watch_files(self, names: tuple[str, ...] = CALLS) -> None:
        """Count calls of the operating system, for the rest of this process's life."""
        for name in names:
            setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **more: Any) -> Any:
            self.step()
            return real(*values, **more)

        return call

    def watch_sqlite(self) -> None:
        """Count statements of every connection that is opened from now on."""
        import apsw

        def statement(_cursor: Any, _sql: str, _values: Any) -> bool:
            self.step()
            return True

        def within() -> bool:
            self.step()
            return False

        def hook(connection: Any) -> None:
            connection.exec_trace = statement
            connection.set_progress_handler(within, WITHIN)

        apsw.connection_hooks.append(hook)

    def limit_sqlite(self) -> None:
        """Count pages by which a file may grow; where something happens, it may not grow any more."""
        import apsw

        def hook(connection: Any) -> None:
            pages = connection.pragma("page_count")
            grown = self._number - self.count
            self.count += GROWTH
            if 0 < grown <= GROWTH:
                connection.pragma("max_page_count", max(1, pages + grown - 1))

        apsw.connection_hooks.append(hook)


def die() -> None:
    """As by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def count_steps(work: Callable[[Steps], None]) -> int:
    """How many steps a piece of work has."""
    reading, writing = os.pipe()

    def told(steps: Steps) -> None:
        say = os.write
        work(steps)
        say(writing, str(steps.count).encode())

    assert not in_child(told, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return int(pipe.read())


def chosen(total: int, few: int) -> list[int]:
    """Each step from 1 to ``total`` with DROPR_DEEP in the environment; else a ``few``, evenly, and the last."""
    stride = 1 if os.environ.get("DROPR_DEEP") else max(1, total // few)
    return sorted({*range(1, total + 1, stride), total})


def in_child(work: Callable[[Steps], None], number: int, happens: Callable[[], None] = die) -> bool:
    """Do some work in a forked process, in which something happens at a step; whether it was killed by that."""
    child = os.fork()
    if child == 0:
        try:
            work(Steps(number, happens))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child met an error"
    return os.WIFSIGNALED(status)
