"""Bringing our log in line with what its receiver says that it has.

Owns what each relation of two heads (log_matching.py) does to an outbox: go on, settle, send again, or take new numbers
because this store was rolled back or cloned. Must not know how the head travelled.
"""

from collections.abc import Callable, Mapping, Sequence

from dropr_core.contracts.storage import Delivery, Outbox, Rejection, Selection
from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane
from dropr_core.protocol.log_matching import HeadRelation, compare_heads

Event = Callable[[str, Mapping[str, object]], None]

HOLD = "the peer lost messages that it had accepted (on_peer_reset: hold)"
LOOK = 1000
"""Deliveries that are looked at when a peer may have lost what we only wait for: bounded work."""


class Reconciler:
    """Applies what one answer of one peer says about heads. Made for that answer, and not kept.

    Reads the outbox once, however many lanes the answer names: reading all of them for each would cost their square.
    """

    def __init__(self, outbox: Outbox, peer: str, *, on_reset: str, event: Event, believes_loss: bool = True) -> None:
        """``on_reset``: ``resend`` or ``hold`` when the receiver lost messages. ``believes_loss``: False: a head that
        says so is told to the caller, and does nothing.
        """
        self._outbox, self._peer, self._on_reset, self._event = outbox, peer, on_reset, event
        self._believes_loss = believes_loss
        self._known: dict[Lane, tuple[Head, int]] | None = None
        """Lane → our head and the last number given, of lanes with something to ship and of those applied before."""
        self._awaited: dict[Lane, list[Delivery]] | None = None
        self.stale = False
        """Whether our messages have other numbers by now than those that the answer means: it settles nothing."""

    @property
    def awaited(self) -> Mapping[Lane, Sequence[Delivery]]:
        """`awaited` by lanes. Raises StoreError."""
        if self._awaited is None:
            found: dict[Lane, list[Delivery]] = {}
            for delivery in awaited(self._outbox, self._peer):
                found.setdefault(lane_of(delivery), []).append(delivery)
            self._awaited = found
        return self._awaited

    def apply(self, lane: Lane, theirs: Head, rejected: Sequence[Rejection] = ()) -> HeadRelation:
        """Bring our log in line with what its receiver says. Returns what it meant. Raises StoreError.

        ``rejected``: what it took out for good. A head that is old news does nothing.
        """
        if self.stale:
            return HeadRelation.FOREIGN
        outbox, found = self._outbox, self._find(lane, theirs)
        if found is None:
            return HeadRelation.SAME
        ours, last = found
        located = None if theirs == ours else outbox.locate(lane, theirs.sequence)
        meaning = compare_heads(theirs, ours, last, located)
        details: dict[str, object] = {"lane": str(lane), "peer": lane.peer, "theirs": str(theirs), "ours": str(ours)}
        if meaning is HeadRelation.SAME:
            outbox.clear_in_flight(lane)
        elif meaning is HeadRelation.AHEAD:
            outbox.settle(lane, theirs, [one for one in rejected if one.sequence <= theirs.sequence])
            self._note(lane, theirs, last)
        elif meaning is HeadRelation.LOST and not self._believes_loss:
            return meaning
        elif meaning is HeadRelation.LOST:
            if self._on_reset == "hold":
                outbox.hold(lane.peer, HOLD)
            else:
                details["again"] = outbox.rewind(lane, theirs)
                self._note(lane, theirs, last)
            self._event("peer_reset", details)
        else:
            details["store"] = outbox.renumber().hex()
            self.stale = True
            self._event("rolled_back", details)
        return meaning

    def _find(self, lane: Lane, theirs: Head) -> tuple[Head, int] | None:
        """Our head and last number; None: nothing follows from theirs."""
        if self._known is None:
            self._known = {stats.lane: (stats.head, stats.last) for stats in self._outbox.lanes(self._peer)}
        known = self._known.get(lane)
        if known is not None:
            return known
        # Nothing to ship, but a receiver that was wiped may have lost what we await a receipt for.
        lost = [delivery for delivery in self.awaited.get(lane, ()) if delivery.sequence > theirs.sequence]
        if not lost:
            return None
        ours = max(Head(delivery.sequence, delivery.id) for delivery in lost)
        return ours, ours.sequence

    def _note(self, lane: Lane, head: Head, last: int) -> None:
        assert self._known is not None
        self._known[lane] = head, last


def awaited(outbox: Outbox, peer: str) -> list[Delivery]:
    """Deliveries that the peer has accepted and whose receipt has not come home (the first of them)."""
    page = outbox.scan(Selection(states=frozenset({State.ACCEPTED}), peer=peer, live=True), limit=LOOK)
    return [delivery for _cursor, delivery in page if delivery.receipt]


def lane_of(delivery: Delivery) -> Lane:
    """The lane that a delivery belongs to."""
    return Lane(delivery.peer, delivery.channel, delivery.priority)
