"""When Python looks for cycles of garbage: not while code is loaded, and rarely in the processes that are dropr's own.

Owns the switches of the collector. Must not know what is loaded, or what a process does.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, MIDDLE, OLD = 20_000, 20, 50
"""Python's are 700, 10, 10. So many objects that could be part of a cycle, a few MB, are there before it looks."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """No collection until the end, unless there was none before: what is imported stays for the life of the process, so
    that a collection finds nothing, and with many classes it is a tenth of the time. Nor does a later one look
    through what came meanwhile: the first after so many new objects would be one of all there is.

    For the command line, not for a program of the user's that opens a node: what it made before is set aside, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()


def end_uncollected() -> None:
    """For the last moment of a process. At its end Python looks for cycles through everything twice, to call what
    wants to be called when it is thrown away; everything of ours is closed by then, and it is an eighth of
    ``dropr send``.
    """
    gc.freeze()


def collect_rarely() -> None:
    """For a process that carries messages. A batch is thousands of tuples that live for a moment, and Python would look
    for cycles after every 700 of them, and now and then through all that was ever loaded: 6 to 10 % of the processor
    time of daemon and server, who make hardly any cycles.

    Not where functions of the user's run: these may make cycles of gigabytes.
    """
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
