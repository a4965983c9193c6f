"""What the log says of callers that are refused at the door: enough to mend a mistake, too little to fill a disk.

Owns the words for each reason and the rate: the first refusal of a kind is said at once, then at most one line a minute
for each kind, with the number in between. Must not know how a caller is judged.
"""

import logging
import threading

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused
from dropr_core.system.clock import Clock

EVERY = 60.0
"""Seconds between two lines about refusals of one kind."""

ADVICE = {
    "unknown_peer": "if it may come in, name it under peers: with the pair's key; it must call this node by its name",
    "bad_signature": "compare the key of the pair on both sides (peers: NAME: key:)",
    "too_big": "its node may send larger batches than limits: here allow",
}
"""What a person can do about it; the other codes are told without."""


class RefusalLog:
    """Counts refusals and says some. Safe from many threads."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def note(self, refusal: Refused, caller: Caller) -> None:
        """A caller was refused."""
        now = self._clock.now()
        with self._lock:
            if now - self._told.get(refusal.code, -EVERY) < EVERY:
                self._silent[refusal.code] = self._silent.get(refusal.code, 0) + 1
                return
            self._told[refusal.code] = now
            more = self._silent.pop(refusal.code, 0)
        others = f" (and {more} more since the last line of this kind)" if more else ""
        advice = f"; {ADVICE[refusal.code]}" if refusal.code in ADVICE else ""
        self._log.warning("refused a caller at %s: %s%s%s", caller.address, refusal.reason, others, advice)
