"""Segments after a crash: their headers, where they end, and what of a torn or damaged tail stays.

Owns the header of a segment and the search for the end of a log. Must not know who appends or reads.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from dropr_storage_fs.files import disk, layout
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.shared import Shared

Each = Callable[[Frame, list[Record]], None]
"""Told of each whole frame."""

HEADER = struct.Struct("<8sHHIQQQI")
"""magic, version, flags, salt, first sequence, records and bytes in the log before it, checksum."""
HEADER_SIZE = 64
MAGIC, VERSION = b"dropr-sg", 1


class Place(NamedTuple):
    """A position: first sequence of the segment, offset in its file."""

    segment: int
    offset: int


class End(NamedTuple):
    """Where a log ended at some moment."""

    segment: int
    written: int
    last: int
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs
    bytes: int


class Opened:
    """One segment file."""

    __slots__ = ("bytes", "count", "fd", "first", "room", "salt")

    def __init__(self, fd: int, first: int, salt: int, count: int, size: int) -> None:
        self.fd, self.first, self.salt, self.count, self.bytes = fd, first, salt, count, size
        self.room = 0
        """So long this file was when somebody looked; it may have been cut since."""


class Mending:
    """The part of `Log` that finds its end."""

    directory: Path
    _common: Shared
    _slot: int
    _names: list[int] | None
    _tell: Callable[[str, dict[str, Any]], None]
    _list: Callable[[], list[int]]
    open: Callable[[int], Opened | None]
    path: Callable[[int], Path]
    set_end: Callable[[End], None]
    set_flushed: Callable[[End], None]
    _report: Callable[[int, int, int], None]

    def recover(self, known: End | None, each: Each, *, cut: bool = True) -> None:
        """Find the end anew, beginning at ``known``; tell each whole frame behind it; cut a torn tail."""
        self._names = None
        names = self._list()
        if not names:
            self.set_end(End(0, 0, 0, 0, 0))
            self.set_flushed(End(0, 0, 0, 0, 0))
            return
        self._common.words[self._slot] = names[-1]
        start = known if known is not None and known.segment in names else None
        for position, segment in enumerate(names):
            if start is not None and segment < start.segment:
                continue
            found = self.open(segment)
            if found is None:
                if not cut or segment != names[-1]:
                    continue
                # The last segment was being made when the power failed: nothing in it can have been promised.
                path = self.path(segment)
                path.rename(path.with_suffix(f".aside-{os.urandom(3).hex()}"))
                disk.flush_directory(self.directory)
                self._names = None
                self.recover(known, each, cut=cut)
                return
            upper = names[position + 1] if position + 1 < len(names) else 1 << 63
            if start is not None and segment == start.segment:
                end = start
            else:
                end = End(segment, HEADER_SIZE, found.first - 1, found.count, found.bytes)
            end = self._tail(found, end, upper, each)
            if segment == names[-1]:
                self._finish(found, end, cut=cut)

    def look(self, known: End | None, each: Each) -> None:
        """Tell each whole frame behind ``known``, up to the end; change nothing."""
        names = self._list()
        for position, segment in enumerate(names):
            found = self.open(segment) if known is None or segment >= known.segment else None
            if found is None:
                continue
            upper = names[position + 1] if position + 1 < len(names) else 1 << 63
            first = End(segment, HEADER_SIZE, found.first - 1, found.count, found.bytes)
            self._tail(found, known if known is not None and known.segment == segment else first, upper, each)

    def _tail(self, found: Opened, end: End, upper: int, each: Each) -> End:
        """The end of a segment: behind its last whole frame."""
        at = end.written
        size = os.fstat(found.fd).st_size
        while at < size:
            head = os.pread(found.fd, 1 << 16, at)
            frame = layout.read_frame(head, 0, found.salt)
            if frame is None and len(head) == 1 << 16:
                head = os.pread(found.fd, 1 << 17, at)
                frame = layout.read_frame(head, 0, found.salt)
            if frame is None or frame.first >= upper:
                break
            block = head if frame.end <= len(head) else os.pread(found.fd, frame.end, at)
            if not layout.whole(block, frame, found.salt):
                break
            records = [item for item in layout.walk(block[: frame.end], frame.body, found.salt)
                       if isinstance(item, Record)]  # fmt: skip
            if frame.flags & layout.COPY:  # what stands elsewhere and is counted there
                at += frame.end
                end = End(end.segment, at, *end[2:])
                continue
            last = max([end.last, frame.first + frame.count - 1])
            payload = sum(len(record.envelope) for record in records)
            each(frame, [record._replace(at=at + record.at) for record in records])
            at += frame.end
            end = End(end.segment, at, last, end.count + frame.count, end.bytes + payload)
        return self._beyond(found, end, size, upper, each)

    def _beyond(self, found: Opened, end: End, size: int, upper: int, each: Each) -> End:
        """Damage in the middle, not a torn tail, if a later frame says that more was flushed when it was written."""
        if end.written >= size:
            return end
        block = os.pread(found.fd, size - end.written, end.written)
        best: Frame | None = None
        at = layout.resume(block, 1, found.salt)
        while at < len(block):
            frame = layout.read_frame(block, at, found.salt)
            if frame is not None and frame.first < upper:
                flushed = frame.flags >> 4
                if flushed > 0 and (found.first + flushed - 1) > end.last:
                    best = frame
                at = frame.body
            at = layout.resume(block, at + 1, found.salt)
        if best is None:
            return end
        self._report(found.first, end.written, end.written + best.at)
        records = [item for item in layout.walk(block[: best.at], 0, found.salt) if isinstance(item, Record)]
        after = End(
            end.segment, end.written + best.at, best.first - 1, end.count + len(records),
            end.bytes + sum(len(record.envelope) for record in records),
        )  # fmt: skip
        for record in records:
            frame = Frame(record.sequence, 1, 0, b"", 0, 0, 0)
            each(frame, [record._replace(at=end.written + record.at)])
        return self._tail(found, after, upper, each)

    def _finish(self, found: Opened, end: End, *, cut: bool) -> None:
        size = os.fstat(found.fd).st_size
        if cut and size > end.written:
            tail = os.pread(found.fd, size - end.written, end.written)
            if tail.strip(b"\0"):
                self._tell("torn", {"file": str(self.path(found.first)), "from": end.written, "bytes": len(tail)})
            os.ftruncate(found.fd, end.written)
        if cut:
            disk.flush_cut(found.fd)
        self.set_end(end)
        self.set_flushed(end)


def read_header(fd: int, first: int) -> Opened | None:
    """An opened segment; None if its header is not sound."""
    packed = os.pread(fd, HEADER.size, 0)
    if len(packed) < HEADER.size or crc32(packed[:-4]) != int.from_bytes(packed[-4:], "little"):
        return None
    magic, version, _, salt, begins, count, size, _ = HEADER.unpack(packed)
    if magic != MAGIC or version != VERSION or begins != first:
        return None
    return Opened(fd, first, salt, count, size)
