"""A log: a directory of append-only segment files, each named by the first sequence that it may hold.

Owns appending, flushing, reading and mending of one log. Called under the half's lock.
Must not know what the records mean.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from dropr_core.errors import WriteFailed
from dropr_storage_fs import disk, layout, shared
from dropr_storage_fs.layout import Frame, Record
from dropr_storage_fs.shared import Shared

SEGMENT_SIZE = 64 << 20
BLOCK = 1 << 18
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
    count: int
    bytes: int


class Opened:
    """One segment file."""

    __slots__ = ("bytes", "count", "fd", "first", "salt")

    def __init__(self, fd: int, first: int, salt: int, count: int, size: int) -> None:
        self.fd, self.first, self.salt, self.count, self.bytes = fd, first, salt, count, size


class Log:
    """One log. ``number``: its slot in the shared words."""

    def __init__(
        self, directory: Path, number: int, common: Shared, tell: Callable[[str, dict[str, Any]], None],
        *, read_only: bool = False,
    ) -> None:  # fmt: skip
        self.directory, self.number, self._words, self._tell = directory, number, common.words, tell
        self._slot = Shared.slot(number)
        self._read_only = read_only
        self._files: dict[int, Opened] = {}
        self._names: list[int] | None = None
        self._told: set[tuple[int, int]] = set()

    # ── where it ends ────────────────────────────────────────────────────────────────────────────

    def word(self, index: int) -> int:
        """One word of its slot."""
        return self._words[self._slot + index]

    @property
    def end(self) -> End:
        """What is written, flushed or not."""
        return End(*self._words[self._slot : self._slot + 5])

    @property
    def flushed(self) -> End:
        """What is on stable storage."""
        at = self._slot + shared.SYNC_SEGMENT
        return End(*self._words[at : at + 5])

    def set_end(self, end: End) -> None:
        """Note what is written."""
        words, slot = self._words, self._slot
        words[slot], words[slot + 1], words[slot + 2], words[slot + 3], words[slot + 4] = end

    def set_flushed(self, end: End) -> None:
        """Note what is on stable storage."""
        words, slot = self._words, self._slot + shared.SYNC_SEGMENT
        words[slot], words[slot + 1], words[slot + 2], words[slot + 3], words[slot + 4] = end

    # ── segments ─────────────────────────────────────────────────────────────────────────────────

    def path(self, first: int) -> Path:
        """The file of a segment."""
        return self.directory / f"{first:016x}.seg"

    def segments(self) -> list[int]:
        """First sequences of all segments, in order."""
        if self._names is None or (self._names and self._names[-1] != self._words[self._slot]):
            self._names = self._list()
        return self._names

    def _list(self) -> list[int]:
        try:
            return sorted(int(path.stem, 16) for path in self.directory.iterdir() if path.suffix == ".seg")
        except FileNotFoundError:
            return []

    def open(self, first: int) -> Opened | None:
        """A segment; None if it is gone or its header is damaged."""
        found = self._files.get(first)
        if found is not None:
            return found
        path = self.path(first)
        try:
            fd = disk.open_file(path, write=not self._read_only)
        except FileNotFoundError:
            return None
        found = _read_header(fd, first)
        if found is None:
            os.close(fd)
            if (first, 0) not in self._told:
                self._told.add((first, 0))
                self._tell("corrupt", {"file": str(path), "error": "the header of this segment is damaged"})
            return None
        while len(self._files) >= 6:
            os.close(self._files.pop(next(iter(self._files))).fd)
        self._files[first] = found
        return found

    def create(self, first: int, count: int, size: int) -> Opened:
        """A new segment, its name on stable storage. A file of that name holds nothing acknowledged: it goes aside."""
        disk.make_directory(self.directory)
        path = self.path(first)
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_suffix(f".aside-{os.urandom(3).hex()}"))
        salt = int.from_bytes(os.urandom(4), "little")
        packed = HEADER.pack(MAGIC, VERSION, 0, salt, first, count, size, 0)[:-4]
        fd = disk.open_file(path, write=True, create=True)
        try:
            disk.write_at(fd, (packed + crc32(packed).to_bytes(4, "little")).ljust(HEADER_SIZE, b"\0"), 0)
            disk.flush_file(fd)
            disk.flush_directory(self.directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._names = None
        while len(self._files) >= 6:
            os.close(self._files.pop(next(iter(self._files))).fd)
        self._files[first] = Opened(fd, first, salt, count, size)
        return self._files[first]

    def drop(self, first: int) -> None:
        """Forget an open file."""
        old = self._files.pop(first, None)
        if old is not None:
            os.close(old.fd)
        self._names = None

    def remove(self, first: int) -> None:
        """Remove a segment of which nothing is needed any more. Not durable: it may come back, that harms nobody."""
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            self.path(first).unlink()

    def close(self) -> None:
        """Close all files; safe twice."""
        for first in list(self._files):
            self.drop(first)

    # ── appending ────────────────────────────────────────────────────────────────────────────────

    def ready(self) -> Opened:
        """The segment to append to, a new one if the last is full. Raises OSError."""
        end = self.end
        found = self.open(end.segment) if end.written else None
        if found is not None and end.written < SEGMENT_SIZE:
            return found
        if found is not None and self.flushed[:2] != end[:2]:
            # Nothing may stand in a later segment while an earlier one is not flushed. What is left to flush is what
            # came in the last milliseconds.
            try:
                disk.flush_file(found.fd)
            except OSError:
                self.fail()
                raise
            self.set_flushed(end)
        found = self.create(end.last + 1, end.count, end.bytes)
        end = End(end.last + 1, HEADER_SIZE, end.last, end.count, end.bytes)
        self.set_end(end)
        self.set_flushed(end)
        return found

    def append(self, target: Opened, frame: bytes, last: int, count: int, size: int) -> None:
        """Write one frame behind the end. Raises OSError; then nothing is there."""
        end = self.end
        try:
            disk.write_at(target.fd, frame, end.written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(target.fd, end.written)
            raise
        self.set_end(End(end.segment, end.written + len(frame), last, end.count + count, end.bytes + size))

    def take_back(self, end: End) -> None:
        """What was appended behind ``end`` by a call that failed has never been."""
        found = self.open(end.segment)
        if found is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(found.fd, end.written)
        self.set_end(end)

    def handle(self, end: End) -> int:
        """A descriptor to flush without the lock; the caller closes it."""
        found = self.open(end.segment)
        if found is None:
            raise FileNotFoundError(2, "a segment that was just written is gone", str(self.path(end.segment)))
        return os.dup(found.fd)

    def confirm(self, end: End, cuts: int) -> None:
        """After a flush: note it. Raises WriteFailed if what was flushed has been given up meanwhile."""
        have = self.flushed
        if cuts == self.word(shared.CUTS):
            if end[:2] > have[:2]:
                self.set_flushed(end)
        elif end[:2] > have[:2] or end.segment > have.segment:
            raise WriteFailed(f"{self.directory}: another process met a disk error while this was written")

    def fail(self) -> None:
        """A flush failed: what is not flushed is given up, and the file is never written again."""
        end = self.flushed
        self._words[self._slot + shared.CUTS] += 1
        old = self.open(end.segment)
        if old is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(old.fd, end.written)
        self.drop(end.segment)
        # The next append makes a new segment; until then the end is beyond any limit.
        self.set_end(End(end.segment, max(end.written, SEGMENT_SIZE), end.last, end.count, end.bytes))
        self.set_flushed(End(end.segment, max(end.written, SEGMENT_SIZE), end.last, end.count, end.bytes))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def start(self, sequence: int) -> Place:
        """A place from which reading forward finds ``sequence`` (walks over the headers of one segment)."""
        names = self.segments()
        first = next((name for name in reversed(names) if name <= sequence), names[0] if names else 0)
        found = self.open(first) if names else None
        if found is None:
            return Place(first, HEADER_SIZE)
        at = HEADER_SIZE
        end = self._limit(first, self.end)
        while at < end:
            block = os.pread(found.fd, BLOCK, at)
            base = at
            while True:
                frame = layout.read_frame(block, at - base, found.salt)
                if frame is None or frame.first > sequence:
                    break
                if frame.first + frame.count > sequence:
                    return Place(first, at)
                at = base + frame.end
            if frame is not None:
                return Place(first, at)
            if at == base:  # damaged, or the end: `scan` knows what to do
                return Place(first, at)
        return Place(first, at)

    def _limit(self, segment: int, end: End) -> int:
        found = self.open(segment)
        if found is None:
            return 0
        if segment == end.segment:
            return min(end.written, os.fstat(found.fd).st_size)
        return os.fstat(found.fd).st_size if segment < end.segment else 0

    def scan(self, place: Place, end: End) -> Iterator[tuple[Record | Frame, Place]]:
        """Everything sound from ``place`` to ``end``, each with its own place. What is damaged is told and passed."""
        names = self.segments()
        index = next((i for i, name in enumerate(names) if name >= place.segment), len(names))
        for position in range(index, len(names)):
            segment = names[position]
            if segment > end.segment:
                return
            upper = names[position + 1] if position + 1 < len(names) else 1 << 63
            at = place.offset if segment == place.segment else HEADER_SIZE
            yield from self._scan_segment(segment, at, self._limit(segment, end), upper)

    def _scan_segment(self, segment: int, at: int, limit: int, upper: int) -> Iterator[tuple[Record | Frame, Place]]:
        found = self.open(segment)
        size = BLOCK
        while found is not None and at < limit:
            if found.fd < 0:
                return
            block = os.pread(found.fd, min(size, limit - at), at)
            last = at + len(block) >= limit
            done = 0
            for item in layout.walk(block, 0, found.salt):
                if isinstance(item, Record):
                    if item.sequence < upper:
                        yield item, Place(segment, at + item.at)
                    done = item.at + layout.RECORD_SIZE + len(item.extra) + len(item.envelope)
                elif isinstance(item, Frame):
                    if item.first >= upper:
                        return
                    yield item, Place(segment, at + item.at)
                    done = item.body
                elif item[1] < len(block) or last:
                    self._report(segment, at + item[0], at + item[1])
                    done = item[1]
                else:
                    break  # cut off by the end of the block, or damaged up to there: look again with more
            if done == 0 and not last:
                size *= 4
                if size > 1 << 31:
                    return
            else:
                at, size = at + done, BLOCK
                if done == 0:
                    return
            if found.first not in self._files:
                found = self.open(segment)

    def _report(self, segment: int, start: int, end: int) -> None:
        if (segment, start) not in self._told:
            self._told.add((segment, start))
            error = "these bytes are damaged; what they held is lost, all else is read"
            self._tell("corrupt", {"file": str(self.path(segment)), "from": start, "to": end, "error": error})

    def record_at(self, place: Place) -> Record | None:
        """The record at a place."""
        found = self.open(place.segment)
        if found is None:
            return None
        block = os.pread(found.fd, 4096, place.offset)
        record = layout.read_record(block, 0, found.salt)
        if record is None and len(block) >= layout.HEAD_SIZE:
            length = layout.HEAD_SIZE + layout.HEAD.unpack_from(block, 0)[3]
            if 4096 < length < 1 << 31:
                record = layout.read_record(os.pread(found.fd, length, place.offset), 0, found.salt)
        return None if record is None else record[0]

    def find(self, identity: bytes, after: int, end: End) -> Iterator[tuple[Record, Place]]:
        """Every record with an id beyond sequence ``after``."""
        names = self.segments()
        for position, segment in enumerate(names):
            upper = names[position + 1] if position + 1 < len(names) else 1 << 63
            if upper <= after + 1 or segment > end.segment:
                continue
            found, limit, at = self.open(segment), self._limit(segment, end), HEADER_SIZE
            while found is not None and at < limit:
                block = os.pread(found.fd, 1 << 22, at)
                spot = block.find(identity)
                while spot >= 0:
                    start = at + spot - layout.HEAD_SIZE - 16
                    if start >= HEADER_SIZE and start < limit:
                        record = self.record_at(Place(segment, start))
                        if record is not None and record.id == identity and after < record.sequence < upper:
                            yield record, Place(segment, start)
                    spot = block.find(identity, spot + 1)
                if len(block) < 1 << 22:
                    break
                at += len(block) - 15

    # ── mending ──────────────────────────────────────────────────────────────────────────────────

    def recover(self, known: End | None, each: Callable[[Frame, list[Record]], None], *, cut: bool = True) -> None:
        """Find the end anew, beginning at ``known``; tell each whole frame behind it; cut a torn tail."""
        self._names = None
        names = self._list()
        if not names:
            self.set_end(End(0, 0, 0, 0, 0))
            self.set_flushed(End(0, 0, 0, 0, 0))
            return None
        self._words[self._slot] = names[-1]
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

    def look(self, known: End | None, each: Callable[[Frame, list[Record]], None]) -> None:
        """Tell each whole frame behind ``known``; change nothing."""
        names = self._list()
        for position, segment in enumerate(names):
            if known is not None and segment < known.segment:
                continue
            found = self.open(segment)
            if found is None:
                continue
            upper = names[position + 1] if position + 1 < len(names) else 1 << 63
            first = End(segment, HEADER_SIZE, found.first - 1, found.count, found.bytes)
            self._tail(found, known if known is not None and known.segment == segment else first, upper, each)

    def _tail(self, found: Opened, end: End, upper: int, each: Callable[[Frame, list[Record]], None]) -> End:
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
            last = max([end.last, frame.first + frame.count - 1])
            payload = sum(len(record.envelope) for record in records)
            each(frame, [record._replace(at=at + record.at) for record in records])
            at += frame.end
            end = End(end.segment, at, last, end.count + frame.count, end.bytes + payload)
        return self._beyond(found, end, size, upper, each)

    def _beyond(
        self, found: Opened, end: End, size: int, upper: int, each: Callable[[Frame, list[Record]], None]
    ) -> End:
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
            os.fsync(found.fd)
        self.set_end(end)
        self.set_flushed(end)


def _read_header(fd: int, first: int) -> Opened | None:
    packed = os.pread(fd, HEADER.size, 0)
    if len(packed) < HEADER.size or crc32(packed[:-4]) != int.from_bytes(packed[-4:], "little"):
        return None
    magic, version, _, salt, begins, count, size, _ = HEADER.unpack(packed)
    if magic != MAGIC or version != VERSION or begins != first:
        return None
    return Opened(fd, first, salt, count, size)


def sealed(records: Sequence[bytes], target: Opened, first: int, flushed: int, extra: bytes = b"") -> bytes:
    """The frame of these records; ``flushed``: the last sequence known to be on stable storage."""
    mark = max(0, flushed - target.first + 1)
    return layout.pack_frame(target.salt, first, records, min(mark, (1 << 28) - 1) << 4, extra)
