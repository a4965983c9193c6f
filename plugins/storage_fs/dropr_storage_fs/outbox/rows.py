"""The shapes of what the outbox knows.

Owns values: a delivery with a state of its own, a lane and how its places are counted, a peer. No operations.
"""

from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

import attrs

from dropr_core.model.message import State
from dropr_core.model.names import NO_MESSAGE, Head, Lane, MessageId, StoreId
from dropr_core.model.states import ENDED
from dropr_storage_fs.files.layout import RECEIPT
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.segment import Place

PLACE_BITS = 48
"""Bits of a place in the key of a delivery."""


@attrs.define(eq=False)
class DeliveryRecord:
    """A delivery with a state of its own: accepted and awaited, or ended."""

    number: int
    place: int
    id: bytes
    state: State
    changed: float
    born: float
    flags: int
    size: int
    reason: str
    result: bytes | None
    result_type: str
    at: Place

    @property
    def receipt(self) -> bool:
        """Whether a receipt was asked for."""
        return bool(self.flags & RECEIPT)

    @property
    def over(self) -> bool:
        """Whether nothing more is done by itself."""
        return self.state in ENDED or (self.state is State.ACCEPTED and not self.receipt)

    @property
    def weight(self) -> int:
        """Bytes of its result and reason."""
        return len(self.result or b"") + len(self.reason)


@attrs.define(eq=False)
class LaneState:
    """One lane. Places are the sequences of its log, which never begin anew; peers count from ``base``."""

    number: int
    lane: Lane
    head: int = 0
    head_id: bytes = NO_MESSAGE
    high: int = 0
    """The highest place that the head ever had."""
    base: int = 0
    gaps: list[int] = attrs.field(factory=list)
    """Places above ``base`` that were no longer queued when the lane was numbered anew: they have no sequence."""
    duplicate: int = 0
    """Up to here everything is sent as a possible duplicate."""
    requeued: set[int] = attrs.field(factory=set)
    voids: Ranges = attrs.field(factory=Ranges)
    """Places above the head that ended and are not in memory."""
    gone: int = 0
    gone_bytes: int = 0
    """What was appended and is not queued any more."""
    redriven: int = 0
    in_flight: int = 0
    """Up to here deliveries may be under way to the peer."""
    known: dict[int, DeliveryRecord] = attrs.field(factory=dict)
    tally: "Counter[State]" = attrs.field(factory=Counter)
    awaiting: int = 0

    def sequence(self, place: int) -> int:
        """The sequence that peers know; 0 for what stands outside of the log."""
        if place <= self.base:
            return 0
        at = bisect_right(self.gaps, place)
        if at and self.gaps[at - 1] == place:
            return 0
        return place - self.base - at

    def given(self, place: int) -> int:
        """The last sequence given at or before a place."""
        return max(0, place - self.base - bisect_right(self.gaps, place))

    def place(self, sequence: int) -> int:
        """The place of a sequence."""
        place = self.base + sequence
        for gap in self.gaps:
            if gap > place:
                break
            place += 1
        return place

    def queued(self, place: int) -> bool:
        """Whether what stands at a place (if anything does) is queued."""
        return (
            place > self.head
            and place not in self.known
            and (place > self.high or place in self.requeued)
            and place not in self.voids
        )

    def plain(self) -> bool:
        """Whether everything above the head is queued."""
        return self.head >= self.high and not self.known and not self.voids

    @property
    def position(self) -> Head:
        """The head as peers see it."""
        if self.head <= self.base:
            return Head(0, NO_MESSAGE)
        return Head(self.given(self.head), MessageId(self.head_id))


@attrs.define(eq=False)
class Peer:
    """What is kept about one peer."""

    held: bool = False
    reason: str = ""
    log: StoreId | None = None
    cursor: int = 0


class OwnId(NamedTuple):
    """What is kept of a message whose id the caller chose."""

    fingerprint: bytes
    born: float
    places: list[tuple[int, int]]
    """(lane, place) of its deliveries."""


def key_of(lane: int, place: int) -> int:
    """How a delivery is sorted in a run."""
    return lane << PLACE_BITS | place
