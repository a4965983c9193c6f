"""The inbox for the engine: its operations, its snapshot, and what its logs tell after a death.

Owns nothing of the live state. Must not know files.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec

from dropr_storage_fs.engine.model import HalfModel
from dropr_storage_fs.engine.operations import Lost, Meta, Operation, UseRun
from dropr_storage_fs.files.layout import SPECIAL, Frame
from dropr_storage_fs.files.layout import Record as LogRecord
from dropr_storage_fs.inbox.operations import (
    AddJob,
    AnyOperation,
    Arrive,
    CountProcessed,
    FullQueue,
    LeasePlain,
    MakeQueue,
    MoveHead,
    QueueCounters,
    TrueHead,
    Void,
    decode_frame_extra,
)
from dropr_storage_fs.inbox.outcome_operations import AddOutcome, Told, UseOutcomes
from dropr_storage_fs.inbox.past_outcomes import PastOutcomes
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.rows import Queue, pack_runs
from dropr_storage_fs.inbox.state import InboxState

LOST_KEPT = 8
"""Generations given up after a disk error that are remembered: whoever waited for one of them asks soon."""

_decode = msgspec.msgpack.Decoder(list[AnyOperation]).decode
_decode_label = msgspec.json.Decoder(MakeQueue).decode


class InboxModel(HalfModel[InboxState]):
    """See module."""

    operations = get_args(AnyOperation)

    def __init__(self, remembered: PastJobs, outcomes: PastOutcomes) -> None:
        self._remembered, self._outcomes = remembered, outcomes

    def make_state(self) -> InboxState:
        """An empty state."""
        return InboxState()

    def decode(self, payload: bytes) -> Sequence[Operation[InboxState]]:
        """The operations of a commit."""
        return _decode(payload)

    def decode_label(self, data: bytes) -> tuple[int, Operation[InboxState]]:
        """What stands beside a queue's log."""
        found = _decode_label(data)
        return found.queue, found

    def label(self, state: InboxState, number: int) -> Sequence[object]:
        """What is written down beside it."""
        return ["queue", number, state.numbers[number].channel, state.numbers[number].priority]

    def snapshot(self, state: InboxState) -> list[Operation[InboxState]]:
        """Operations that make this state from nothing."""
        ops: list[Operation[InboxState]] = [Meta(state.store, state.number)]
        ops += [Lost(generation) for generation in state.lost[-LOST_KEPT:]]
        ops += [MakeQueue(number, queue.channel, queue.priority) for number, queue in state.numbers.items()]
        ops += [AddJob.of(job) for job in state.jobs.values()]
        for lease in state.leases.values():
            runs, receipts = pack_runs(sorted(lease.live)), sorted(lease.receipts)
            ops.append(LeasePlain(lease.token, lease.consumer, lease.queue, 0, runs, receipts))
        ops += [FullQueue(number, _counters(queue), state.ends.get(number)) for number, queue in state.numbers.items()]
        ops += [MoveHead(*source, *head) for source, head in state.heads.items()]
        for sender, rows in state.outcomes.items():
            ops += [AddOutcome.of(sender, row) for row in rows]
        for run in state.outcome_runs.values():
            ops.append(UseOutcomes(run.number, run.count, run.senders, run.last))
        ops += [Told(sender, number) for sender, number in state.told.items()]
        ops += [UseRun.of(one) for one in state.runs.values()]
        ops += [CountProcessed(channel, count) for channel, count in state.processed.items()]
        return ops

    def wants_generation(self, state: InboxState) -> bool:
        """When much is done with, or many outcomes wait for their senders."""
        return self._remembered.wanted(state) or self._outcomes.wanted(state)

    def set_down(self, state: InboxState, number: int) -> None:
        """Into runs. Raises OSError."""
        self._remembered.set_down(state, number)
        self._outcomes.set_down(state, number)

    def journal_version(self, state: InboxState) -> int:
        """3 if there is anything that an older version does not know: it must not open it."""
        new = state.runs or state.outcome_runs or any(queue.voids for queue in state.numbers.values())
        return 3 if new else 1

    def tidy(self, state: InboxState) -> None:
        """Runs that nobody knows any more go."""
        self._remembered.tidy(state.runs)
        self._outcomes.tidy(state)

    def recovered(
        self, state: InboxState, number: int, frame: Frame, records: Sequence[LogRecord], segment: int
    ) -> list[Operation[InboxState]]:
        """Heads, and messages with a state of their own, stand in the frames, too."""
        state.number = max([state.number, *(record.sequence for record in records)])
        heads, transaction = decode_frame_extra(frame.extra) if frame.extra else ([], b"")
        if transaction and transaction not in state.transactions and not state.damaged:
            numbers = [record.sequence for record in records]
            return [Void(number, numbers, sum(len(record.envelope) for record in records))]
        ops: list[Operation[InboxState]] = [TrueHead(*head) for head in heads]
        noted = state.numbers[number].noted
        for record in records:
            if record.flags & SPECIAL and record.sequence > noted:
                ops.append(Arrive(number, record.sequence, record.id, record.flags, record.born, record.extra,
                                  len(record.envelope), segment, record.at))  # fmt: skip
        return ops

    def forget_beyond(self, state: InboxState, last: Mapping[int, int]) -> None:
        """Forget messages that a log never got."""
        beyond = [one for one, job in state.jobs.items() if one > last.get(job.queue, one)]
        for one in beyond:
            job = state.drop(one)
            if job is not None:
                queue = state.numbers[job.queue]
                queue.taken -= 1
                queue.gone_bytes -= job.size
        for number, end in last.items():
            queue = state.numbers[number]
            queue.noted = min(queue.noted, end)
            queue.voids.keep_up_to(end)


def _counters(queue: Queue) -> QueueCounters:
    return QueueCounters(queue.frontier, queue.taken, queue.gone_bytes, [], queue.noted, queue.voids.packed())
