"""Whose receipts are asked for though nothing is awaited: a peer may yet process what it reported as failed.

A message that its receiver buried is ``failed`` here. It still lies there, and somebody may kick it: then its new
receipt shall come home by itself. So receipts are asked for as long as a failed delivery to that peer is known. (One
that the peer refused is failed too, and asks in vain: a long poll a minute until it is wiped, redriven or forgotten.)

Owns which peers that are. Must not know links or how receipts travel.
"""

from dropr_core.api.store_trouble import READ, StoreTrouble
from dropr_core.contracts.storage import Outbox
from dropr_core.model.message import State
from dropr_core.system.clock import Clock

COUNT_EVERY = 60.0
"""Seconds at least between two counts: for a storage that keeps no counters each is a look at everything."""


class LateReceipts:
    """The peers with deliveries that failed. Used by the daemon's one thread."""

    def __init__(self, outbox: Outbox, clock: Clock, trouble: StoreTrouble) -> None:
        self._outbox, self._clock, self._trouble = outbox, clock, trouble
        self._peers: set[str] = set()
        self._stale = True
        self._next_count = 0.0

    def expected_from(self, peer: str) -> bool:
        """Whether there may be something new about deliveries to this peer that failed."""
        now = self._clock.now()
        if self._stale and now >= self._next_count:
            self._next_count = now + COUNT_EVERY
            with self._trouble.guard((READ, "failed deliveries")):
                counts = self._outbox.counts()
                self._peers = {name for (name, _channel), states in counts.items() if states.get(State.FAILED.value)}
                self._stale = False
        return peer in self._peers

    def failed(self, peer: str) -> None:
        """A delivery to this peer failed just now."""
        self._peers.add(peer)

    def look_again(self) -> None:
        """Nothing came for a while: those that failed may be wiped, sent again, or processed by now."""
        self._stale = True
