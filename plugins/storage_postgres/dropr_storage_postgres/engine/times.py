"""Node time and the time in the tables.

The contract speaks of node time, which differs between machines; the tables keep the database server's clock (seconds
since 1970), which all machines that open one store share. Owns the difference between the two, and how it is measured.

A step of the server's clock must not age a message: as long as a process lives it keeps the difference that it
measured first, apart from what two clocks drift. A clock that is not the system's, as tests have it, is taken for the
server's: whoever sets the time by hand means it for all. Must not know what the times are used for.
"""

import logging
import threading

from dropr_core.system.clock import Clock, SystemClock

DRIFT = 2.0
"""Seconds. A difference that changed by more since it was measured is a step of the server's clock, not a drift."""


class Times:
    """Translates for one process."""

    def __init__(self, clock: Clock, log: logging.Logger, where: str) -> None:
        self._clock, self._log, self._where = clock, log, where
        self._mutex = threading.Lock()
        self._offset: float | None = None if isinstance(clock, SystemClock) else 0.0
        self._fixed = self._offset is not None
        self._told = False

    def measure(self, before: float, server: float, after: float) -> None:
        """The server's clock said ``server`` at some moment between two of node time."""
        if self._fixed:
            return
        found = server - (before + after) / 2
        with self._mutex:
            if self._offset is None or abs(found - self._offset) <= max(DRIFT, after - before):
                self._offset = found
            elif not self._told:
                self._told = True
                self._log.warning(
                    "%s: the server's clock was set by %.0f s, or another server took over; ages and delays of this "
                    "process go on as before, restart it if the new time is the right one",
                    self._where, found - self._offset,
                )  # fmt: skip

    @property
    def offset(self) -> float:
        """Seconds to add to node time."""
        return self._offset or 0.0

    def now(self) -> float:
        """The time in the tables' terms."""
        return self._clock.now() + self.offset

    def stored(self, node: float) -> float:
        """Node time as it stands in the tables."""
        return node + self.offset

    def node(self, stored: float) -> float:
        """What stands in the tables as node time."""
        return stored - self.offset
