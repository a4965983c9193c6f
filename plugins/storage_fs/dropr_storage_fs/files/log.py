"""A log: append-only segments, and where it ends.

Owns appending to one log and what is known of its end: written, flushed, given up. Called under the half's lock.
Must not know what the records mean.
"""

import contextlib
import json
import os
from pathlib import Path

from dropr_core.errors import WriteFailed
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.log_reader import LogReader
from dropr_storage_fs.files.segment import HEADER_SIZE, End, Segment
from dropr_storage_fs.files.segments import OpenFiles, Segments, Tell
from dropr_storage_fs.files.shared import LogSlots, Shared

SEGMENT_SIZE = 32 << 20
AHEAD = 1 << 18
"""Bytes of zeros that are written ahead of small frames: a flush that need not make the file longer takes half the
time. Large frames pay for themselves. A fresh log begins with less, so that one that gets little costs little."""
AHEAD_FIRST = 1 << 12


class Log:
    """One log. ``number``: its row in the shared slots."""

    def __init__(
        self, place: Path, number: int, common: Shared, open_files: OpenFiles, tell: Tell, *, read_only: bool = False
    ) -> None:
        self.directory, self.number = place, number
        self.slots = LogSlots(common, number)
        self.segments = Segments(place, self.slots, open_files, tell, read_only=read_only)
        self.reader = LogReader(self.segments)

    @property
    def end(self) -> End:
        """What is written, flushed or not."""
        slots = self.slots  # every call asks several times
        return tuple.__new__(End, slots.common.slots[slots.row : slots.row + 5])

    @property
    def flushed(self) -> End:
        """What is on stable storage."""
        return self.slots.flushed()

    @property
    def sound(self) -> tuple[int, int]:
        """(segment, offset) behind which nothing counts, if nothing waits for a flush. Something may stand there yet: a
        disk that takes no writes lets nothing be cut off either.
        """
        slots, end = self.slots, self.flushed
        cut = (slots.get(shared.CUT_SEGMENT), slots.get(shared.CUT_WRITTEN))
        given_up = slots.get(shared.CUTS) and end[:2] == (cut[0], _beyond(cut[1]))
        return cut if given_up else end[:2]

    def close(self) -> None:
        """Close all files; safe twice."""
        self.segments.close()

    def label(self, values: object) -> None:
        """Write down what this log is, beside it: for people, and should the journal lose it."""
        disk.make_directory(self.directory)
        disk.put_file(self.directory / "name.json", json.dumps(values).encode() + b"\n")

    def ready(self) -> Segment:
        """The segment to append to, a new one if the last is full. Raises OSError."""
        end = self.end
        found = self.segments.open(end.segment) if end.written else None
        if found is not None and end.written < SEGMENT_SIZE:
            return found
        if found is not None and self.flushed[:2] != end[:2]:
            # Nothing may stand in a later segment while an earlier one is not flushed. What is left to flush is what
            # came in the last milliseconds.
            self.flush_again(found)
        if found is not None:
            os.ftruncate(found.fd, end.written)
        found = self.segments.create(end.last + 1, end.count, end.bytes)
        end = End(end.last + 1, HEADER_SIZE, end.last, end.count, end.bytes)
        self.slots.set_end(end)
        self.slots.set_flushed(end)
        return found

    def flush_again(self, segment: Segment) -> None:
        """Flush what is written, under the lock, and note it; whoever else may have been told that it failed. Raises
        OSError; then it is given up.
        """
        end, flushed = self.end, self.flushed
        try:
            disk.write_again(segment.fd, flushed.written if flushed.segment == end.segment else 0, end.written)
            disk.flush_file(segment.fd)
        except OSError:
            self.give_up_unflushed()
            raise
        self.slots.set_flushed(end)

    def append(self, target: Segment, end: End, frame: bytes | bytearray, last: int, count: int, size: int) -> None:
        """Write one frame behind the end, which is ``end``. Raises OSError; then nothing is there."""
        stop = end.written + len(frame)
        ahead = b""
        if len(frame) < AHEAD >> 2 and stop > target.room:
            target.room = os.fstat(target.fd).st_size
            if stop > target.room:
                room = min(AHEAD, max(AHEAD_FIRST, stop)) if AHEAD else 0
                ahead, target.room = bytes(room), stop + room
        try:
            disk.write_at(target.fd, frame + ahead if ahead else frame, end.written)
        except OSError:
            target.room = 0
            with contextlib.suppress(OSError):
                os.ftruncate(target.fd, end.written)
            raise
        at, slots = self.slots.row, self.slots.common.slots
        slots[at + shared.WRITTEN], slots[at + shared.LAST] = stop, last
        slots[at + shared.COUNT], slots[at + shared.BYTES] = end.count + count, end.bytes + size

    def take_back(self, end: End) -> None:
        """What was appended behind ``end`` by a call that failed has never been."""
        with contextlib.suppress(OSError):
            found = self.segments.open(end.segment)
            if found is not None:
                os.ftruncate(found.fd, end.written)
        self.slots.set_end(end)

    def pin(self, end: End) -> Segment:
        """A segment to flush without the lock; the caller unpins it. Raises OSError."""
        found = self.segments.open(end.segment)
        if found is None:
            path = self.segments.path(end.segment)
            raise FileNotFoundError(2, "a segment that was just written is gone", str(path))
        found.pins += 1
        return found

    def confirm(self, end: End, cuts: int) -> None:
        """After a flush: note it. Raises WriteFailed if what was flushed has been given up meanwhile."""
        slots, at = self.slots, self.slots.row
        header = slots.common.slots
        if cuts == header[at + shared.CUTS]:
            if end[:2] > (header[at + shared.SYNC_SEGMENT], header[at + shared.SYNCED]):
                slots.set_flushed(end)
        elif slots.get(shared.CUTS) != cuts + 1 or end[:2] > (
            slots.get(shared.CUT_SEGMENT), slots.get(shared.CUT_WRITTEN)
        ):  # fmt: skip
            raise WriteFailed(f"{self.directory}: another process met a disk error while this was written")

    def give_up_unflushed(self) -> None:
        """A flush failed: what is not flushed is given up, and the file is never written again."""
        end, slots = self.flushed, self.slots
        slots.set(shared.CUTS, slots.get(shared.CUTS) + 1)
        slots.set(shared.CUT_SEGMENT, end.segment)
        slots.set(shared.CUT_WRITTEN, end.written)
        with contextlib.suppress(OSError):
            old = self.segments.open(end.segment)
            if old is not None:
                os.ftruncate(old.fd, end.written)
        self.segments.drop(end.segment)
        # The next append makes a new segment; until then the end is beyond any limit.
        beyond = End(end.segment, _beyond(end.written), end.last, end.count, end.bytes)
        slots.set_end(beyond)
        slots.set_flushed(beyond)


def _beyond(written: int) -> int:
    """The end of a segment that is never written again."""
    return max(written, SEGMENT_SIZE)
