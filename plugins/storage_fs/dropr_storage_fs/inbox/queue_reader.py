"""Reading the queues' logs: what is simply ready, and what stands where.

Owns the remembered places from which a queue is read on. Used inside a job. Must not know why somebody reads.
"""

from collections.abc import Iterator

from dropr_core.model.message import State
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.column_reader import ColumnReader, Columns
from dropr_storage_fs.files.layout import SPECIAL, Record
from dropr_storage_fs.files.segment import End, Place
from dropr_storage_fs.inbox.operations import decode_extra
from dropr_storage_fs.inbox.rows import JobRecord, Queue
from dropr_storage_fs.inbox.state import InboxState

SENDERS_KEPT = 1000
LIVE = frozenset({State.READY, State.BLOCKED, State.DELAYED, State.LEASED})


class QueueReader:
    """Reads the queues of one inbox."""

    def __init__(self, engine: Engine[InboxState]) -> None:
        self._engine = engine
        self._columns = ColumnReader()
        self._at: dict[int, tuple[int, Place]] = {}
        """Queue → (number, where in the log its successor stands)."""
        self._senders: dict[bytes, str] = {}

    # ── in order ─────────────────────────────────────────────────────────────────────────────────

    def _start(self, queue: Queue, after: int) -> Place:
        kept = self._at.get(queue.number)
        if kept is not None and kept[0] == after:
            return kept[1]
        log = self._engine.log(queue.number)
        return log.reader.start(after + 1, log.end)

    def read_up_to(self, queue: Queue, number: int, following: Place) -> None:
        """What follows ``number`` stands at ``following``."""
        self._at[queue.number] = (number, following)

    def records(self, queue: Queue, after: int, end: End | None = None) -> Iterator[tuple[Record, Place]]:
        """The records of a queue beyond a number, and where they stand."""
        log = self._engine.log(queue.number)
        end = log.end if end is None else end
        for item, where in log.reader.scan(self._start(queue, after), end):
            if isinstance(item, Record) and item.sequence > after:
                yield item, where

    def fresh(
        self, state: InboxState, queue: Queue, after: int, end: End | None = None
    ) -> Iterator[tuple[Record, Place]]:
        """Those that are simply ready."""
        jobs, voids = state.jobs, queue.voids
        for record, where in self.records(queue, max(after, queue.frontier), end):
            if not (record.flags & SPECIAL) and record.sequence not in jobs and record.sequence not in voids:
                yield record, where

    def leased(self, queue: Queue, numbers: set[int]) -> Iterator[tuple[Record, Place]]:
        """The records of some numbers."""
        if numbers:
            last = max(numbers)
            for record, where in self.records(queue, min(numbers) - 1):
                if record.sequence > last:
                    return
                if record.sequence in numbers:
                    yield record, where

    def columns(self, queue: Queue, most: int) -> tuple[Columns, Place]:
        """What is flushed and follows the frontier, as columns, and the place behind; none at anything unusual."""
        log, after = self._engine.log(queue.number), queue.frontier
        return self._columns.read(log, self._start(queue, after), log.flushed, after, most, 1 << 62)

    # ── how many ─────────────────────────────────────────────────────────────────────────────────

    def left(self, queue: Queue) -> int:
        """How many are simply ready."""
        return self._engine.end(queue.number).count - queue.taken

    def waiting(self, queue: Queue) -> tuple[int, int]:
        """(messages, bytes) of all that is not done with."""
        end = self._engine.end(queue.number)
        live = sum(count for state, count in queue.tally.items() if state in LIVE)
        return end.count - queue.taken + live + queue.leased, end.bytes - queue.gone_bytes - queue.dead_bytes

    # ── one message ──────────────────────────────────────────────────────────────────────────────

    def sender_of(self, record: Record) -> str:
        """Who sent it."""
        known = self._senders.get(record.extra)
        if known is None:
            known = decode_extra(record.extra).sender
            if not record.flags & SPECIAL and len(self._senders) < SENDERS_KEPT:
                self._senders[record.extra] = known
        return known

    def body(self, job: JobRecord) -> bytes:
        """The envelope of a message with a state of its own; empty if it is damaged."""
        record = self._engine.log(job.queue).reader.record_at(job.at)
        return b"" if record is None else record.envelope

    def numbered(self, state: InboxState, number: int, *, flushed: bool = False) -> tuple[Queue, Record, Place] | None:
        """The message with a number, if it is simply ready (and what is asked for ``flushed``)."""
        for queue in state.numbers.values():
            log = self._engine.log(queue.number)
            if queue.frontier < number <= (log.flushed if flushed else log.end).last and self.left(queue) > 0:
                found = self.at(queue, number)
                plain = found is not None and not found[0].flags & SPECIAL
                if found is not None and plain and number not in state.jobs and number not in queue.voids:
                    return queue, *found
        return None

    def at(self, queue: Queue, number: int) -> tuple[Record, Place] | None:
        """The record with a number in a queue."""
        log = self._engine.log(queue.number)
        for item, where in log.reader.scan(log.reader.near(number, log.end), log.end):
            if isinstance(item, Record) and item.sequence >= number:
                return (item, where) if item.sequence == number else None
        return None

    def find(self, state: InboxState, identity: bytes) -> Iterator[tuple[Queue, Record, Place]]:
        """Every message with an id that is simply ready, or leased with others."""
        for queue in state.numbers.values():
            log = self._engine.log(queue.number)
            mine = [lease.live for lease in state.leases_of(queue)]
            lowest = min([queue.frontier, *(min(live) - 1 for live in mine if live)])
            if log.end.count <= queue.taken and not mine:
                continue
            for record, where in log.reader.find(identity, lowest, log.end):
                if state.stands(queue, record.sequence):
                    yield queue, record, where
