"""What the outbox knows in memory: lanes, and of deliveries only those that are not simply queued.

Owns the operations of the outbox's journal and what each does. A delivery that just waits is nowhere but in its
lane's log. Must not know files.
"""

from collections.abc import Sequence
from typing import Any

from dropr_core.model.message import State
from dropr_core.model.names import NO_MESSAGE, Lane, StoreId, make_store_id
from dropr_storage_fs.files import layout
from dropr_storage_fs.files.layout import EXPIRES, OWN, Frame, Record, Row
from dropr_storage_fs.files.log_recovery import End, Place
from dropr_storage_fs.outbox.rows import Known, LaneState, Peer

Op = Sequence[Any]


class OutboxState:
    """See module."""

    def __init__(self) -> None:
        self.store = StoreId(bytes(8))
        self.number = 0
        self.snapshot_size = 0
        self.lanes: dict[Lane, LaneState] = {}
        self.numbers: dict[int, LaneState] = {}
        self.by_id: dict[bytes, list[Known]] = {}
        self.peers: dict[str, Peer] = {}
        self.own: dict[bytes, tuple[bytes, float, list[tuple[int, int]]]] = {}
        self.due: dict[tuple[int, int], float] = {}
        self.lost: list[int] = []
        self.intents: list[Op] = []
        self.transactions: set[bytes] = set()
        self.recovering = self.cold = self.damaged = False
        self._do = {name[4:]: getattr(self, name) for name in dir(self) if name.startswith("_do_")}

    def apply(self, op: Op) -> None:
        """Do one operation."""
        self._do[op[0]](*op[1:])

    def alive(self, number: int, place: int) -> bool:
        """Whether a delivery is queued, or awaited."""
        lane = self.numbers[number]
        known = lane.known.get(place)
        return lane.queued(place) if known is None else not known.over

    # ── operations ───────────────────────────────────────────────────────────────────────────────

    def _do_ready(self) -> None:
        """The snapshot is complete."""

    def _do_lost(self, generation: int) -> None:
        self.lost.append(generation)

    def _do_meta(self, store: bytes, number: int) -> None:
        self.store, self.number = StoreId(store), number

    def _do_lane(self, number: int, peer: str, channel: str, priority: int) -> None:
        lane = Lane(peer, channel, priority)
        self.lanes[lane] = self.numbers[number] = LaneState(number, lane)
        self.number = max(self.number, number + 1)
        self.peers.setdefault(peer, Peer())

    def _do_full_lane(self, number: int, values: list[Any], end: list[int] | None) -> None:
        lane = self.numbers[number]
        (lane.head, lane.head_id, lane.high, lane.base, lane.gaps, lane.duplicate, requeued, voids, lane.gone,
         lane.gone_bytes, lane.redriven, lane.offered) = values  # fmt: skip
        lane.requeued, lane.voids = set(requeued), set(voids)
        lane.end = None if end is None else End(*end)

    def _do_head(self, number: int, place: int, identity: bytes, count: int, size: int) -> None:
        lane = self.numbers[number]
        lane.head, lane.head_id, lane.high = place, identity, max(lane.high, place)
        lane.gone += count
        lane.gone_bytes += size
        lane.offered = 0
        if lane.requeued:
            lane.requeued = {one for one in lane.requeued if one > place}
        if lane.voids:
            lane.voids = {one for one in lane.voids if one > place}

    def _do_offer(self, number: int, place: int) -> None:
        self.numbers[number].offered = place

    def _do_known(self, number: int, place: int, identity: bytes, state: str, changed: float, born: float, flags: int,
                  size: int, reason: str, result: bytes | None, kind: str, segment: int, offset: int,
                  queued: bool) -> None:  # fmt: skip
        lane = self.numbers[number]
        self._remove(lane, place)
        known = Known(number, place, identity, State(state), changed, born, flags, size, reason, result, kind,
                      Place(segment, offset))  # fmt: skip
        lane.known[place] = known
        self.by_id.setdefault(identity, []).append(known)
        self._count(lane, known, 1)
        if queued:
            lane.gone += 1
            lane.gone_bytes += size
        lane.requeued.discard(place)
        self.due.pop((number, place), None)

    def _count(self, lane: LaneState, known: Known, by: int) -> None:
        lane.tally[known.state] += by
        if known.state is State.ACCEPTED and known.receipt:
            lane.awaiting += by

    def _remove(self, lane: LaneState, place: int) -> Known | None:
        known = lane.known.pop(place, None)
        if known is not None:
            self._count(lane, known, -1)
            same = self.by_id[known.id]
            same.remove(known)
            if not same:
                del self.by_id[known.id]
        return known

    def _do_state(
        self, number: int, place: int, state: str, changed: float, reason: str, result: bytes | None, kind: str
    ) -> None:
        lane = self.numbers[number]
        known = lane.known.get(place)
        if known is not None:
            self._count(lane, known, -1)
            known.state, known.changed, known.reason = State(state), changed, reason
            known.result, known.result_type = result, kind
            self._count(lane, known, 1)

    def _do_moved(self, number: int, place: int, segment: int, offset: int) -> None:
        known = self.numbers[number].known.get(place)
        if known is not None:
            known.at = Place(segment, offset)

    def _do_forget(self, number: int, place: int) -> None:
        lane = self.numbers[number]
        known = self._remove(lane, place)
        if known is not None and place > lane.head:
            lane.voids.add(place)

    def _do_rewind(self, number: int, place: int, identity: bytes, again: list[int]) -> None:
        lane = self.numbers[number]
        lane.head, lane.head_id, lane.offered = place, identity, 0
        for one in again:
            known = self._remove(lane, one)
            if known is not None:
                lane.requeued.add(one)
                lane.gone -= 1
                lane.gone_bytes -= known.size

    def _do_store(self, store: bytes, lanes: list[list[Any]]) -> None:
        self.store = StoreId(store)
        for number, base, gaps, last in lanes:
            lane = self.numbers[number]
            lane.base, lane.head, lane.head_id, lane.gaps = base, base, NO_MESSAGE, gaps
            lane.duplicate, lane.offered = last, 0

    def _do_peer(self, name: str, held: bool, reason: str) -> None:
        peer = self.peers.setdefault(name, Peer())
        peer.held, peer.reason = held, reason

    def _do_cursor(self, name: str, log: bytes, cursor: int) -> None:
        peer = self.peers.setdefault(name, Peer())
        peer.log, peer.cursor = StoreId(log), cursor

    def _do_own(self, identity: bytes, fingerprint: bytes, born: float, places: list[list[int]]) -> None:
        self.own[identity] = (fingerprint, born, [(number, place) for number, place in places])

    def _do_unown(self, identity: bytes) -> None:
        self.own.pop(identity, None)

    def _do_due(self, number: int, place: int, moment: float) -> None:
        self.due[number, place] = moment

    def _do_undue(self, number: int, place: int) -> None:
        self.due.pop((number, place), None)

    def _do_redriven(self, number: int, count: int) -> None:
        self.numbers[number].redriven += count

    def _do_void(self, number: int, first: int, count: int, size: int) -> None:
        lane = self.numbers[number]
        if first > lane.high:
            lane.voids.update(range(first, first + count))
            lane.gone += count
            lane.gone_bytes += size

    def _do_intent(self, *op: Any) -> None:
        if self.recovering:  # else whoever wrote it makes the logs follow
            self.transactions.add(op[4])
            self.intents.append(["intent", *op])

    def _do_end(self, number: int, *end: int) -> None:
        """Up to there the log was flushed when this was written, and all that it says stands above."""
        self.numbers[number].late = End(*end)

    def _do_damaged(self, _start: int, _end: int) -> None:
        """A part of the journal is lost: all that the logs can tell is asked of them again."""
        self.damaged = True

    # ── as operations ────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> list[Op]:
        """Operations that make this state from nothing."""
        ops: list[Op] = [["meta", self.store, self.number]]
        ops += [["lost", generation] for generation in self.lost[-8:]]
        for number, lane in self.numbers.items():
            ops.append(["lane", number, *lane.lane])
            ops += [known.op() for known in lane.known.values()]
            values = [lane.head, lane.head_id, lane.high, lane.base, lane.gaps, lane.duplicate, sorted(lane.requeued),
                      sorted(lane.voids), lane.gone, lane.gone_bytes, lane.redriven, lane.offered]  # fmt: skip
            ops.append(["full_lane", number, values, lane.end])
        for name, peer in self.peers.items():
            ops.append(["peer", name, peer.held, peer.reason])
            if peer.log is not None:
                ops.append(["cursor", name, peer.log, peer.cursor])
        ops += [["own", key, *value] for key, value in self.own.items()]
        ops += [["due", *key, value] for key, value in self.due.items()]
        self.intents, self.transactions = [], set()  # every log is flushed when a generation begins
        return ops

    # ── recovery ─────────────────────────────────────────────────────────────────────────────────

    def logs(self) -> list[int]:
        """The numbers of all logs."""
        return list(self.numbers)

    def label(self, number: int) -> list[Any]:
        """The operation that makes a lane."""
        return ["lane", number, *self.numbers[number].lane]

    def known_end(self, number: int) -> End | None:
        """Where a log was known to be sound when this generation began."""
        lane = self.numbers[number]
        return lane.end if self.damaged else lane.late or lane.end

    def set_known_end(self, number: int, end: End) -> None:
        """Note that up to there nothing has to be looked at again."""
        self.numbers[number].end, self.numbers[number].late = end, None

    def recovered(self, number: int, frame: Frame, records: list[Record], _segment: int) -> list[Op]:
        """Own ids and times of expiry stand in the records, too."""
        ops: list[Op] = []
        lane = self.numbers[number]
        if frame.extra and frame.extra not in self.transactions and not self.damaged:
            # A part of a call for several lanes that was never promised: the journal does not know it.
            size = sum(len(record.envelope) for record in records)
            return [["void", number, frame.first, frame.count, size]]
        for record in records:
            if record.flags & (OWN | EXPIRES):
                more = layout.loads(record.extra)
                expires = bool(record.flags & EXPIRES) and lane.queued(record.sequence)
                if expires and (number, record.sequence) not in self.due:
                    ops.append(["due", number, record.sequence, record.born + more[0]])
                if record.flags & OWN and record.id not in self.own:
                    ops.append(["own", record.id, more[1], record.born, [[number, record.sequence]]])
        return ops

    def redo(self, number: int, last: int) -> list[Op]:
        """Intents that a log has not got."""
        return [op for op in self.intents if op[1] == number and op[2] > last]

    @staticmethod
    def unpack_intent(op: Op) -> tuple[int, float, list[Row], bytes]:
        """(first, born, records, extra part of the frame) of an intent."""
        _, _number, first, rows, born, extra = op
        return first, born, rows, extra

    def settle_after_recovery(self) -> None:
        """A new store gets its identity."""
        if self.store == bytes(8):
            self.store = make_store_id()

    def beyond(self, number: int, last: int) -> None:
        """Forget notes about places that a log never got."""
        self.due = {at: value for at, value in self.due.items() if at[0] != number or at[1] <= last}
        for identity, (_, _, places) in list(self.own.items()):
            if any(one == number and place > last for one, place in places):
                del self.own[identity]
