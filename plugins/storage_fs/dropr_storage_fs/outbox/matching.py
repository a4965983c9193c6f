"""Log matching: what stands at a position, back to a position, new numbers.

Owns `locate`, `rewind` and `renumber`. Must not know why two nodes disagree.
"""

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane, MessageId, StoreId, make_store_id
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import EXPIRES
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.operations import NewNumbers, Renumber, Rewind, SetDue
from dropr_storage_fs.outbox.recovery import expires_in
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.resend import append_again
from dropr_storage_fs.outbox.state import OutboxState


class Matching:
    """The moves of log matching."""

    def __init__(
        self, engine: Engine[OutboxState], context: Context, lanes: LaneReader, remembered: PastDeliveries
    ) -> None:
        self._engine, self._context, self._lanes, self._remembered = engine, context, lanes, remembered

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position: the lane's head and everything kept are known; else None."""

        def job(state: OutboxState) -> MessageId | None:
            one = state.lanes.get(lane)
            if one is None or sequence <= 0:
                return None
            if sequence == one.position.sequence:
                return MessageId(one.head_id)
            place = one.place(sequence)
            known = one.known.get(place)
            if known is not None:
                return MessageId(known.id)
            if one.queued(place):
                found = self._lanes.record(one, place)
                return None if found is None else MessageId(found[0].id)
            past = self._remembered.of_place(state, one, place)
            return None if past is None else MessageId(past.record.id)

        return self._engine.read(job)

    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``: send again what is kept of it."""

        def job(commit: Commit[OutboxState]) -> int:
            one = commit.state.lanes.get(lane)
            if one is None:
                return 0
            target = one.place(head.sequence) if head.sequence else one.base
            if target > one.head:
                raise StoreError(f"lane {lane}: cannot go back to {head}, its head is {one.head}")
            for past in list(self._remembered.of_lane(commit.state, one, target)):
                if past.record.state is State.ACCEPTED:
                    self._remembered.back(commit, past)
            known = [one.known[place] for place in sorted(one.known) if place > target]
            again = [each for each in known if each.state is State.ACCEPTED]
            # What was copied forward does not stand at its place any more: it goes to the end of the lane.
            moved = [each for each in again if each.at.segment > each.place]
            stayed = [each for each in again if each.at.segment <= each.place]
            self._lanes.forget(one)
            reader = commit.log(one.number).reader
            rows = [(each, reader.record_at(each.at)) for each in moved]
            whole = [(each, record) for each, record in rows if record is not None]
            append_again(commit, self._remembered, one.number, whole, self._context.clock.now())
            commit.do(Rewind(one.number, target, head.id, [each.place for each in stayed]))
            for each in stayed:
                record = reader.record_at(each.at) if each.flags & EXPIRES else None
                if record is not None:  # queued again, it may expire again
                    commit.do(SetDue(one.number, each.place, record.born + expires_in(record)))
            return len(again)

        return self._engine.write_durable(job)

    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: a new store id, and new numbers for all that is queued."""
        store = make_store_id()

        def job(commit: Commit[OutboxState]) -> StoreId:
            lanes = []
            for one in commit.state.numbers.values():
                last = commit.end(one.number).last
                gaps = [place for place in range(one.head + 1, one.high + 1) if not one.queued(place)]
                gaps += sorted(place for place in {*one.known, *one.voids} if place > max(one.high, one.head))
                lanes.append(NewNumbers(one.number, one.head, gaps, last))
            commit.do(Renumber(store, lanes))
            return store

        return self._engine.write_durable(job)
