"""What all processes at one half must agree on from call to call: ends of logs, numbers, generation.

Owns the file ``shared``, mapped into every process. It is a cache of the moment: whoever opens a half that
nobody else has open makes it anew from the logs. Read and written only under the half's lock.
"""

import mmap
import os
from pathlib import Path

from dropr_storage_fs.disk import open_file

MAX_LOGS = 8000
_HEADER = 64
_SLOT = 16
_SIZE = 8 * (_HEADER + _SLOT * MAX_LOGS)

BUSY, GENERATION, JOURNAL, JOURNAL_SYNCED, NUMBER, INTENT = range(6)
SEGMENT, WRITTEN, LAST, COUNT, BYTES, SYNC_SEGMENT, SYNCED, SYNC_LAST, SYNC_COUNT, SYNC_BYTES, CUTS, EPOCH, CHECKED = (
    range(13)
)


class Shared:
    """Words of 64 bits: a header, and a slot for each log."""

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Map the file; None: a private one in memory."""
        if path is None:
            self._map = mmap.mmap(-1, _SIZE)
        elif read_only:
            fd = open_file(path)
            try:
                self._map = mmap.mmap(fd, _SIZE, access=mmap.ACCESS_READ)
            finally:
                os.close(fd)
        else:
            fd = open_file(path, write=True, create=True)
            try:
                if os.fstat(fd).st_size < _SIZE:
                    os.ftruncate(fd, _SIZE)
                self._map = mmap.mmap(fd, _SIZE)
            finally:
                os.close(fd)
        self._view = memoryview(self._map)
        self.words = self._view.cast("Q")

    @staticmethod
    def slot(number: int) -> int:
        """Index of the first word of a log's slot."""
        return _HEADER + _SLOT * number

    def clear(self) -> None:
        """Everything to zero."""
        self._map[:] = bytes(_SIZE)

    def close(self) -> None:
        """Unmap; safe twice."""
        if not self._map.closed:
            self.words.release()
            self._view.release()
            self._map.close()
