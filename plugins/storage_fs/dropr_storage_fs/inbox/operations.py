"""The operations of the inbox's journal, and what each does.

Owns their shape on disk: an array that begins with the name (docs/formats/fs.md). Must not know when they are
written.
"""

from typing import NamedTuple

import msgspec

from dropr_core.model.message import State
from dropr_core.model.names import Head, MessageId, SourceLane, StoreId
from dropr_storage_fs.engine.operations import Common, Record
from dropr_storage_fs.engine.state import LogIntent
from dropr_storage_fs.files.layout import Row, encode
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.segment import End, Place
from dropr_storage_fs.inbox.outcome_operations import AddOutcome, Told, UseOutcomes
from dropr_storage_fs.inbox.rows import JobRecord, Lease, Queue, unpack_runs
from dropr_storage_fs.inbox.state import InboxState


class HeadRow(NamedTuple):
    """A head as it stands in frames and intents."""

    sender: str
    store: bytes
    channel: str
    priority: int
    sequence: int
    id: bytes


class RecordExtra(msgspec.Struct, array_like=True):
    """The extra part of a record."""

    sender: str
    key: str | None = None
    due: float = 0.0
    expires: float | None = None
    rank: int | None = None


decode_extra = msgspec.msgpack.Decoder(RecordExtra).decode
decode_frame_extra = msgspec.msgpack.Decoder(tuple[list[HeadRow], bytes]).decode


def encode_frame_extra(heads: list[HeadRow], transaction: bytes) -> bytes:
    """The extra part of a frame."""
    return encode((heads, transaction)) if heads or transaction else b""


class MakeQueue(Record, tag="queue"):
    """A queue begins."""

    queue: int
    channel: str
    priority: int

    def apply(self, state: InboxState) -> None:
        """Make it."""
        made = Queue(self.queue, self.channel, self.priority)
        state.queues[self.channel, self.priority] = state.numbers[self.queue] = made


class QueueCounters(msgspec.Struct, array_like=True, gc=False):
    """What a snapshot says of a queue."""

    frontier: int
    taken: int
    gone_bytes: int
    voids: list[int]
    noted: int
    void_runs: list[int] = []
    """The voids as first, count, first, count …; ``voids`` is empty then."""


class FullQueue(Record, tag="full_queue"):
    """All of a queue but its messages, in a snapshot."""

    queue: int
    counters: QueueCounters
    end: End | None

    def apply(self, state: InboxState) -> None:
        """Take it over."""
        queue, found = state.numbers[self.queue], self.counters
        queue.frontier, queue.taken, queue.gone_bytes = found.frontier, found.taken, found.gone_bytes
        queue.voids, queue.noted = Ranges(found.void_runs), found.noted
        queue.voids.update(found.voids)
        if self.end is not None:
            state.ends[self.queue] = self.end


class AddJob(Record, tag="task"):
    """A message that is not simply ready. ``fresh``: it is counted in its queue for the first time."""

    number: int
    queue: int
    id: bytes
    sender: str
    state: State
    flags: int
    size: int
    arrived: float
    key: str | None
    due: float
    expires: float | None
    segment: int
    offset: int
    attempts: int
    reasons: list[str]
    changed: float
    keep: float
    token: bytes
    consumer: str
    fresh: bool
    rank: int | None = None

    @classmethod
    def of(cls, job: JobRecord) -> "AddJob":
        """As snapshots and runs have it: the counters of the queue have it counted."""
        return cls(
            job.number, job.queue, job.id, job.sender, job.state, job.flags, job.size, job.arrived, job.key, job.due,
            job.expires, *job.at, job.attempts, job.reasons, job.changed, job.keep, job.token, job.consumer, False,
            job.rank,
        )  # fmt: skip

    def record(self) -> JobRecord:
        """What it adds."""
        return JobRecord(
            self.number, self.queue, self.id, self.sender, self.state, self.flags, self.size, self.arrived, self.key,
            self.due, self.expires, Place(self.segment, self.offset), self.attempts, list(self.reasons), self.changed,
            self.keep, self.token, self.consumer, self.rank,
        )  # fmt: skip

    def apply(self, state: InboxState) -> None:
        """Add it."""
        state.add(self.record())
        if self.fresh:
            queue = state.numbers[self.queue]
            queue.taken += 1
            queue.noted = max(queue.noted, self.number)


class Arrive(Record, tag="arrived"):
    """A message with a key, a delay or an expiry; it stands in the log, too."""

    queue: int
    number: int
    id: bytes
    flags: int
    born: float
    extra: bytes
    size: int
    segment: int
    offset: int

    def apply(self, state: InboxState) -> None:
        """Add it in the state in which it begins."""
        extra = decode_extra(self.extra)
        queue = state.numbers[self.queue]
        begins = state.entry_state(queue.channel, extra.key, extra.due, self.born)
        job = JobRecord(
            self.number, self.queue, self.id, extra.sender, begins, self.flags, self.size, self.born, extra.key,
            extra.due, extra.expires, Place(self.segment, self.offset), 0, [], self.born, 0.0, b"", "", extra.rank,
        )  # fmt: skip
        state.add(job)
        queue.taken += 1
        queue.noted = max(queue.noted, self.number)


