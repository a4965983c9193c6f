"""What one job writes: frames into logs, operations into the journal, all of it or nothing.

Owns the order: a job's operations are one commit of the journal, written when the job is done. Must not know what
they mean.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dropr_storage_fs import shared
from dropr_storage_fs.journal import Op
from dropr_storage_fs.log import Log, sealed
from dropr_storage_fs.mending import End

if TYPE_CHECKING:
    from dropr_storage_fs.half import Half


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

    def frame(
        self, number: int, first: int, last: int, make: Callable[[int], list[bytes]], size: int, extra: bytes = b""
    ) -> None:
        """Append one frame to a log. ``make``: its records, for the salt of the segment."""
        log = self.half.log(number)
        target = log.ready()
        self._before.append((log, log.end))
        records = make(target.salt)
        data = sealed(records, target, first, log.flushed.last, extra)
        log.append(target, data, last, len(records), size)
        self.touched[number] = log

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
