"""The standard streams of a command, whatever state its caller left them in.

Owns that descriptors 0 to 2 are always open, so that no file of a store ever gets one of their numbers, that text for
people can always be written, and what becomes of output that nobody can take. Must not know any verb.
"""

import io
import os
import sys

NAMES = ("stdin", "stdout", "stderr")


def open_standard_streams() -> frozenset[str]:
    """Open those that the caller closed onto the null device; returns their names.

    Cron wrappers and daemons close them (``>&-``). Python then has None there, and the next file that is opened would
    take the number, and with it what a library prints.
    """
    closed = set()
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            closed.add(name)
            nowhere = os.open(os.devnull, os.O_RDONLY if name == "stdin" else os.O_WRONLY)
            if nowhere != number:  # cannot be: the lowest free number is taken, and we go upwards
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or reason that is not UTF-8, or a terminal that is not: shown by its escapes, never an error.
            stream.reconfigure(errors="backslashreplace")
    return frozenset(closed)


def forget_output() -> None:
    """Nobody reads: let the interpreter's last flush go nowhere instead of failing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return
