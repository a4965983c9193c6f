"""The operations of the outbox's journal, and what each does.

Owns their shape on disk: an array that begins with the name (docs/formats/fs.md). Must not know when they are
written.
"""

import msgspec

from dropr_core.model.message import State
from dropr_core.model.names import NO_MESSAGE, Lane, StoreId
from dropr_storage_fs.engine.operations import Common, Record
from dropr_storage_fs.engine.state import LogIntent
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.segment import End, Place
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState, OwnId
from dropr_storage_fs.outbox.state import OutboxState


class MakeLane(Record, tag="lane"):
    """A lane begins."""

    lane: int
    peer: str
    channel: str
    priority: int

    def apply(self, state: OutboxState) -> None:
        """Make it."""
        lane = Lane(self.peer, self.channel, self.priority)
        state.lanes[lane] = state.numbers[self.lane] = LaneState(self.lane, lane)
        state.number = max(state.number, self.lane + 1)
        state.peer(self.peer)


class LaneCounters(msgspec.Struct, array_like=True, gc=False):
    """What a snapshot says of a lane."""

    head: int
    head_id: bytes
    high: int
    base: int
    gaps: list[int]
    duplicate: int
    requeued: list[int]
    voids: list[int]
    gone: int
    gone_bytes: int
    redriven: int
    in_flight: int
    void_runs: list[int] = []
    """The voids as first, count, first, count …; ``voids`` is empty then."""


class FullLane(Record, tag="full_lane"):
    """All of a lane but its deliveries, in a snapshot."""

    lane: int
    counters: LaneCounters
    end: End | None

    def apply(self, state: OutboxState) -> None:
        """Take it over."""
        lane, found = state.numbers[self.lane], self.counters
        lane.head, lane.head_id, lane.high, lane.base = found.head, found.head_id, found.high, found.base
        lane.gaps, lane.duplicate = found.gaps, found.duplicate
        lane.requeued, lane.voids = set(found.requeued), Ranges(found.void_runs)
        lane.voids.update(found.voids)
        lane.gone, lane.gone_bytes = found.gone, found.gone_bytes
        lane.redriven, lane.in_flight = found.redriven, found.in_flight
        if self.end is not None:
            state.ends[self.lane] = self.end


class MoveHead(Record, tag="head"):
    """The peer has committed up to a place; ``count`` and ``size``: what is not queued any more by it and has no state
    of its own.
    """

    lane: int
    place: int
    id: bytes
    count: int
    size: int

    def apply(self, state: OutboxState) -> None:
        """Move it."""
        lane, place = state.numbers[self.lane], self.place
        lane.head, lane.head_id, lane.high = place, self.id, max(lane.high, place)
        lane.gone += self.count
        lane.gone_bytes += self.size
        lane.in_flight = 0
        if lane.requeued:
            lane.requeued = {one for one in lane.requeued if one > place}
        if lane.voids:
            lane.voids.keep_above(place)


class MarkInFlight(Record, tag="offer"):
    """Up to a place deliveries are under way; 0: none is."""

    lane: int
    place: int

    def apply(self, state: OutboxState) -> None:
        """Note it."""
        state.numbers[self.lane].in_flight = self.place


class AddDelivery(Record, tag="known"):
    """A delivery that is not simply queued. ``queued``: it was until now, and is to be counted out."""

    lane: int
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
    segment: int
    offset: int
    queued: bool

    def record(self) -> DeliveryRecord:
        """What it adds."""
        return DeliveryRecord(
            self.lane, self.place, self.id, self.state, self.changed, self.born, self.flags, self.size, self.reason,
            self.result, self.result_type, Place(self.segment, self.offset),
        )  # fmt: skip

    def apply(self, state: OutboxState) -> None:
        """Add it."""
        state.add(self.record())
        if self.queued:
            lane = state.numbers[self.lane]
            lane.gone += 1
            lane.gone_bytes += self.size


class ChangeDelivery(Record, tag="state"):
    """Its next state."""

    lane: int
    place: int
    state: State
    changed: float
    reason: str
    result: bytes | None
    result_type: str

    def apply(self, state: OutboxState) -> None:
        """Change it."""
        record = state.numbers[self.lane].known.get(self.place)
        if record is not None:
            state.change(record, self.state, self.changed, self.reason, self.result, self.result_type)


class MoveRecord(Record, tag="moved"):
    """Its message was copied forward."""

    lane: int
    place: int
    segment: int
    offset: int

    def apply(self, state: OutboxState) -> None:
        """Note where it stands now."""
        record = state.numbers[self.lane].known.get(self.place)
        if record is not None:
            record.at = Place(self.segment, self.offset)


class Forget(Record, tag="forget"):
    """Nothing is known of a delivery any more."""

    lane: int
    place: int

    def apply(self, state: OutboxState) -> None:
        """Forget it."""
        lane = state.numbers[self.lane]
        record = state.remove(lane, self.place)
        if record is not None and self.place > lane.head:
            lane.voids.add(self.place)


