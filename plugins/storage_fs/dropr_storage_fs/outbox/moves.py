"""State moves of deliveries: what stands as it was seen ends, is forgotten, or is sent again.

Owns `move`. Must not know who wants a move, nor why.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.outbox import QUEUED, REDRIVABLE
from dropr_core.contracts.storage import Delivery, DeliveryMove
from dropr_core.model.message import State
from dropr_core.model.names import Lane
from dropr_core.model.states import DELIVERY, may_follow
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import Record
from dropr_storage_fs.outbox.changes import add_queued, change
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.operations import Forget
from dropr_storage_fs.outbox.remembered import PastDeliveries, PastDelivery
from dropr_storage_fs.outbox.resend import append_again
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState
from dropr_storage_fs.outbox.state import OutboxState

Again = dict[int, dict[int, tuple[DeliveryRecord, Record]]]
"""Lane → place → what is sent again from there."""


class StateMoves:
    """Moves deliveries."""

    def __init__(
        self, engine: Engine[OutboxState], context: Context, lanes: LaneReader, remembered: PastDeliveries
    ) -> None:
        self._engine, self._context, self._lanes, self._remembered = engine, context, lanes, remembered

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:
        """Move each delivery that stands as it is given; see the contract."""

        def job(commit: Commit[OutboxState]) -> list[bool]:
            again: Again = {}
            done = [self._move(commit, one, again) for one in moves]
            for number, rows in again.items():
                # In the order in which they were sent, not in which they ended: a lane's order is a promise.
                in_order = sorted(rows.values(), key=lambda row: (row[1].born, row[0].place))
                append_again(commit, self._remembered, number, in_order, self._context.clock.now())
            return done

        return self._engine.write_durable(job, reserve=all(one.to is not State.QUEUED for one in moves))

    def _move(self, commit: Commit[OutboxState], move: DeliveryMove, again: Again) -> bool:
        seen, now = move.delivery, self._context.clock.now()
        lane = commit.state.lanes.get(Lane(seen.peer, seen.channel, seen.priority))
        if lane is None:
            return False
        if seen.state in QUEUED:
            return self._end_queued(commit, lane, move, now)
        known = _standing(commit.state, lane, seen)
        if known is None:
            past = self._past(commit.state, lane, seen)
            if past is None:
                return False
            if move.to is None:
                return self._remembered.forget(commit, [past.found]) > 0
            if move.to is not State.QUEUED and not may_follow(DELIVERY, past.record.state, move.to):
                return False
            known = self._remembered.back(commit, past)
        if move.to is None:
            if known.over:
                commit.do(Forget(known.number, known.place))
            return known.over
        if move.to is State.QUEUED:
            return self._again(commit, known, again)
        if may_follow(DELIVERY, known.state, move.to):
            commit.do(change(known, move.to, now, move.reason))
            return True
        return False

    def _end_queued(self, commit: Commit[OutboxState], lane: LaneState, move: DeliveryMove, now: float) -> bool:
        place = lane.place(move.delivery.sequence)
        if move.to is None or not may_follow(DELIVERY, State.QUEUED, move.to) or not lane.queued(place):
            return False
        if move.to is State.CANCELLED and place <= lane.in_flight:
            return False
        found = self._lanes.record(lane, place)
        if found is None or found[0].id != move.delivery.id:
            return False
        commit.do(add_queued(lane, *found, move.to, now, move.reason))
        return True

    def _past(self, state: OutboxState, lane: LaneState, seen: Delivery) -> PastDelivery | None:
        """What stands as it was seen, and is not in memory."""
        for past in self._remembered.named(state, seen.id):
            record = past.record
            if (record.number, lane.sequence(record.place), record.state) == (lane.number, seen.sequence, seen.state):
                return past
        return None

    def _again(self, commit: Commit[OutboxState], known: DeliveryRecord, again: Again) -> bool:
        mine = again.setdefault(known.number, {})
        if known.state not in REDRIVABLE or known.place in mine:
            return False
        record = commit.log(known.number).reader.record_at(known.at)
        if record is not None:
            mine[known.place] = (known, record)
        return record is not None


def _standing(state: OutboxState, lane: LaneState, seen: Delivery) -> DeliveryRecord | None:
    """What stands as it was seen, with a state of its own."""
    for known in state.by_id.get(seen.id, ()):
        place = (known.number, lane.sequence(known.place), known.state)
        if place == (lane.number, seen.sequence, seen.state):
            return known
    return None
