"""Reading the lanes' logs: what stands in a lane, and where to read on.

Owns the remembered places from which a lane is read on, and the births of what waits longest. Used inside a job.
Must not know why somebody reads.
"""

from collections.abc import Iterator

from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.column_reader import ColumnReader, Columns
from dropr_storage_fs.files.layout import Record
from dropr_storage_fs.files.segment import End, Place
from dropr_storage_fs.outbox.rows import LaneState
from dropr_storage_fs.outbox.state import OutboxState


class LaneReader:
    """Reads the lanes of one outbox."""

    def __init__(self, engine: Engine[OutboxState]) -> None:
        self._engine = engine
        self._columns = ColumnReader()
        self._at: dict[int, tuple[int, Place]] = {}
        """Lane → (place in the lane, where in the log its successor stands)."""
        self._next: dict[int, tuple[int, Place]] = {}
        """The same for the last that was taken, until the head has moved there."""
        self._born: dict[int, tuple[int, float]] = {}

    def depth(self, lane: LaneState) -> tuple[int, int]:
        """(messages, bytes) that are queued."""
        end = self._engine.end(lane.number)
        return end.count - lane.gone, end.bytes - lane.gone_bytes

    def records(self, lane: LaneState, after: int, end: End | None = None) -> Iterator[tuple[Record, Place]]:
        """The records of a lane beyond place ``after``, and where they stand."""
        log = self._engine.log(lane.number)
        end = log.end if end is None else end
        for item, where in log.reader.scan(self._start(lane, after), end):
            if isinstance(item, Record) and item.sequence > after:
                yield item, where

    def record(self, lane: LaneState, place: int) -> tuple[Record, Place] | None:
        """The record at a place of a lane."""
        found = next(self.records(lane, place - 1), None)
        return found if found is not None and found[0].sequence == place else None

    def columns(self, lane: LaneState, end: End, most: int, room: int) -> Columns:
        """What follows the head, as columns; nothing at anything unusual."""
        log = self._engine.log(lane.number)
        found, following = self._columns.read(log, self._start(lane, lane.head), end, lane.head, most, room)
        if found.numbers:
            self._next[lane.number] = (found.numbers[-1], following)
        return found

    def _start(self, lane: LaneState, after: int) -> Place:
        """Where in the log to read what stands beyond place ``after``."""
        kept = self._at.get(lane.number)
        if kept is not None and kept[0] == after:
            return kept[1]
        log = self._engine.log(lane.number)
        return log.reader.start(after + 1, log.end)

    # ── reading on ───────────────────────────────────────────────────────────────────────────────

    def read_up_to(self, lane: LaneState, place: int, following: Place) -> None:
        """What follows ``place`` stands at ``following``."""
        self._next[lane.number] = (place, following)

    def moved(self, lane: LaneState, head: int) -> None:
        """The head is at a place now: read on behind it."""
        following = self._next.get(lane.number)
        if following is not None and following[0] == head:
            self._at[lane.number] = following

    def forget(self, lane: LaneState) -> None:
        """The lane went back."""
        self._at.pop(lane.number, None)

    # ── what waits ───────────────────────────────────────────────────────────────────────────────

    def oldest(self, lane: LaneState) -> float | None:
        """The birth of the first delivery that is queued."""
        kept = self._born.get(lane.number)
        if kept is not None and lane.queued(kept[0]) and not lane.requeued:
            return kept[1]
        if self.depth(lane)[0] <= 0:
            return None
        queued = (record for record, _ in self.records(lane, lane.head) if lane.queued(record.sequence))
        first = next(queued, None)
        if first is None:
            return None
        self._born[lane.number] = (first.sequence, first.born)
        return first.born

    def find_queued(self, state: OutboxState, message_id: bytes) -> Iterator[tuple[LaneState, Record, Place]]:
        """Every queued delivery of a message."""
        for lane in state.numbers.values():
            if self.depth(lane)[0] > 0:
                log = self._engine.log(lane.number)
                for record, where in log.reader.find(message_id, lane.head, log.end):
                    if lane.queued(record.sequence):
                        yield lane, record, where
