"""Shipping: reading lanes, and moving their heads by what the peers said.

Owns take, settle and the log-matching moves (locate, rewind, renumber). Must not know how or why a peer was asked.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainEntries
from dropr_core.contracts.storage import Batch, Entry, LaneStats, Rejection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane, MessageId, StoreId, make_store_id
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.column_reader import Columns, Reader
from dropr_storage_fs.files.layout import DELAYED, DUPLICATE, EXPIRES, RECEIPT, Record, loads
from dropr_storage_fs.files.log_recovery import End, Place
from dropr_storage_fs.outbox.rows import Known, LaneState
from dropr_storage_fs.outbox.state import OutboxState


class ShipPart:
    """What the daemon does with lanes."""

    _half: Half
    _context: Context
    append_again: Any
    _cursors: dict[int, tuple[int, Place]]
    """Lane → (place in the lane, where in the log its successor stands)."""

    def records(self, lane: LaneState, after: int, end: End) -> Iterator[tuple[Record, Place]]:
        """The records of a lane beyond place ``after``."""
        log = self._half.log(lane.number)
        for item, where in log.scan(self._start(lane, after), end):
            if isinstance(item, Record) and item.sequence > after:
                yield item, where

    def _start(self, lane: LaneState, after: int) -> Place:
        """Where in the log to read what stands beyond place ``after``."""
        cursor = self._cursors.get(lane.number)
        return cursor[1] if cursor is not None and cursor[0] == after else self._half.log(lane.number).start(after + 1)

    def depth(self, lane: LaneState) -> tuple[int, int]:
        """(messages, bytes) that are queued."""
        end = self._half.log(lane.number).end
        return end.count - lane.gone, end.bytes - lane.gone_bytes

    def first_queued(self, lane: LaneState) -> Record | None:
        """The first delivery that is queued."""
        if self.depth(lane)[0] <= 0:
            return None
        records = self.records(lane, lane.head, self._half.log(lane.number).end)
        return next((record for record, _ in records if lane.queued(record.sequence)), None)

    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""

        def job() -> list[LaneStats]:
            out, now = [], self._context.clock.now()
            state: OutboxState = self._half.state
            for lane in state.numbers.values():
                depth, size = self.depth(lane)
                if depth > 0 and peer in {None, lane.lane.peer}:
                    first = self._oldest(lane)
                    last = lane.given(self._half.log(lane.number).end.last)
                    born = now if first is None else first
                    out.append(LaneStats(lane.lane, lane.position, last, depth, size, max(0.0, now - born)))
            return out

        return self._half.look(job)

    def _oldest(self, lane: LaneState) -> float | None:
        kept = self._born.get(lane.number)
        if kept is not None and lane.queued(kept[0]) and not lane.requeued:
            return kept[1]
        first = self.first_queued(lane)
        if first is None:
            return None
        self._born[lane.number] = (first.sequence, first.born)
        return first.born

    _born: dict[int, tuple[int, float]]

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head, marked as under way with ``mark_in_flight``."""

        def look() -> tuple[Batch | None, bool]:
            return self._take(lane, max_count, max_bytes)

        def job(commit: Commit) -> tuple[Batch | None, bool]:
            batch, behind = self._take(lane, max_count, max_bytes)
            one = self._half.state.lanes.get(lane)
            if batch is not None and one is not None:
                last = one.place(batch.entries[-1].sequence)
                if last > one.offered:
                    commit.ops([["offer", one.number, last]])
            return batch, behind

        def run() -> tuple[Batch | None, bool]:
            if mark_in_flight and not self._context.read_only:
                return self._half.lazy(job, mark=False)
            return self._half.look(look)

        batch, behind = run()
        if batch is None and behind and not self._context.read_only:
            self._half.durable(lambda commit: self._flush_lane(commit, lane))
            batch, _ = run()
        return batch

    def _flush_lane(self, commit: Commit, lane: Lane) -> None:
        """Who appended died before the flush: what stands there is shown only after one."""
        one = self._half.state.lanes.get(lane)
        if one is not None:
            commit.touched[one.number] = self._half.log(one.number)

    def _take(self, lane: Lane, max_count: int, max_bytes: int) -> tuple[Batch | None, bool]:
        state: OutboxState = self._half.state
        one = state.lanes.get(lane)
        if one is None or self.depth(one)[0] <= 0:
            return None, False
        log = self._half.log(one.number)
        end, limit = log.flushed, max(1, max_count)
        start = self._start(one, one.head)
        rows: Iterator[tuple[Record, Place]] | None = None
        if one.plain():
            found, following = self._reader.read(log, start, end, one.head, limit, max_bytes)
            if found.numbers:
                self._next[one.number] = (found.numbers[-1], following)
                return self._plain_batch(one, found) or self._batch(one, found.records()), False
        rows = self.records(one, one.head, end)
        room = max_bytes
        records: list[Record] = []
        for record, where in rows:
            if not one.queued(record.sequence):
                continue
            room -= len(record.envelope)
            if records and (room < 0 or len(records) >= limit):
                self._next[one.number] = (records[-1].sequence, where)
                break
            records.append(record)
        if records:
            return self._batch(one, records), False
        return None, end[:2] < log.end[:2]

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
        self._sums[lane.number] = (lane.head, records[-1].sequence, len(records), batch.size if simple else -1)
        return batch

    _reader: Reader
    _sums: dict[int, tuple[int, int, int, int]]
    """Lane → (head, last place, messages, bytes) of what was taken last; -1 bytes where it was not all plain."""

    _next: dict[int, tuple[int, Place]]

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""

        def job(commit: Commit) -> None:
            one = self._half.state.lanes.get(lane)
            if one is not None and one.offered:
                commit.ops([["offer", one.number, 0]])

        self._half.lazy(job, mark=False)

    # ── settle ───────────────────────────────────────────────────────────────────────────────────

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``. Durable at once only where deliveries were rejected:
        a settlement that is lost is told again by the peer's head, a rejection is not.
        """

        def job(commit: Commit) -> None:
            self._settle(commit, lane, head, rejected)

        if rejected:
            self._half.durable(job, relief=True)
        else:
            self._half.lazy(job)

    def _settle(self, commit: Commit, lane: Lane, head: Head, rejected: Sequence[Rejection]) -> None:
        state: OutboxState = self._half.state
        one = state.lanes.get(lane)
        end = None if one is None else self._half.log(one.number).end
        if one is None or end is None or head.sequence > one.given(end.last):
            raise StoreError(f"lane {lane}: the peer cannot have {head}, no such number was given")
        target = one.place(head.sequence)
        if target <= one.head:
            if one.offered:
                commit.ops([["offer", one.number, 0]])
            return
        refused = {one.place(rejection.sequence): rejection for rejection in rejected}
        keep, now = self._context.keep_sent.get(lane.channel, 0.0) > 0, self._context.clock.now()
        ops: list[Any] = []
        plain = one.plain()
        sums = self._sums.get(one.number)
        if plain and not keep and not refused and sums is not None and sums[:2] == (one.head, target) and sums[3] >= 0:
            commit.do(["head", one.number, target, head.id, sums[2], sums[3]])
            self._move_on(one, target)
            return
        count = size = 0
        for record, where in self.records(one, one.head, end):
            place = record.sequence
            if place > target:
                break
            if not plain and not one.queued(place):
                continue
            refusal = refused.get(place)
            if refusal is not None:
                ops.append(known_op(one, record, where, State.FAILED, now, f"{refusal.code}: {refusal.reason}"))
            elif keep or record.flags & RECEIPT:
                ops.append(known_op(one, record, where, State.ACCEPTED, now))
            else:
                count += 1
                size += len(record.envelope)
                if record.flags & EXPIRES:
                    ops.append(["undue", one.number, place])
        ops.append(["head", one.number, target, head.id, count, size])
        commit.ops(ops)
        self._move_on(one, target)

    def _move_on(self, lane: LaneState, target: int) -> None:
        following = self._next.get(lane.number)
        if following is not None and following[0] == target:
            self._cursors[lane.number] = following

    # ── log matching ─────────────────────────────────────────────────────────────────────────────

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position: the lane's head and everything kept are known; else None."""

        def job() -> MessageId | None:
            one = self._half.state.lanes.get(lane)
            if one is None or sequence <= 0:
                return None
            if sequence == one.position.sequence:
                return MessageId(one.head_id)
            place = one.place(sequence)
            known = one.known.get(place)
            if known is not None:
                return MessageId(known.id)
            if not one.queued(place):
                return None
            found = next(self.records(one, place - 1, self._half.log(one.number).end), None)
            return MessageId(found[0].id) if found is not None and found[0].sequence == place else None

        return self._half.look(job)

    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``: send again what is kept of it."""

        def job(commit: Commit) -> int:
            one = self._half.state.lanes.get(lane)
            if one is None:
                return 0
            target = one.place(head.sequence) if head.sequence else one.base
            if target > one.head:
                raise StoreError(f"lane {lane}: cannot go back to {head}, its head is {one.head}")
            known = [one.known[place] for place in sorted(one.known) if place > target]
            again = [each for each in known if each.state is State.ACCEPTED]
            # What was copied forward does not stand at its place any more: it goes to the end of the lane.
            moved = [each for each in again if each.at.segment > each.place]
            self._cursors.pop(one.number, None)
            stayed = [each for each in again if each.at.segment <= each.place]
            rows = [(each, self._half.log(one.number).record_at(each.at)) for each in moved]
            self.append_again(commit, self._half.state, one.number, [row for row in rows if row[1] is not None])
            commit.do(["rewind", one.number, target, head.id, [each.place for each in stayed]])
            for each in stayed:
                record = self._half.log(one.number).record_at(each.at) if each.flags & EXPIRES else None
                if record is not None:  # queued again, it may expire again
                    commit.do(["due", one.number, each.place, record.born + loads(record.extra)[0]])
            return len(again)

        return self._half.durable(job)

    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: a new store id, and new numbers for all that is queued."""
        store = make_store_id()

        def job(commit: Commit) -> StoreId:
            lanes = []
            for one in self._half.state.numbers.values():
                last = self._half.log(one.number).end.last
                gaps = [place for place in range(one.head + 1, one.high + 1) if not one.queued(place)]
                gaps += sorted(place for place in {*one.known, *one.voids} if place > max(one.high, one.head))
                lanes.append([one.number, one.head, gaps, last])
            commit.ops([["store", store, lanes]])
            return store

        return self._half.durable(job)


def known_op(
    lane: LaneState, record: Record, where: Place, state: State, now: float, reason: str = "",
    result: bytes | None = None, kind: str = "",
) -> list[Any]:  # fmt: skip
    """A queued delivery gets a state of its own."""
    return ["known", lane.number, record.sequence, record.id, str(state), now, record.born, mark(lane, record),
            len(record.envelope), reason, result, kind, *where, True]  # fmt: skip


def mark(lane: LaneState, record: Record) -> int:
    """The flags of a record, with that of a possible duplicate where the lane says so."""
    again = record.sequence <= max(lane.duplicate, lane.high)
    return record.flags | DUPLICATE if again else record.flags


def state_op(known: Known, state: State, now: float, reason: str = "", result: bytes | None = None,
             kind: str = "") -> list[Any]:  # fmt: skip
    """A known delivery changes its state."""
    return ["state", known.number, known.place, str(state), now, reason, result, kind]
