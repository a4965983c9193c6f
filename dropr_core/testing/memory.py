"""What a plugin keeps of memory: what stays after each of many rounds, and the most that one call takes.

Owns `kept` and `peak`, by the interpreter's own count (tracemalloc), which says the same on every machine. What a
library in C takes for itself is not seen. The count is that of the whole process, in which other threads may be at
work, and caches that were there before are filled anew: `kept` tells both from a leak. Must not know what is measured.
"""

import gc
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WINDOWS = 4
"""Stretches of rounds, each of which must have grown: what grows once (a table, a cache that is full) is no leak."""
PAIRS, QUIET = 8, 0.05
"""Where all of these grew, so many more follow, each with a stretch in which nothing is called and which lasts as long
(at least so many seconds): what grows then is somebody else's."""
PER_ROUND, AT_LEAST = 32, 2048
"""Bytes: less than the first for each round, or than the second in a stretch, is no leak."""

SETTLING = 50
"""Times at most that the figure is asked for until it stands still."""


@contextmanager
def _counting() -> Iterator[None]:
    """The interpreter counts what is allocated; nothing is logged, since pytest keeps what is."""
    already, disabled = tracemalloc.is_tracing(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    if not already:
        tracemalloc.start()
    try:
        yield
    finally:
        if not already:
            tracemalloc.stop()
        logging.disable(disabled)


@contextmanager
def _frozen() -> Iterator[None]:
    """What is there already is not looked through each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _now() -> int:
    """What is held when those have ended that are about to: the figure that comes twice."""
    before, figure = -1, _collected()
    for _ in range(SETTLING):
        if figure == before:
            break
        time.sleep(0.01)
        before, figure = figure, _collected()
    return figure


def _collected() -> int:
    # Python remembers the names that were looked up on a class: up to 4,096 of them, and no leak.
    forget = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache  # noqa: SLF001 - meant for this
    forget()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def kept(call: Callable[[], Any], rounds: int, warm_up: int) -> str:
    """What ``call`` leaves in memory each time, and where it was allocated, in words; empty if nothing.

    ``rounds``: calls in each of `WINDOWS` stretches. ``warm_up``: calls before anything is counted.
    """
    least = max(AT_LEAST, PER_ROUND * rounds)
    with _counting(), _frozen():
        _run(call, warm_up)
        before, smallest = _now(), sys.maxsize
        for stretch in range(WINDOWS + PAIRS):
            began = time.monotonic()
            _run(call, rounds)
            took, after = time.monotonic() - began, _now()
            grown, before = after - before, after
            if stretch >= WINDOWS:
                time.sleep(max(QUIET, took))
                before = _now()
                grown -= 2 * max(0, before - after)  # twice: others do not allocate evenly
            if grown < least:
                return ""
            smallest = min(smallest, grown)
        first = tracemalloc.take_snapshot()
        _run(call, rounds)
        gc.collect()
        places = [one for one in tracemalloc.take_snapshot().compare_to(first, "lineno") if one.size_diff > 0]
    mine = [one for one in places if one.traceback[0].filename not in {__file__, tracemalloc.__file__}]
    where = "; ".join(f"{one.traceback}: {one.size_diff:,} bytes in {one.count_diff} pieces" for one in mine[:3])
    return (
        f"{smallest // rounds:,} bytes stay after each of {rounds} rounds, again and again; the last ones from {where}"
    )


def _run(call: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        call()


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that one call held at a time, beyond what was there. What it raises is the caller's business."""
    with _counting():
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            call()
        finally:
            most = tracemalloc.get_traced_memory()[1]
    return most - before


__all__ = ["kept", "peak"]
