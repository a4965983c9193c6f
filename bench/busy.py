"""Processors that are kept busy beside a figure: what it reaches on a machine that has other work.

Owns those processes. Must not know what is measured.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

WORK = "while True: pass"
"""All of one processor, for ever, and nothing else: neither disk nor memory."""


@contextmanager
def kept_busy(processors: int) -> Iterator[list[int]]:
    """Keep so many processors busy meanwhile; gives the process ids."""
    with ExitStack() as stack:
        found = []
        for _ in range(processors):
            child = subprocess.Popen([sys.executable, "-I", "-S", "-c", WORK], stdin=subprocess.DEVNULL)
            stack.callback(child.wait)
            stack.callback(child.kill)
            found.append(child.pid)
        yield found
