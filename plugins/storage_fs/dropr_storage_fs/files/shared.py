"""What all processes at one half must agree on from call to call: ends of logs, numbers, generation.

Owns the file ``shared``, mapped into every process: slots of 64 bits, a header of them and a row for each log. It is
a cache of the moment: whoever opens a half that nobody else has open makes it anew from the logs. Read and written
only under the half's lock.
"""

import mmap
import os
from pathlib import Path

from dropr_storage_fs.files.disk import allocate, open_file
from dropr_storage_fs.files.segment import End

MAX_LOGS = 60_000
_HEADER, _ROW, _FIRST, _STEP = 64, 16, 56, 256
"""Slots of the header and of a log's row; rows of a fresh file, and by how many it grows."""

BUSY, GENERATION, JOURNAL, JOURNAL_SYNCED, NUMBER, INTENT, SUSPECT, LEFTOVER = range(8)
SEGMENT, WRITTEN, LAST, COUNT, BYTES, SYNC_SEGMENT, SYNCED, SYNC_LAST, SYNC_COUNT, SYNC_BYTES = range(10)
CUTS, EPOCH, CHECKED, CUT_SEGMENT, CUT_WRITTEN, WRITER = range(10, 16)


class Shared:
    """Slots of 64 bits: a header, and a row for each log."""

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Map the file; None: a private one in memory."""
        self._path, self._read_only = path, read_only
        self._map: mmap.mmap | None = None
        self.slots: memoryview[int]
        """All slots, until the next `row` maps more of them."""
        self._rows = 0
        self._attach(_FIRST)

    def _attach(self, rows: int) -> None:
        """Map at least so many rows."""
        size = 8 * (_HEADER + _ROW * rows)
        old = bytes(self._map) if self._map is not None and self._path is None else b""
        if self._path is None:
            mapped = mmap.mmap(-1, size)
            mapped[: len(old)] = old
        else:
            fd = open_file(self._path, write=not self._read_only, create=not self._read_only)
            try:
                have = os.fstat(fd).st_size
                size = have if self._read_only else max(have, size)
                if not self._read_only:
                    allocate(fd, size)  # a page that the disk has no room for would end the process
                mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ if self._read_only else mmap.ACCESS_WRITE)
            finally:
                os.close(fd)
        self.close()
        self._map = mapped
        self._view = memoryview(mapped)
        self.slots = self._view.cast("Q")
        self._rows = (size // 8 - _HEADER) // _ROW

    def __getitem__(self, index: int) -> int:
        """One slot of the header."""
        return self.slots[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.slots[index] = value

    def row(self, number: int) -> int:
        """Index of the first slot of a log's row."""
        if number >= self._rows:
            self._attach(number + _STEP)
        return _HEADER + _ROW * number

    def clear(self) -> None:
        """Everything to zero."""
        assert self._map is not None
        self._map[:] = bytes(len(self._map))

    def close(self) -> None:
        """Unmap; safe twice."""
        if self._map is not None and not self._map.closed:
            self.slots.release()
            self._view.release()
            self._map.close()


class LogSlots:
    """The row of one log."""

    __slots__ = ("common", "row")

    def __init__(self, common: Shared, number: int) -> None:
        self.common, self.row = common, common.row(number)

    def get(self, index: int) -> int:
        """One slot."""
        return self.common.slots[self.row + index]

    def set(self, index: int, value: int) -> None:
        """Set one slot."""
        self.common.slots[self.row + index] = value

    def end(self) -> End:
        """What is written, flushed or not."""
        return tuple.__new__(End, self.common.slots[self.row : self.row + 5])

    def flushed(self) -> End:
        """What is on stable storage."""
        at = self.row + SYNC_SEGMENT
        return tuple.__new__(End, self.common.slots[at : at + 5])

    def set_end(self, end: End) -> None:
        """Note what is written."""
        slots, row = self.common.slots, self.row
        slots[row], slots[row + 1], slots[row + 2], slots[row + 3], slots[row + 4] = end

    def set_flushed(self, end: End) -> None:
        """Note what is on stable storage."""
        slots, row = self.common.slots, self.row + SYNC_SEGMENT
        slots[row], slots[row + 1], slots[row + 2], slots[row + 3], slots[row + 4] = end
