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

LOOK = 1000
"""Deliveries that are looked at when a peer may have lost what we only wait for: bounded work."""


def apply_head(
    outbox: Outbox, lane: Lane, theirs: Head, *, on_reset: str, event: Event, rejected: Sequence[Rejection] = ()
) -> HeadRelation:
    """Bring our log in line with what its receiver says. Returns what it meant.

    ``on_reset``: ``resend`` or ``hold`` when the receiver lost messages. ``rejected``: what it took out for good.
    Lanes are re-read, so a head that is old news does nothing.
    """
    stats = next((stats for stats in outbox.lanes(lane.peer) if stats.lane == lane), None)
    if stats is not None:
        ours, last = stats.head, stats.last
    else:
        # Nothing to ship, but a receiver that was wiped may have lost what we await a receipt for.
        lost = [d for d in awaited(outbox, lane.peer) if lane_of(d) == lane and d.sequence > theirs.sequence]
        if not lost:
            return HeadRelation.SAME
        ours = max(Head(delivery.sequence, delivery.id) for delivery in lost)
        last = ours.sequence
    meaning = compare_heads(theirs, ours, last, outbox.locate(lane, theirs.sequence))
    details: dict[str, object] = {"lane": str(lane), "peer": lane.peer, "theirs": str(theirs), "ours": str(ours)}
    if meaning is HeadRelation.SAME:
        outbox.clear_in_flight(lane)
    elif meaning is HeadRelation.AHEAD:
        outbox.settle(lane, theirs, [one for one in rejected if one.sequence <= theirs.sequence])
    elif meaning is HeadRelation.LOST:
        if on_reset == "hold":
            outbox.hold(lane.peer, "the peer lost messages that it had accepted (on_peer_reset: hold)")
        else:
            details["again"] = outbox.rewind(lane, theirs)
        event("peer_reset", details)
    else:
        details["store"] = outbox.renumber().hex()
        event("rolled_back", details)
    return meaning


def awaited(outbox: Outbox, peer: str) -> list[Delivery]:
    """Deliveries that the peer has accepted and whose receipt has not come home (the first of them)."""
    page = outbox.scan(Selection(states=frozenset({State.ACCEPTED}), peer=peer), limit=LOOK)
    return [delivery for _cursor, delivery in page if delivery.receipt]


def lane_of(delivery: Delivery) -> Lane:
    """The lane that a delivery belongs to."""
    return Lane(delivery.peer, delivery.channel, delivery.priority)
