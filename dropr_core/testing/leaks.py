"""What a test leaves behind: descriptors, sockets, threads, child processes.

Owns how they are counted, and that who is only slow to end is given a moment. Must not know what was tested.
"""

import gc
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from dropr_core.testing.contract import ABANDONED

MOMENT = 30.0
"""Seconds in which a closed thing must have let go of what it held."""


TICK = 0.02
"""Seconds by which the system may be wrong about when a process began."""


@attrs.frozen
class Holdings:
    """What this process holds: descriptor → what it leads to, its living threads, child process → its command."""

    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]
    children: dict[int, str]
    since_boot: float
    """When that was, in seconds; the system says of a process when it began by the same clock."""


def holdings() -> Holdings:
    """What is held now; without descriptors and children where the system does not list them."""
    found, moment = {}, _since_boot()
    try:
        for path in Path("/proc/self/fd").iterdir():
            try:
                found[int(path.name)] = str(path.readlink())
            except OSError:
                continue  # the descriptor of the listing itself
    except OSError:
        pass
    living = (thread for thread in threading.enumerate() if thread.name != ABANDONED)
    return Holdings(found, frozenset(living), _children(), moment)


def _children() -> dict[int, str]:
    """Those that live, and those that ended and were never waited for; not the helpers of `multiprocessing`."""
    found = {}
    for pid in listed(Path("/proc/self/task").glob("*/children")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if "multiprocessing" not in command:
            found[pid] = command[:80] or "it has ended, and nobody waited for it"
    return found


def listed(files: Iterable[Path]) -> Iterator[int]:
    """The numbers in these files. One that is gone, for its thread has ended meanwhile, takes none from the others."""
    for path in files:
        try:
            yield from map(int, path.read_text().split())
        except OSError:
            continue


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def began(pid: int) -> float:
    """When a process began, in seconds since the system did, to a hundredth; infinity if that cannot be read."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(words[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return float("inf")


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
    # The lists of children are no picture of one moment: while another child ends, or a thread, one may be in none of
    # them. What began before the picture was there before, whether it was seen or not.
    born = [pid for pid in sorted(now.children.keys() - before.children) if began(pid) >= before.since_boot - TICK]
    children = [f"child process {pid}: {now.children[pid]}" for pid in born]
    return descriptors + children + sorted(f"thread {thread.name}" for thread in now.threads - before.threads)


__all__ = ["Holdings", "began", "holdings", "leaked", "listed"]
