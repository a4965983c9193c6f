"""The last pictures of a node, as speeds over time: what sparklines are drawn of.

Owns a bounded memory of rates. Must not know who draws.
"""

from collections import deque
from collections.abc import Callable

from dropr_core.monitor.rates import Rates, rates
from dropr_core.monitor.snapshot import Snapshot

LENGTH = 120
"""Speeds that are kept."""


class History:
    """Filled picture by picture."""

    def __init__(self, length: int = LENGTH) -> None:
        self.last: Snapshot | None = None
        """The newest picture."""
        self.rates: Rates | None = None
        """What happened since the one before; None as long as there is but one."""
        self._all: deque[Rates] = deque(maxlen=length)

    def add(self, seen: Snapshot) -> None:
        """One more; those of another node, or in the wrong order, begin anew."""
        if self.last is not None and (seen.node != self.last.node or seen.at <= self.last.at):
            self._all.clear()
            self.rates = None
        elif self.last is not None:
            self.rates = rates(self.last, seen)
            self._all.append(self.rates)
        self.last = seen

    def series(self, speed: Callable[[Rates], float | None]) -> list[float]:
        """One number of each pair of pictures, the oldest first; 0 where it did not exist."""
        return [speed(one) or 0.0 for one in self._all]
