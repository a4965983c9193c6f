"""What a test leaves behind: descriptors, sockets, threads, child processes.

Owns how they are counted, and that who is only slow to end is given a moment. Must not know what was tested.
"""

import gc
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from dropr_core.testing.contract import ABANDONED

MOMENT = 30.0
"""Seconds in which a closed thing must have let go of what it held."""


@attrs.frozen
class Holdings:
    """What this process holds: descriptor → what it leads to, its living threads, child process → its command."""

    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]
    children: dict[int, str]


def holdings() -> Holdings:
    """What is held now; without descriptors and children where the system does not list them."""
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
    return Holdings(found, frozenset(living), _children())


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
    children = [f"child process {pid}: {now.children[pid]}" for pid in sorted(now.children.keys() - before.children)]
    return descriptors + children + sorted(f"thread {thread.name}" for thread in now.threads - before.threads)


__all__ = ["Holdings", "holdings", "leaked", "listed"]