class MoveJob(Record, tag="move"):
    """It changes its state."""

    number: int
    state: State
    changed: float
    attempts: int
    due: float
    token: bytes
    consumer: str
    reason: str
    keep: float
    rank: int | None = None

    def apply(self, state: InboxState) -> None:
        """Change it."""
        job = state.jobs.get(self.number)
        if job is None:
            return
        state.leave(job)
        job.state, job.changed, job.attempts, job.due = self.state, self.changed, self.attempts, self.due
        job.token, job.consumer, job.keep = self.token, self.consumer, self.keep
        if self.rank is not None:
            job.rank = self.rank
        if self.reason:
            job.reasons.append(self.reason)
        state.enter(job)


class MoveRecord(Record, tag="moved"):
    """It was copied forward."""

    queue: int
    number: int
    segment: int
    offset: int

    def apply(self, state: InboxState) -> None:
        """Note where it stands now."""
        job = state.jobs.get(self.number)
        if job is not None:
            job.at = Place(self.segment, self.offset)


class Drop(Record, tag="drop"):
    """Nothing is known of it any more."""

    number: int

    def apply(self, state: InboxState) -> None:
        """Forget it."""
        state.drop(self.number)


class Advance(Record, tag="front"):
    """Up to there nothing is simply ready any more."""

    queue: int
    frontier: int

    def apply(self, state: InboxState) -> None:
        """Note it."""
        state.advance(state.numbers[self.queue], self.frontier)


class LeasePlain(Record, tag="claim"):
    """Plain messages, as runs of numbers, are given to a consumer."""

    token: bytes
    consumer: str
    queue: int
    frontier: int
    runs: list[int]
    receipts: list[int]

    def apply(self, state: InboxState) -> None:
        """Note the lease."""
        live = unpack_runs(self.runs)
        lease = state.leases.get(self.token)
        count = len(live)
        if lease is None:
            state.leases[self.token] = Lease(self.token, self.consumer, self.queue, live, set(self.receipts))
        else:  # one call took from one queue in two goes
            lease.live |= live
            lease.receipts.update(self.receipts)
        queue = state.numbers[self.queue]
        queue.taken += count
        queue.leased += count
        state.advance(queue, self.frontier)


class Unlease(Record, tag="unlease"):
    """Some of them get a state of their own."""

    token: bytes
    runs: list[int]

    def apply(self, state: InboxState) -> None:
        """Take them out of the lease."""
        state.unlease(self.token, unpack_runs(self.runs))


class AcknowledgePlain(Record, tag="acked"):
    """Some of them are done."""

    token: bytes
    queue: int
    runs: list[int]
    count: int
    size: int

    def apply(self, state: InboxState) -> None:
        """Count them out."""
        state.unlease(self.token, unpack_runs(self.runs))
        queue = state.numbers[self.queue]
        queue.gone_bytes += self.size
        state.processed[queue.channel] += self.count


class CountProcessed(Record, tag="processed"):
    """So many more of a channel are done."""

    channel: str
    count: int

    def apply(self, state: InboxState) -> None:
        """Count them."""
        state.processed[self.channel] += self.count


class MoveHead(Record, tag="head"):
    """A head, noted with its frame. After a power cut only the logs know which arrivals are there: the journal may run
    ahead of them.
    """

    sender: str
    store: bytes
    channel: str
    priority: int
    sequence: int
    id: bytes

    def apply(self, state: InboxState) -> None:
        """Move it."""
        heads = state.tentative if state.cold and state.complete else state.heads
        source = SourceLane(self.sender, StoreId(self.store), self.channel, self.priority)
        heads[source] = Head(self.sequence, MessageId(self.id))


class TrueHead(Record, tag="true_head"):
    """A head that was read from a frame, or stands nowhere else."""

    sender: str
    store: bytes
    channel: str
    priority: int
    sequence: int
    id: bytes

    def apply(self, state: InboxState) -> None:
        """Move it."""
        source = SourceLane(self.sender, StoreId(self.store), self.channel, self.priority)
        state.heads[source] = Head(self.sequence, MessageId(self.id))
        state.tentative.pop(source, None)


class Void(Record, tag="void"):
    """A frame whose intent was never flushed: nothing of it was promised."""

    queue: int
    numbers: list[int]
    size: int

    def apply(self, state: InboxState) -> None:
        """Count it out."""
        queue = state.numbers[self.queue]
        queue.voids.update(one for one in self.numbers if one > queue.frontier)
        queue.taken += len(self.numbers)
        queue.gone_bytes += self.size


class Intent(Record, tag="intent"):
    """What a call for several queues stores in one of them."""

    queue: int
    first: int
    rows: list[Row]
    born: float
    heads: list[HeadRow]
    transaction: bytes

    def apply(self, state: InboxState) -> None:
        """Remember it, in recovery."""
        extra = encode_frame_extra(self.heads, self.transaction)
        state.promise(LogIntent(self.queue, self.first, self.born, self.rows, extra), self.transaction)


AnyOperation = (
    Common | MakeQueue | FullQueue | AddJob | Arrive | MoveJob | MoveRecord | Drop | Advance | LeasePlain | Unlease
    | AcknowledgePlain | CountProcessed | AddOutcome | Told | UseOutcomes | MoveHead | TrueHead | Void | Intent
)  # fmt: skip
