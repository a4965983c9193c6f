"""Which addresses are refused so often that their new connections are looked at more cheaply, for a while.

Owns how refusals are counted for each address, when they are forgotten, and how many connections may pass all the same.
What "cheaply" means is the transport's own business. Nobody is shut out by it: behind one address may be a whole
company, or this machine. Pure: must not know sockets, clocks or threads.
"""

from collections import OrderedDict
from math import exp2

import attrs

from dropr_core.system.connections import group_of

GRACE = 50
"""Refusals, each counted half after `HALF_LIFE`, that an address has before it is penalised: about 3.5 a second."""
HALF_LIFE = 10.0
"""Seconds."""
MOST = GRACE * 64
"""Refusals that are counted at most: an address is penalised for one minute at most after its last one."""
PASSES, BURST = 20.0, 20.0
"""Connections a second of a penalised address that may pass unjudged, and how many at once."""
ADDRESSES = 1024
"""Addresses that are remembered; of more, the one that was not refused for the longest time is forgotten."""


@attrs.define(eq=False)
class _Record:
    """One address."""

    at: float
    """When the other figures were true."""
    refusals: float = 0.0
    passes: float = attrs.field(factory=lambda: BURST)

    def bring_forward(self, now: float) -> None:
        passed = now - self.at
        if passed < 0.1:  # a flood asks often
            return
        self.refusals *= exp2(-passed / HALF_LIFE)
        self.passes = min(BURST, self.passes + passed * PASSES)
        self.at = now


class Penalties:
    """Those of one listener. Used by one thread."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def refused(self, address: str, now: float) -> bool:
        """A stranger from there was refused, or left without a request; whether the address is penalised from now on.

        False also if it was before.
        """
        group = group_of(address)
        record = self._records.get(group)
        if record is None:
            if len(self._records) >= ADDRESSES:
                self._records.popitem(last=False)
            record = self._records[group] = _Record(now)
        else:
            self._records.move_to_end(group)
            record.bring_forward(now)
        before = record.refusals
        record.refusals = min(MOST, before + 1.0)
        return before < GRACE <= record.refusals

    def penalised(self, address: str, now: float) -> bool:
        """Whether connections from there are to be looked at cheaply."""
        if not self._records:
            return False
        group = group_of(address)
        record = self._records.get(group)
        if record is None:
            return False
        record.bring_forward(now)
        if record.refusals >= GRACE:
            return True
        if record.refusals < 1.0:
            del self._records[group]
        return False

    def passes(self, address: str, now: float) -> bool:
        """Whether one more connection of a penalised address may pass, though it cannot be looked at cheaply."""
        record = self._records.get(group_of(address))
        if record is None:
            return True
        record.bring_forward(now)
        if record.passes < 1.0:
            return False
        record.passes -= 1.0
        return True

    def __len__(self) -> int:
        return len(self._records)
