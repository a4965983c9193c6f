"""Shipping: reading what follows a lane's head, and moving the head by what the peer said.

Owns `lanes`, `take`, `clear_in_flight` and `settle`. Must not know how or why a peer was asked.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainEntries
from dropr_core.contracts.storage import Batch, Entry, LaneStats, Rejection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, Lane, MessageId
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.column_reader import Columns
from dropr_storage_fs.files.layout import DELAYED, DUPLICATE, EXPIRES, RECEIPT, Record
from dropr_storage_fs.files.segment import End
from dropr_storage_fs.outbox.changes import add_queued
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.operations import ClearDue, MarkInFlight, MoveHead
from dropr_storage_fs.outbox.rows import LaneState
from dropr_storage_fs.outbox.state import OutboxState

NOT_PLAIN = -1


class Shipping:
    """What the daemon does with lanes."""

    def __init__(self, engine: Engine[OutboxState], context: Context, lanes: LaneReader) -> None:
        self._engine, self._context, self._lanes = engine, context, lanes
        self._sums: dict[int, tuple[int, int, int, int]] = {}
        """Lane → (head, last place, messages, bytes) of what was taken last; NOT_PLAIN bytes where it was not all
        plain."""

    def lanes(self, peer: str | None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""

        def job(state: OutboxState) -> list[LaneStats]:
            out, now = [], self._context.clock.now()
            for lane in state.numbers.values():
                depth, size = self._lanes.depth(lane)
                if depth > 0 and peer in {None, lane.lane.peer}:
                    born = self._lanes.oldest(lane)
                    last = lane.given(self._engine.end(lane.number).last)
                    age = 0.0 if born is None else max(0.0, now - born)
                    out.append(LaneStats(lane.lane, lane.position, last, depth, size, age))
            return out

        return self._engine.read(job)

    # ── take ─────────────────────────────────────────────────────────────────────────────────────

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark: bool) -> Batch | None:
        """What follows the lane's head, marked as under way with ``mark``."""
        if not mark or self._context.read_only:
            batch, behind = self._engine.read(lambda state: self._take(state, lane, max_count, max_bytes))
            if batch is None and behind and not self._context.read_only:
                self._flush(lane)
                batch, _ = self._engine.read(lambda state: self._take(state, lane, max_count, max_bytes))
            return batch

        def job(commit: Commit[OutboxState]) -> tuple[Batch | None, bool]:
            batch, behind = self._take(commit.state, lane, max_count, max_bytes)
            if batch is not None:
                one = commit.state.lanes[lane]
                last = one.place(batch.entries[-1].sequence)
                if last > one.in_flight:
                    commit.do(MarkInFlight(one.number, last))
            return batch, behind

        batch, behind = self._engine.write(job, flush=False)
        if batch is None and behind:
            self._flush(lane)
            batch, _ = self._engine.write(job, flush=False)
        return batch

    def _flush(self, lane: Lane) -> None:
        """Who appended died before the flush: what stands there is shown only after one."""

        def job(commit: Commit[OutboxState]) -> None:
            one = commit.state.lanes.get(lane)
            if one is not None:
                commit.touch(one.number)

        self._engine.write_durable(job, reserve=True)

    def _take(self, state: OutboxState, lane: Lane, max_count: int, max_bytes: int) -> tuple[Batch | None, bool]:
        """What follows the head, and, if nothing does, whether something does that is not flushed."""
        one = state.lanes.get(lane)
        if one is None or self._lanes.depth(one)[0] <= 0:
            return None, False
        log = self._engine.log(one.number)
        end, limit = log.flushed, max(1, max_count)
        if one.plain():
            found = self._lanes.columns(one, end, limit, max_bytes)
            if found.numbers:
                return self._plain_batch(one, found) or self._batch(one, found.records()), False
        records = self._queued(one, end, limit, max_bytes)
        if records:
            return self._batch(one, records), False
        return None, end[:2] < log.end[:2]

    def _queued(self, lane: LaneState, end: End, most: int, room: int) -> list[Record]:
        """Record by record, up to both limits."""
        records: list[Record] = []
        for record, where in self._lanes.records(lane, lane.head, end):
            if not lane.queued(record.sequence):
                continue
            room -= len(record.envelope)
            if records and (room < 0 or len(records) >= most):
                self._lanes.read_up_to(lane, records[-1].sequence, where)
                break
            records.append(record)
        return records

    def _plain_batch(self, lane: LaneState, found: Columns) -> Batch | None:
        """Entries of which there is nothing to say; what `settle` needs to know of them is remembered."""
        if any(found.flags) or found.numbers[0] <= max(lane.duplicate, lane.high) or lane.base or lane.gaps:
            return None
        batch = Batch(lane.lane, lane.position, PlainEntries(found.numbers, found.ids, found.envelopes))
        self._sums[lane.number] = (lane.head, found.numbers[-1], len(found.numbers), batch.size)
        return batch

    def _batch(self, lane: LaneState, records: list[Record]) -> Batch:
        """The entries of any records."""
        now = self._context.clock.now()
        entries: list[Entry] = []
        duplicate = max(lane.duplicate, lane.high)
        simple = lane.plain() and records[0].sequence > duplicate and not (lane.base or lane.gaps)
        for record in records:
            flags = record.flags
            age = max(0.0, now - record.born) if flags & (DELAYED | EXPIRES) else 0.0
            again = record.sequence <= duplicate or bool(flags & DUPLICATE)
            simple = simple and not flags & (RECEIPT | EXPIRES)
            entries.append(Entry(lane.sequence(record.sequence), MessageId(record.id), record.envelope, age, again))
        batch = Batch(lane.lane, lane.position, entries)
        size = batch.size if simple else NOT_PLAIN
        self._sums[lane.number] = (lane.head, records[-1].sequence, len(records), size)
        return batch

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""

        def job(commit: Commit[OutboxState]) -> None:
            one = commit.state.lanes.get(lane)
            if one is not None and one.in_flight:
                commit.do(MarkInFlight(one.number, 0))

        self._engine.write(job, flush=False)

    # ── settle ───────────────────────────────────────────────────────────────────────────────────

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection]) -> None:
        """The peer has committed up to ``head``. Durable at once only where deliveries were rejected:
        a settlement that is lost is told again by the peer's head, a rejection is not.
        """

        def job(commit: Commit[OutboxState]) -> None:
            self._settle(commit, lane, head, rejected)

        if rejected:
            self._engine.write_durable(job, reserve=True)
        else:
            self._engine.write(job)

    def _settle(self, commit: Commit[OutboxState], lane: Lane, head: Head, rejected: Sequence[Rejection]) -> None:
        one = commit.state.lanes.get(lane)
        if one is None and head == START:
            return
        if one is None or head.sequence > one.given(commit.end(one.number).last):
            raise StoreError(f"lane {lane}: the peer cannot have {head}, no such number was given")
        target = one.place(head.sequence)
        if target <= one.head:
            if one.in_flight:
                commit.do(MarkInFlight(one.number, 0))
            return
        keep = self._context.keep_sent.get(lane.channel, 0.0) > 0
        sums = self._sums.get(one.number)
        plain = one.plain() and not keep and not rejected and sums is not None and sums[:2] == (one.head, target)
        if plain and sums is not None and sums[3] != NOT_PLAIN:
            commit.do(MoveHead(one.number, target, head.id, sums[2], sums[3]))
        else:
            self._settle_each(commit, one, target, head.id, rejected, keep=keep)
        self._lanes.moved(one, target)

    def _settle_each(
        self, commit: Commit[OutboxState], lane: LaneState, target: int, head_id: bytes,
        rejected: Sequence[Rejection], *, keep: bool,
    ) -> None:  # fmt: skip
        """Record by record: some get a state of their own."""
        refused = {lane.place(rejection.sequence): rejection for rejection in rejected}
        now, plain = self._context.clock.now(), lane.plain()
        count = size = 0
        ops: list[ClearDue] = []
        adds = []
        for record, where in self._lanes.records(lane, lane.head):
            place = record.sequence
            if place > target:
                break
            if not plain and not lane.queued(place):
                continue
            refusal = refused.get(place)
            if refusal is not None:
                reason = f"{refusal.code}: {refusal.reason}"
                adds.append(add_queued(lane, record, where, State.FAILED, now, reason))
            elif keep or record.flags & RECEIPT:
                adds.append(add_queued(lane, record, where, State.ACCEPTED, now))
            else:
                count += 1
                size += len(record.envelope)
                if record.flags & EXPIRES:
                    ops.append(ClearDue(lane.number, place))
        for add in adds:
            commit.do(add)
        for op in ops:
            commit.do(op)
        commit.do(MoveHead(lane.number, target, head_id, count, size))