class Rewind(Record, tag="rewind"):
    """Back to a head; some of what follows is queued again."""

    lane: int
    place: int
    id: bytes
    again: list[int]

    def apply(self, state: OutboxState) -> None:
        """Go back."""
        lane = state.numbers[self.lane]
        lane.head, lane.head_id, lane.in_flight = self.place, self.id, 0
        for one in self.again:
            record = state.remove(lane, one)
            if record is not None:
                lane.requeued.add(one)
                lane.gone -= 1
                lane.gone_bytes -= record.size


class NewNumbers(msgspec.Struct, array_like=True, gc=False):
    """How a lane is counted from now on."""

    lane: int
    base: int
    gaps: list[int]
    last: int


class Renumber(Record, tag="store"):
    """A new store id, and new numbers for all that is queued."""

    store: bytes
    lanes: list[NewNumbers]

    def apply(self, state: OutboxState) -> None:
        """Take them."""
        state.store = StoreId(self.store)
        for found in self.lanes:
            lane = state.numbers[found.lane]
            lane.base, lane.head, lane.head_id, lane.gaps = found.base, found.base, NO_MESSAGE, found.gaps
            lane.duplicate, lane.in_flight = found.last, 0


class HoldPeer(Record, tag="peer"):
    """Whether shipping to a peer is stopped."""

    name: str
    held: bool
    reason: str

    def apply(self, state: OutboxState) -> None:
        """Note it."""
        peer = state.peer(self.name)
        peer.held, peer.reason = self.held, self.reason


class MoveCursor(Record, tag="cursor"):
    """How far a peer's outcome log was read."""

    name: str
    log: bytes
    cursor: int

    def apply(self, state: OutboxState) -> None:
        """Note it."""
        peer = state.peer(self.name)
        peer.log, peer.cursor = StoreId(self.log), self.cursor


class KeepOwnId(Record, tag="own"):
    """A message with an id that the caller chose."""

    id: bytes
    fingerprint: bytes
    born: float
    places: list[tuple[int, int]]

    def apply(self, state: OutboxState) -> None:
        """Keep it."""
        state.own[self.id] = OwnId(self.fingerprint, self.born, self.places)


class ForgetOwnId(Record, tag="unown"):
    """It may be used again."""

    id: bytes

    def apply(self, state: OutboxState) -> None:
        """Forget it."""
        state.own.pop(self.id, None)


class NoteStaged(Record, tag="staged"):
    """Up to where a staging log is taken in; 0: it is gone."""

    log: str
    upto: int

    def apply(self, state: OutboxState) -> None:
        """Note it."""
        if self.upto:
            state.staged[self.log] = self.upto
        else:
            state.staged.pop(self.log, None)


class SetDue(Record, tag="due"):
    """When a queued delivery expires."""

    lane: int
    place: int
    moment: float

    def apply(self, state: OutboxState) -> None:
        """Note it."""
        state.due[self.lane, self.place] = self.moment


class ClearDue(Record, tag="undue"):
    """It does not any more."""

    lane: int
    place: int

    def apply(self, state: OutboxState) -> None:
        """Forget it."""
        state.due.pop((self.lane, self.place), None)


class CountRedriven(Record, tag="redriven"):
    """So many stand in the lane once more, and were not sent by anybody."""

    lane: int
    count: int

    def apply(self, state: OutboxState) -> None:
        """Count them."""
        state.numbers[self.lane].redriven += self.count


class Void(Record, tag="void"):
    """A frame whose intent was never flushed: nothing of it was promised."""

    lane: int
    first: int
    count: int
    size: int

    def apply(self, state: OutboxState) -> None:
        """Count it out."""
        lane = state.numbers[self.lane]
        if self.first > lane.high:
            lane.voids.add(self.first, self.count)
            lane.gone += self.count
            lane.gone_bytes += self.size


class Intent(Record, tag="intent"):
    """What a call for several lanes stores in one of them."""

    lane: int
    first: int
    rows: list[Row]
    born: float
    transaction: bytes

    def apply(self, state: OutboxState) -> None:
        """Remember it, in recovery."""
        found = LogIntent(self.lane, self.first, self.born, self.rows, self.transaction)
        state.promise(found, self.transaction)


class EraseRemembered(Record, tag="erase"):
    """Some deliveries of a run of version 1 are forgotten; read, and not written any more."""

    number: int
    keys: list[int]

    def apply(self, state: OutboxState) -> None:
        """Forget them."""
        state.erase_processed(self.number, self.keys)


AnyOperation = (
    Common | MakeLane | FullLane | MoveHead | MarkInFlight | AddDelivery | ChangeDelivery | MoveRecord | Forget | Rewind
    | Renumber | HoldPeer | MoveCursor | KeepOwnId | ForgetOwnId | NoteStaged | SetDue | ClearDue | CountRedriven | Void
    | Intent | EraseRemembered
)  # fmt: skip
