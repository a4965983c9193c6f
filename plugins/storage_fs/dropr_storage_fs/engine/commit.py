"""What one job writes: frames into logs, operations into the journal, all of it or nothing.

Owns the order: a job's operations are one commit of the journal, written when the job is done. Must not know what
they mean.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from dropr_storage_fs.engine.journal import Op
from dropr_storage_fs.files import layout, shared
from dropr_storage_fs.files.layout import Alike, Record, Row
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_recovery import End, Opened, Place

if TYPE_CHECKING:
    from dropr_storage_fs.engine.engine import Half

T = TypeVar("T")


class Commit:
    """What one job writes."""

    def __init__(self, half: "Half", *, promised: bool) -> None:
        self.half, self._promised = half, promised
        self.touched: dict[int, Log] = {}
        self.journalled = False
        """Whether a flush of the journal is a part of the promise."""
        self._before: list[tuple[Log, End]] = []
        self._pending: list[Op] = []
        self._applied = False
        self._journal_before = int(half.words[shared.JOURNAL])

    def frame(self, number: int, first: int, born: float, rows: Sequence[Row], extra: bytes = b"") -> None:
        """Append one frame to a log: records numbered from ``first`` on."""
        log = self.half.log(number)
        end = log.end
        if not end.written:
            log.label(self.half.state.label(number))
        target = log.ready()
        if target.first != end.segment:
            end = log.end
        self._before.append((log, end))
        data = frame_of(target, first, born, rows, log.word(shared.SYNC_LAST), extra)
        size = sum(map(len, rows.envelopes)) if isinstance(rows, Alike) else sum([len(row[3]) for row in rows])
        log.append(target, end, data, max(first + len(rows) - 1, end.last), len(rows), size)
        self.touched[number] = log

    def copy(self, number: int, rows: Sequence[tuple[T, Record]]) -> list[tuple[T, Place]]:
        """Append copies of records to their own log, which counts them not. Returns where they stand."""
        log = self.half.log(number)
        target = log.ready()
        end = log.end
        self._before.append((log, end))
        packed = [layout.pack_each(target.salt, record.sequence, record.born, [(record.id, record.flags, record.extra,
                                   record.envelope)])[0] for _, record in rows]  # fmt: skip
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

    def ops(self, ops: Sequence[Op]) -> None:
        """Apply operations; they are written when the job is done (or by `write`), and flushed with it."""
        for op in ops:
            self.do(op)

    def do(self, op: Op) -> None:
        """Apply one operation; it is written when the job is done, and flushed with it."""
        self._applied = self.journalled = True
        self.half.state.apply(op)
        self._pending.append(op)

    def note(self, op: Op) -> None:
        """Apply one operation that can be told from the frames, too: it is written, and needs no flush."""
        self._applied = True
        self.half.state.apply(op)
        self._pending.append(op)

    def write(self) -> None:
        """Write to the journal what was done so far, as one whole."""
        if self._pending:
            pending, self._pending = self._pending, []
            self.half.write_journal(pending, promised=self._promised and self.journalled)
            if any(op[0] == "intent" for op in pending):
                self.half.words[shared.INTENT] = self.half.words[shared.JOURNAL]

    def undo(self) -> None:
        """The job failed half-way: nobody has seen what it wrote, and nobody will."""
        for log, end in reversed(self._before):
            log.take_back(end)
        if self._applied:
            self.half.take_back(self._journal_before)


def flushed_mark(target: Opened, flushed: int) -> int:
    """The part of a frame's flags that says up to where its segment is known to be on stable storage."""
    return min(max(0, flushed - target.first + 1), (1 << 28) - 1) << 4


def frame_of(
    target: Opened, first: int, born: float, rows: Sequence[Row], flushed: int, extra: bytes
) -> bytes | bytearray:
    """The frame of these records; ``flushed``: the last sequence known to be on stable storage."""
    return layout.pack_call(target.salt, first, born, rows, flushed_mark(target, flushed), extra)
