"""What does not happen while code is loaded: the process does not fork, and Python does not look for cycles of garbage.

Owns `unforked`, for whatever is imported after the start, and the switches of the collector, which looks rarely in the
processes that are dropr's own. Must not know what is loaded, or what a process does.
"""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PATIENCE = 10.0
"""Seconds that a fork waits for other threads. An import may take for ever, if it waits for the one that forks."""

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


class _Unforked:
    """Around what a fork must not cut in two: it waits until no other thread is in it. Costs half a microsecond.

    First of all around imports that are not at the top of a file. Python never gives up the lock of a module that
    another thread was importing when the process forked: a child that imports this module hangs for ever, and what is
    half there of it would be of no use to it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # with an RLock: a signal's handler may fork anywhere in here
        self._depth: dict[int, int] = {}
        """Of threads inside. They do not exclude each other: one may wait for what another one imports."""
        self._followers: list[Follower] = []
        self._told: list[Follower] = []
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def follow(self, one: "Follower") -> None:
        """Tell it of forks from now on: also of one that waits at this moment, for the import that brought it."""
        self._followers.append(one)

    @property
    def inside(self) -> bool:
        """Whether this thread is."""
        return threading.get_ident() in self._depth

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._depth[me] = self._depth.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._depth[me] -= 1
            if not self._depth[me]:
                del self._depth[me]
                self._changed.notify_all()

    def _before(self) -> None:
        self._changed.acquire()  # no thread comes in until the process has forked
        me = threading.get_ident()
        self._changed.wait_for(lambda: not self._depth.keys() - {me}, PATIENCE)
        self._told = list(self._followers)
        for one in self._told:
            one.before_fork()

    def _in_parent(self) -> None:
        try:
            for one in self._told:
                one.after_fork_in_parent()
        finally:
            self._changed.release()

    def _in_child(self) -> None:
        me = threading.get_ident()
        self._changed = threading.Condition()
        self._depth = {me: self._depth[me]} if self.inside else {}
        for one in self._told:
            one.after_fork_in_child()


class Follower(Protocol):
    """Somebody who does something around forks, when no other thread is in the middle of what must not be cut."""

    def before_fork(self) -> None:
        """In the process that forks."""
        ...

    def after_fork_in_parent(self) -> None:
        """There, afterwards."""
        ...

    def after_fork_in_child(self) -> None:
        """In the new one."""
        ...


unforked = _Unforked()
"""``with unforked: from package import name``, in functions."""
