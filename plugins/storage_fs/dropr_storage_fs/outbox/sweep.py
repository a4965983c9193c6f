"""What time does to the outbox: deliveries expire, are given up, are forgotten.

Owns `sweep`, `wipe`, and what of a lane's log is still needed. Must not know peers' addresses or time-outs.
"""

from collections.abc import Iterator, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.compaction import Compaction, Needed, SegmentUse
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.outbox.changes import add_queued, change
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.operations import (
    AddDelivery,
    ChangeDelivery,
    ClearDue,
    Forget,
    ForgetOwnId,
    MoveRecord,
)
from dropr_storage_fs.outbox.remembered import Past, PastDeliveries
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState
from dropr_storage_fs.outbox.state import OutboxState
from dropr_storage_fs.outbox.view import OutboxView

SWEEP = 1000
"""Deliveries that one sweep handles at most."""


class OutboxSegments(SegmentUse[OutboxState, Past]):
    """What the outbox needs of its logs."""

    def __init__(self, retention: Retention, remembered: PastDeliveries) -> None:
        super().__init__(remembered)
        self._retention = retention

    def lowest(self, state: OutboxState, number: int) -> int:
        """What follows the head, and what was queued again."""
        lane = state.numbers[number]
        return min([lane.head + 1, *lane.requeued])

    def needed_segments(self, state: OutboxState, number: int) -> set[int]:
        """Where deliveries stand whose bodies are kept."""
        lane = state.numbers[number]
        return {known.at.segment for known in self._kept(lane)} | self.segments_of_runs(state, number)

    def _kept(self, lane: LaneState) -> Iterator[DeliveryRecord]:
        return (known for known in lane.known.values() if self._retention.body_is_kept(lane, known))

    def stragglers(self, state: OutboxState) -> Iterator[tuple[int, int, Sequence[Needed]]]:
        """What ended or is awaited, in lanes that did not go back."""
        for lane in state.numbers.values():
            if not lane.requeued:
                kept = [Needed(known.place, known.at, known.size) for known in self._kept(lane)]
                yield lane.number, lane.head, kept

    def moved(self, number: int, sequence: int, to: Place) -> MoveRecord:
        """A delivery's message stands elsewhere now."""
        return MoveRecord(number, sequence, *to)

    def needed(self, op: Past) -> Needed:
        """Of a delivery in a run."""
        assert isinstance(op, AddDelivery)
        return Needed(op.place, Place(op.segment, op.offset), op.size)


class Sweeper:
    """What time does."""

    def __init__(
        self,
        engine: Engine[OutboxState],
        context: Context,
        lanes: LaneReader,
        view: OutboxView,
        retention: Retention,
        remembered: PastDeliveries,
    ) -> None:
        self._engine, self._context, self._lanes, self._view = engine, context, lanes, view
        self._retention, self._remembered = retention, remembered
        self._compaction = Compaction(engine, OutboxSegments(retention, remembered))

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due, forget what is past its time; see the contract."""

        def job(commit: Commit[OutboxState]) -> tuple[list[MessageId], float | None]:
            now = self._context.clock.now()
            ended: list[MessageId] = []
            self._expire(commit, now, ended)
            dues = [*self._give_up(commit, now, life, ended), *commit.state.due.values()]
            dues += self._forget_old(commit, now, life, ended)
            due = self._remembered.sweep(commit, SWEEP)
            dues += [] if due is None else [due]
            return ended, min(dues, default=None)

        found = self._engine.write(job)
        self._compaction.run()
        self._engine.keep_reserve()
        return found

    def _expire(self, commit: Commit[OutboxState], now: float, ended: list[MessageId]) -> None:
        state = commit.state
        ops: list[AddDelivery | ClearDue] = []
        for (number, place), moment in sorted(state.due.items(), key=lambda item: item[1])[:SWEEP]:
            if moment > now:
                break
            lane = state.numbers[number]
            found = self._lanes.record(lane, place) if lane.queued(place) else None
            if found is not None:
                ops.append(add_queued(lane, *found, State.EXPIRED, now, "expired before the peer took it"))
                ended.append(MessageId(found[0].id))
            else:
                ops.append(ClearDue(number, place))
        for op in ops:
            commit.do(op)

    def _give_up(self, commit: Commit[OutboxState], now: float, life: float, ended: list[MessageId]) -> list[float]:
        """Dead is what was queued for too long; a lane is in order of age. Returns what is due next."""
        dues: list[float] = []
        ops = []
        for lane in commit.state.numbers.values():
            if self._lanes.depth(lane)[0] <= 0:
                continue
            for record, where in self._lanes.records(lane, lane.head):
                if not lane.queued(record.sequence):
                    continue
                if record.born + life > now or len(ended) >= SWEEP:
                    dues.append(record.born + life)
                    break
                ops.append(add_queued(lane, record, where, State.DEAD, now, f"given up after {life:g} s"))
                ended.append(MessageId(record.id))
        for op in ops:
            commit.do(op)
        return dues

    def _forget_old(self, commit: Commit[OutboxState], now: float, life: float, ended: list[MessageId]) -> list[float]:
        state, remember = commit.state, self._context.remember
        ops: list[Forget | ChangeDelivery | ForgetOwnId] = []
        dues: list[float] = []
        for lane in state.numbers.values():
            for known in lane.known.values():
                due = self._retention.forgotten_at(lane, known) if known.over else known.born + life
                if due > now or len(ops) >= SWEEP:
                    dues.append(due)
                elif known.over:
                    ops.append(Forget(known.number, known.place))
                else:
                    ops.append(change(known, State.DEAD, now, f"given up after {life:g} s"))
                    ended.append(MessageId(known.id))
                    dues.append(now + remember)
        for identity, own in state.own.items():
            old = own.born + remember <= now and len(ops) < 2 * SWEEP
            if old and not any(state.alive(number, place) for number, place in own.places):
                ops.append(ForgetOwnId(identity))
        for op in ops:
            commit.do(op)
        return dues

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones). Returns how many."""

        def job(commit: Commit[OutboxState]) -> int:
            over = [known for known in self._view.chosen(commit.state, selection) if known.over]
            past = (one.found for one in self._view.chosen_past(commit.state, selection))
            gone = self._remembered.forget(commit, past)
            for known in over:
                commit.do(Forget(known.number, known.place))
            return len(over) + gone

        return self._engine.write_durable(job, reserve=True)
