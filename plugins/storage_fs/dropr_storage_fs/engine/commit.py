"""What one job writes: frames into logs, operations into the journal, all of it or nothing.

Owns the order: a job's operations are one commit of the journal, written when the job is done. Must not know what
they mean, nor when they are flushed.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from dropr_storage_fs.engine.operations import Operation
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import layout, shared
from dropr_storage_fs.files.layout import Record, Row, UniformRows
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import End, Place, Segment

S = TypeVar("S", bound=HalfState)
Key = TypeVar("Key")


class Commit(Generic[S]):
    """What one job writes. ``state``: what the half knows, this job's own operations included."""

    __slots__ = (
        "_applied",
        "_before",
        "_intends",
        "_journal_before",
        "_pending",
        "_promised",
        "_replica",
        "journalled",
        "state",
        "touched",
    )  # fmt: skip

    def __init__(self, replica: Replica[S], *, promised: bool) -> None:
        self._replica, self._promised = replica, promised
        self.state: S = replica.state
        self.touched: dict[int, Log] = {}
        """Logs to flush."""
        self.journalled = False
        """Whether a flush of the journal is a part of the promise."""
        self._before: list[tuple[Log, End]] = []
        self._pending: list[Operation[S]] = []
        self._applied = self._intends = False
        self._journal_before = replica.shared.slots[shared.JOURNAL]

    # ── logs ─────────────────────────────────────────────────────────────────────────────────────

    def log(self, number: int) -> Log:
        """A log by its number."""
        return self._replica.log(number)

    def end(self, number: int) -> End:
        """Where a log ends."""
        return self._replica.end(number)

    def is_flushed(self, number: int) -> bool:
        """Whether all of a log is on stable storage."""
        return self._replica.is_flushed(number)

    def touch(self, number: int) -> None:
        """Flush a log, though this job writes nothing into it."""
        self.touched[number] = self._replica.log(number)

    def frame(self, number: int, first: int, born: float, rows: Sequence[Row], extra: bytes = b"") -> None:
        """Append one frame to a log: records numbered from ``first`` on."""
        log = self._replica.log(number)
        end = log.end
        if not end.written:
            log.label(self._replica.model.label(self.state, number))
        target = log.ready()
        if target.first != end.segment:
            end = log.end
        self._before.append((log, end))
        data = frame_of(target, first, born, rows, log.slots.get(shared.SYNC_LAST), extra)
        size = sum(map(len, rows.envelopes)) if isinstance(rows, UniformRows) else sum([len(row[3]) for row in rows])
        log.append(target, end, data, max(first + len(rows) - 1, end.last), len(rows), size)
        self.touched[number] = log

    def copy(self, number: int, rows: Sequence[tuple[Key, Record]]) -> list[tuple[Key, Place]]:
        """Append copies of records to their own log, which counts them not. Returns where they stand."""
        log = self._replica.log(number)
        target = log.ready()
        end = log.end
        self._before.append((log, end))
        packed = []
        for _, record in rows:
            row = (record.id, record.flags, record.extra, record.envelope)
            packed += layout.pack_each(target.salt, record.sequence, record.born, [row])
        flags = flushed_mark(target, log.flushed.last) | layout.COPY
        data = layout.pack_frame(target.salt, end.last + 1, len(packed), b"".join(packed), flags)
        log.append(target, end, data, end.last, 0, 0)
        self.touched[number] = log
        at = end.written + layout.FRAME_SIZE
        out = []
        for (key, _), one in zip(rows, packed, strict=True):
            out.append((key, Place(end.segment, at)))
            at += len(one)
        return out

    # ── the journal ──────────────────────────────────────────────────────────────────────────────

    def do(self, op: Operation[S]) -> None:
        """Apply one operation; it is written when the job is done (or by `write`), and flushed with it."""
        self._applied = self.journalled = True
        op.apply(self.state)
        self._pending.append(op)

    def note(self, op: Operation[S]) -> None:
        """Apply one operation that can be told from the frames, too: it is written, and needs no flush."""
        self._applied = True
        op.apply(self.state)
        self._pending.append(op)

    def intend(self, op: Operation[S]) -> None:
        """`do` for the promise of a frame in one of several logs: it is flushed before any of them."""
        self._intends = True
        self.do(op)

    def write(self) -> None:
        """Write to the journal what was done so far, as one whole."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._replica.write_journal(pending, promised=self._promised and self.journalled)
            if self._intends:
                header = self._replica.shared
                header[shared.INTENT], self._intends = header[shared.JOURNAL], False

    def undo(self) -> None:
        """The job failed half-way: nobody has seen what it wrote, and nobody will."""
        for log, end in reversed(self._before):
            log.take_back(end)
        if self._applied:
            self._replica.take_back(self._journal_before)


def flushed_mark(target: Segment, flushed: int) -> int:
    """The part of a frame's flags that says up to where its segment is known to be on stable storage."""
    return min(max(0, flushed - target.first + 1), (1 << 28) - 1) << 4


def frame_of(
    target: Segment, first: int, born: float, rows: Sequence[Row], flushed: int, extra: bytes
) -> bytes | bytearray:
    """The frame of these records; ``flushed``: the last sequence known to be on stable storage."""
    return layout.pack_call(target.salt, first, born, rows, flushed_mark(target, flushed), extra)
