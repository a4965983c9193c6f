"""How deliveries end, and how ended ones begin again or are forgotten.

Owns cancel, dead_letter, receipts, redrive, hold, sweep and wipe. Must not know peers' addresses or time-outs.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Lane, MessageId, StoreId
from dropr_core.model.states import DELIVERY, ENDED, may_follow
from dropr_storage_fs.engine import compaction as stragglers
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.compaction import Pinned
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.layout import DUPLICATE, EXPIRES, Record, loads
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.outbox.rows import Known, LaneState
from dropr_storage_fs.outbox.ship import known_op, state_op
from dropr_storage_fs.outbox.state import OutboxState

SWEEP = 1000
"""Deliveries that one sweep handles at most."""
REDRIVABLE = frozenset({State.DEAD, State.FAILED, State.EXPIRED})


class EndPart:
    """Everything that ends deliveries, and what happens to them then."""

    _half: Half
    _context: Context
    records: Any
    first_queued: Any
    depth: Any
    chosen: Any

    def _queued_by_id(self, message_id: bytes) -> Iterator[tuple[LaneState, Record, Place]]:
        state: OutboxState = self._half.state
        for lane in state.numbers.values():
            if self.depth(lane)[0] > 0:
                log = self._half.log(lane.number)
                for record, where in log.find(message_id, lane.head, log.end):
                    if lane.queued(record.sequence):
                        yield lane, record, where

    def dead_letter(self, lane: Lane, sequence: int, reason: str) -> None:
        """Give one delivery up as dead; the lane goes on without it."""

        def job(commit: Commit) -> None:
            one = self._half.state.lanes.get(lane)
            if one is None or not one.queued(one.place(sequence)):
                return
            place = one.place(sequence)
            found = next(self.records(one, place - 1, self._half.log(one.number).end), None)
            if found is not None and found[0].sequence == place:
                commit.ops([known_op(one, found[0], found[1], State.DEAD, self._context.clock.now(), reason)])

        self._half.durable(job, relief=True)

    def cancel(self, message_id: MessageId, peers: Sequence[str] | None = None) -> tuple[int, int]:
        """Cancel queued deliveries that are not under way. Returns (cancelled, too late)."""

        def job(commit: Commit) -> tuple[int, int]:
            now, ops, late = self._context.clock.now(), [], 0
            state: OutboxState = self._half.state
            for lane, record, where in self._queued_by_id(message_id):
                if peers is not None and lane.lane.peer not in peers:
                    continue
                if record.sequence > lane.offered:
                    ops.append(known_op(lane, record, where, State.CANCELLED, now))
                else:
                    late += 1
            for known in state.by_id.get(message_id, ()):
                wanted = peers is None or state.numbers[known.number].lane.peer in peers
                late += wanted and known.state not in ENDED
            commit.ops(ops)
            return len(ops), late

        return self._half.durable(job, relief=True)

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor of the peer's log; durable."""

        def nothing_new() -> bool:
            kept = self._half.state.peers.get(peer)
            return kept is not None and kept.log == log and kept.cursor >= upto

        if not outcomes and self._half.look(nothing_new):
            return []

        def job(commit: Commit) -> list[MessageId]:
            state: OutboxState = self._half.state
            kept = state.peers.get(peer)
            same = kept is not None and kept.log == log
            cursor = kept.cursor if kept is not None and same else 0
            now = self._context.clock.now()
            ended: dict[bytes, None] = {}
            for outcome in outcomes:
                if outcome.number <= cursor:
                    continue  # recorded before; the delivery may have been sent again since
                mine = self._receive(state, peer, outcome, now)
                if mine:
                    ended[outcome.id] = None
                    commit.ops(mine)  # at once: the next one may be of the same message, buried and then kicked
            commit.do(["cursor", peer, log, max(cursor, upto)])
            return [MessageId(identity) for identity in ended]

        return self._half.durable(job, relief=True)

    def _receive(self, state: OutboxState, peer: str, outcome: Outcome, now: float) -> list[Any]:
        values = (outcome.reason, outcome.result, outcome.content_type)
        mine = [known for known in state.by_id.get(outcome.id, ()) if state.numbers[known.number].lane.peer == peer]
        ops = [state_op(known, outcome.state, now, *values) for known in mine
               if may_follow(DELIVERY, known.state, outcome.state)]  # fmt: skip
        if not mine:
            # Also a delivery that stands as queued: the peer had it, and the answer to the push was lost.
            ops += [known_op(lane, record, where, outcome.state, now, *values)
                    for lane, record, where in self._queued_by_id(outcome.id) if lane.lane.peer == peer]  # fmt: skip
        return ops

    # ── again, and forgotten ─────────────────────────────────────────────────────────────────────

    def redrive(self, selection: Selection) -> int:
        """Send ended (dead, failed, expired) deliveries again, at the end of their lanes. Durable."""

        def job(commit: Commit) -> int:
            state: OutboxState = self._half.state
            lanes: dict[int, list[tuple[Known, Record]]] = {}
            for known in self.chosen(selection):
                if known.state in REDRIVABLE:
                    record = self._half.log(known.number).record_at(known.at)
                    if record is not None:
                        lanes.setdefault(known.number, []).append((known, record))
            for number, rows in lanes.items():
                # In the order in which they were sent, not in which they ended: a lane's order is a promise.
                rows.sort(key=lambda row: (row[1].born, row[0].place))
                self.append_again(commit, state, number, rows)
            return sum(map(len, lanes.values()))

        return self._half.durable(job)

    def append_again(self, commit: Commit, state: OutboxState, number: int, rows: list[tuple[Known, Record]]) -> None:
        """Append known deliveries once more, as possible duplicates."""
        if not rows:
            return
        now = self._context.clock.now()
        first = self._half.log(number).end.last + 1
        packed = [[record.id, record.flags | DUPLICATE, record.extra, record.envelope] for _, record in rows]
        intent = ["intent", number, first, packed, now, os.urandom(8)]
        ops: list[Any] = [intent, ["redriven", number, len(rows)]]
        for index, (known, record) in enumerate(rows):
            ops.append(["forget", number, known.place])
            if record.flags & EXPIRES:
                more = loads(record.extra)
                ops.append(["due", number, first + index, now + more[0]])
            own = state.own.get(record.id)
            if own is not None:
                places = [at for at in own[2] if at[0] != number] + [(number, first + index)]
                ops.append(["own", record.id, own[0], own[1], places])
        commit.ops(ops)
        commit.write()
        start, born, records, extra = state.unpack_intent(intent)
        commit.frame(number, start, born, records, extra)

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones). Returns how many."""

        def job(commit: Commit) -> int:
            ops = [["forget", known.number, known.place] for known in self.chosen(selection) if known.over]
            commit.ops(ops)
            return len(ops)

        return self._half.durable(job, relief=True)

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def hold(self, peer: str, reason: str) -> None:
        """Stop shipping to the peer until `release`; its deliveries show as held. Durable."""

        def job(commit: Commit) -> None:
            commit.ops([["peer", peer, True, reason]])

        self._half.durable(job, relief=True)

    def release(self, peer: str) -> None:
        """End `hold`."""

        def job(commit: Commit) -> None:
            if peer in self._half.state.peers:
                commit.ops([["peer", peer, False, ""]])

        self._half.durable(job, relief=True)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due, forget what is past its time; see the contract."""

        def job(commit: Commit) -> tuple[list[MessageId], float | None]:
            state: OutboxState = self._half.state
            now = self._context.clock.now()
            ended: list[MessageId] = []
            self._expire(commit, state, now, ended)
            dues = [*self._give_up(commit, state, now, life, ended), *state.due.values()]
            dues += self._forget_old(commit, state, now, life, ended)
            return ended, min(dues, default=None)

        found = self._half.lazy(job)
        self._tidy()
        return found

    def _expire(self, commit: Commit, state: OutboxState, now: float, ended: list[MessageId]) -> None:
        ops: list[Any] = []
        for (number, place), moment in sorted(state.due.items(), key=lambda item: item[1])[:SWEEP]:
            if moment > now:
                break
            lane = state.numbers[number]
            found = None
            if lane.queued(place):
                found = next(self.records(lane, place - 1, self._half.log(number).end), None)
            if found is not None and found[0].sequence == place:
                ops.append(known_op(lane, found[0], found[1], State.EXPIRED, now, "expired before the peer took it"))
                ended.append(MessageId(found[0].id))
            else:
                ops.append(["undue", number, place])
        commit.ops(ops)

    def _give_up(
        self, commit: Commit, state: OutboxState, now: float, life: float, ended: list[MessageId]
    ) -> list[float]:
        """Dead is what was queued for too long; a lane is in order of age. Returns what is due next."""
        dues, ops = [], []
        for lane in state.numbers.values():
            if self.depth(lane)[0] <= 0:
                continue
            for record, where in self.records(lane, lane.head, self._half.log(lane.number).end):
                if not lane.queued(record.sequence):
                    continue
                if record.born + life > now or len(ended) >= SWEEP:
                    dues.append(record.born + life)
                    break
                ops.append(known_op(lane, record, where, State.DEAD, now, f"given up after {life:g} s"))
                ended.append(MessageId(record.id))
        commit.ops(ops)
        return dues

    def _forget_old(
        self, commit: Commit, state: OutboxState, now: float, life: float, ended: list[MessageId]
    ) -> list[float]:
        ops: list[Any] = []
        dues: list[float] = []
        remember = self._context.remember
        for lane in state.numbers.values():
            keep = self._context.keep_sent.get(lane.lane.channel, 0.0)
            for known in lane.known.values():
                if known.over:
                    due = known.changed + (keep if known.state is State.ACCEPTED else remember)
                else:
                    due = known.born + life
                if due > now or len(ops) >= SWEEP:
                    dues.append(due)
                elif known.over:
                    ops.append(["forget", known.number, known.place])
                else:
                    ops.append(state_op(known, State.DEAD, now, f"given up after {life:g} s"))
                    ended.append(MessageId(known.id))
                    dues.append(now + remember)
        for identity, (_, born, places) in state.own.items():
            old = born + remember <= now and len(ops) < 2 * SWEEP
            if old and not any(state.alive(number, place) for number, place in places):
                ops.append(["unown", identity])
        commit.ops(ops)
        return dues

    def _tidy(self) -> None:
        """Remove segments of which nothing is needed any more, once that stands on stable storage."""
        idle = self._half.look(self._idle)
        stragglers.move(self._half, self._half.look(self._pinned))
        if not idle:
            return
        self._half.check_off({number for number, _ in idle})

        def job(_commit: Commit) -> None:
            for number, segment in self._idle():
                if (number, segment) in idle:
                    self._half.log(number).remove(segment)

        self._half.lazy(job)

    def _pinned(self) -> list[Pinned]:
        """Segments that are needed for what ended or is awaited alone."""
        state: OutboxState = self._half.state
        out = []
        for lane in state.numbers.values():
            if lane.known and not lane.requeued:
                kept = [(known.place, known.at, known.size) for known in lane.known.values()]
                out += stragglers.pinned(self._half.log(lane.number), lane.head, kept)
        return out

    def _idle(self) -> set[tuple[int, int]]:
        """(lane, segment) of which nothing is needed."""
        state: OutboxState = self._half.state
        out: set[tuple[int, int]] = set()
        for lane in state.numbers.values():
            names = self._half.log(lane.number).segments()
            if len(names) < 2 or names[1] > lane.head + 1:
                continue
            needed = {known.at.segment for known in lane.known.values()}
            lowest = min([lane.head + 1, *lane.requeued])
            out |= {(lane.number, segment) for segment, following in itertools.pairwise(names)
                    if following <= lowest and segment not in needed}  # fmt: skip
        return out
