"""What all processes at one half must agree on from call to call: ends of logs, numbers, generation.

Owns the file ``shared``, mapped into every process. It is a cache of the moment: whoever opens a half that
nobody else has open makes it anew from the logs. Read and written only under the half's lock.
"""

import mmap
import os
from pathlib import Path

from dropr_storage_fs.files.disk import open_file

MAX_LOGS = 60_000
_HEADER, _SLOT, _FIRST, _STEP = 64, 16, 56, 256
"""Words of the header and of a slot; slots of a fresh file, and by how many it grows."""

BUSY, GENERATION, JOURNAL, JOURNAL_SYNCED, NUMBER, INTENT, SUSPECT = range(7)
SEGMENT, WRITTEN, LAST, COUNT, BYTES, SYNC_SEGMENT, SYNCED, SYNC_LAST, SYNC_COUNT, SYNC_BYTES = range(10)
CUTS, EPOCH, CHECKED, CUT_SEGMENT, CUT_WRITTEN = range(10, 15)


class Shared:
    """Words of 64 bits: a header, and a slot for each log."""

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Map the file; None: a private one in memory."""
        self._path, self._read_only = path, read_only
        self._map: mmap.mmap | None = None
        self.words: memoryview
        self._slots = 0
        self._attach(_FIRST)

    def _attach(self, slots: int) -> None:
        """Map at least so many slots."""
        size = 8 * (_HEADER + _SLOT * slots)
        old = bytes(self._map) if self._map is not None and self._path is None else b""
        if self._path is None:
            mapped = mmap.mmap(-1, size)
            mapped[: len(old)] = old
        else:
            fd = open_file(self._path, write=not self._read_only, create=not self._read_only)
            try:
                have = os.fstat(fd).st_size
                if have < size and not self._read_only:
                    os.ftruncate(fd, size)
                size = max(have, size) if not self._read_only else have
                mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ if self._read_only else mmap.ACCESS_WRITE)
            finally:
                os.close(fd)
        self.close()
        self._map = mapped
        self._view = memoryview(mapped)
        self.words = self._view.cast("Q")
        self._slots = (size // 8 - _HEADER) // _SLOT

    def slot(self, number: int) -> int:
        """Index of the first word of a log's slot."""
        if number >= self._slots:
            self._attach(number + _STEP)
        return _HEADER + _SLOT * number

    def clear(self) -> None:
        """Everything to zero."""
        assert self._map is not None
        self._map[:] = bytes(len(self._map))

    def close(self) -> None:
        """Unmap; safe twice."""
        if self._map is not None and not self._map.closed:
            self.words.release()
            self._view.release()
            self._map.close()
