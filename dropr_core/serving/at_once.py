"""Whether a request is answered by the thread that read it, or by another one.

Owns `AtOnce`, the rule. A step to a thread and back is a sixth of the time that a single message takes through an idle
server. So a short request that came alone is answered where it was read, as long as such answers are quick; with the
first slow one, or when requests come on each other's heels, threads do it, which share the syncs of their commits.
Pure: it is told the time.
"""

import time
from collections.abc import Callable

SHORT = 16 << 10
"""Bytes of a request of which the answer is a matter of the disk alone."""
QUICK = 0.005
"""Seconds that an answer may take the thread that reads for all others. Where a sync takes half a millisecond one takes
1.1 to 2.5 ms.
"""
HEELS = 0.0005
"""Who comes sooner than so many seconds after an answer was waiting meanwhile."""
CROWD = 0.1
"""Seconds for which threads do it after requests came together."""


class AtOnce:
    """The rule for one dispatcher. Safe from many threads: a race between two costs no more than a wrong guess."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._away: dict[object, float] = {}
        """What threads answer now, and since when."""
        self._ended = self._alone_from = float("-inf")
        self._expected = 0.0
        """Seconds that an answer takes: what the last ones took, the slowest of them longest remembered."""

    def may(self, size: int) -> bool:
        """Whether a request of so many bytes, read now, is answered here."""
        now = self._clock()
        if self._away or now - self._ended < HEELS:
            self._alone_from = now + CROWD
        return size <= SHORT and now >= self._alone_from and self._expected <= QUICK

    def here(self, answer: Callable[[], None]) -> None:
        """Answer, and note how long it took."""
        began = self._clock()
        try:
            answer()
        finally:
            self._took(began)

    def sent_away(self, request: object) -> None:
        """A thread answers it."""
        self._away[request] = self._clock()

    def came_back(self, request: object) -> None:
        """It has."""
        self._took(self._away.pop(request))

    def _took(self, began: float) -> None:
        self._ended = self._clock()
        took = self._ended - began
        self._expected = max(took, self._expected + (took - self._expected) / 8)
