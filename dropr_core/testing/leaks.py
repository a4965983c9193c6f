"""What a test leaves behind: descriptors, sockets, threads.

Owns how they are counted, and that who is only slow to end is given a moment. Must not know what was tested.
"""

import gc
import threading
import time
from pathlib import Path

import attrs

from dropr_core.testing.contract import ABANDONED

MOMENT = 30.0
"""Seconds in which a closed thing must have let go of what it held."""


@attrs.frozen
class Holdings:
    """What this process holds: descriptor → what it leads to, and its living threads."""

    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]


def holdings() -> Holdings:
    """What is held now; without descriptors where the system does not list them."""
    found = {}
    try:
        for path in Path("/proc/self/fd").iterdir():
            try:
                found[int(path.name)] = str(path.readlink())
            except OSError:
                continue  # the descriptor of the listing itself
    except OSError:
        pass
    living = (thread for thread in threading.enumerate() if thread.name != ABANDONED)
    return Holdings(found, frozenset(living))


def leaked(before: Holdings) -> list[str]:
    """What is held now and was not before, in words; waits a moment for what is about to end."""
    ends = time.monotonic() + MOMENT
    while found := _more(before, holdings()):
        gc.collect()  # what only the collector closes is a leak all the same, but not one of this test
        if time.monotonic() >= ends:
            break
        time.sleep(0.01)
    return found


def _more(before: Holdings, now: Holdings) -> list[str]:
    descriptors = [
        f"descriptor {number}: {target}"
        for number, target in sorted(now.descriptors.items())
        if before.descriptors.get(number) != target
    ]
    return descriptors + sorted(f"thread {thread.name}" for thread in now.threads - before.threads)


__all__ = ["Holdings", "holdings", "leaked"]
