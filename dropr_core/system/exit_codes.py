"""Exit codes by name, with the meanings of sysexits.h.

Owns the numbers and how to say them to a person. They are a small protocol between processes: the
angel decides by them what happens to a child that ended. Must not know any other module of dropr.
"""

import signal
from enum import IntEnum


class Exit(IntEnum):
    """How a dropr process ends."""

    OK = 0
    """Done, or stopped because it was asked to."""

    FAILED = 1
    """The command did its work and the answer is no (a check found faults, a wait ran out)."""

    USAGE = 64
    """The command line cannot work as it stands."""

    DATA = 65
    """What was read (a body, an envelope, an import) is not what it should be."""

    NO_INPUT = 66
    """A file that was named is not there or cannot be read."""

    UNAVAILABLE = 69
    """Something else is in the way: a peer, or another process that holds the store. Later."""

    SOFTWARE = 70
    """A bug in dropr or in a plugin."""

    OS_ERROR = 71
    """The system refused: no memory, no process, no file descriptor. Later."""

    CANTCREAT = 73
    """A file or directory cannot be created."""

    IO_ERROR = 74
    """The disk failed to read or write."""

    TEMPFAIL = 75
    """Nothing is wrong with the work: start me again at once."""

    RECYCLE = 75
    """The same number, as a long-running child means it: I am worn, start a fresh one."""

    PROTOCOL = 76
    """The other side said something that is not dropr."""

    NO_PERMISSION = 77
    """The user that runs this may not do it."""

    CONFIG = 78
    """The configuration is wrong. Starting again cannot help before somebody corrects it."""


_WORDS = {
    Exit.OK: "ended by itself",
    Exit.USAGE: "wrong command line",
    Exit.UNAVAILABLE: "something it needs is not available",
    Exit.SOFTWARE: "internal error",
    Exit.OS_ERROR: "refused by the system",
    Exit.CANTCREAT: "cannot create a file",
    Exit.IO_ERROR: "input/output error",
    Exit.RECYCLE: "asks for a fresh start",
    Exit.NO_PERMISSION: "not permitted",
    Exit.CONFIG: "wrong configuration",
}

_SIGNALS: dict[int, str] = dict.fromkeys(
    (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
    ", a library or the interpreter gave up; its last words stand above in the log",
)


def describe_exit(code: int) -> str:
    """Say an exit code as people say it. A negative code is the number of the signal that killed it."""
    if code < 0:
        try:
            word = _SIGNALS.get(-code, "")
            return f"killed by {signal.Signals(-code).name}{word}"
        except ValueError:
            return f"killed by signal {-code}"
    word = _WORDS.get(code)  # type: ignore[call-overload]
    return f"exit {code} ({word})" if word else f"exit {code}"
