"""How many lines of a log things of one kind get that may come in thousands.

Owns the rule: the first of a kind is said at once, then at most one line a minute, with the number in between. Must not
know what is said.
"""

import threading
from collections.abc import Hashable

from dropr_core.system.clock import Clock

EVERY = 60.0
"""Seconds between two lines about things of one kind."""

KINDS = 1000
"""Kinds that are remembered; of more, the one that was told longest ago is forgotten, and its next line comes early."""


class LineRate:
    """Counts things of many kinds. Safe from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[Hashable, float] = {}
        self._silent: dict[Hashable, int] = {}

    def note(self, kind: Hashable, count: int = 1) -> int | None:
        """It happened (so many times). None: say nothing; else say it, and that it happened so many times besides since
        the last line of this kind.
        """
        now = self._clock.now()
        with self._lock:
            if now - self._told.get(kind, float("-inf")) < EVERY:
                self._silent[kind] = self._silent.get(kind, 0) + count
                return None
            self._told.pop(kind, None)  # the order is that of the last lines
            self._told[kind] = now
            more = self._silent.pop(kind, 0)
            if len(self._told) > KINDS:
                oldest = next(iter(self._told))
                del self._told[oldest]
                self._silent.pop(oldest, None)
        return more + count - 1


def besides(more: int) -> str:
    """What `LineRate.note` says, for the end of a line; empty if there is nothing besides."""
    return f" (and {more} more since the last line of this kind)" if more else ""
