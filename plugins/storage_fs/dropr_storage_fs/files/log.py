"""A log: a directory of append-only segment files, each named by the first sequence that it may hold.

Owns appending, flushing, reading and mending of one log. Called under the half's lock.
Must not know what the records mean.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from dropr_core.errors import WriteFailed
from dropr_storage_fs.files import disk, layout, log_recovery, shared
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.log_recovery import HEADER_SIZE, End, Mending, Opened, Place
from dropr_storage_fs.files.shared import Shared

SEGMENT_SIZE = 32 << 20
OPEN_FILES = 6
BLOCK = 1 << 18
_AHEAD = 1 << 18


class Log(Mending):
    """One log. ``number``: its slot in the shared words."""

    def __init__(
        self, directory: Path, number: int, common: Shared, tell: Callable[[str, dict[str, Any]], None],
        *, read_only: bool = False,
    ) -> None:  # fmt: skip
        self.directory, self.number, self._common, self._tell = directory, number, common, tell
        self._slot = common.slot(number)
        self._epoch = self.word(shared.EPOCH)
        self._read_only = read_only
        self._files: dict[int, Opened] = {}
        self._names: list[int] | None = None
        self._told: set[tuple[int, int]] = set()

    @property
    def epoch(self) -> int:
        """Changes when files are replaced or removed."""
        return self.word(shared.EPOCH)

    # ── where it ends ────────────────────────────────────────────────────────────────────────────

    def word(self, index: int) -> int:
        """One word of its slot."""
        return self._common.words[self._slot + index]

    def set_word(self, index: int, value: int) -> None:
        """Set one word of its slot."""
        self._common.words[self._slot + index] = value

    @property
    def end(self) -> End:
        """What is written, flushed or not."""
        return tuple.__new__(End, self._common.words[self._slot : self._slot + 5])

    @property
    def flushed(self) -> End:
        """What is on stable storage."""
        at = self._slot + shared.SYNC_SEGMENT
        return End(*self._common.words[at : at + 5])

    def set_end(self, end: End) -> None:
        """Note what is written."""
        words, slot = self._common.words, self._slot
        words[slot], words[slot + 1], words[slot + 2], words[slot + 3], words[slot + 4] = end

    def set_flushed(self, end: End) -> None:
        """Note what is on stable storage."""
        words, slot = self._common.words, self._slot + shared.SYNC_SEGMENT
        words[slot], words[slot + 1], words[slot + 2], words[slot + 3], words[slot + 4] = end

    # ── segments ─────────────────────────────────────────────────────────────────────────────────

    def path(self, first: int) -> Path:
        """The file of a segment."""
        return self.directory / f"{first:016x}.seg"

    def segments(self) -> list[int]:
        """First sequences of all segments, in order."""
        self._renew()
        if self._names is None:
            self._names = self._list()
        return self._names

    def _renew(self) -> None:
        if self._epoch != self.word(shared.EPOCH):
            self.close()  # another process replaced or removed files
            self._epoch = self.word(shared.EPOCH)

    def _list(self) -> list[int]:
        try:
            return sorted(int(path.stem, 16) for path in self.directory.iterdir() if path.suffix == ".seg")
        except FileNotFoundError:
            return []

    def open(self, first: int) -> Opened | None:
        """A segment; None if it is gone or its header is damaged."""
        self._renew()
        found = self._files.get(first)
        if found is not None:
            return found
        path = self.path(first)
        try:
            fd = disk.open_file(path, write=not self._read_only)
        except FileNotFoundError:
            return None
        found = log_recovery.read_header(fd, first)
        if found is None:
            os.close(fd)
            if (first, 0) not in self._told:
                self._told.add((first, 0))
                self._tell("corrupt", {"file": str(path), "error": "the header of this segment is damaged"})
            return None
        self._keep(found)
        return found

    def _keep(self, found: Opened) -> None:
        while len(self._files) >= OPEN_FILES:
            self._close(self._files.pop(next(iter(self._files))))
        self._files[found.first] = found

    @staticmethod
    def _close(found: Opened) -> None:
        fd, found.fd = found.fd, -1
        os.close(fd)

    def changed(self) -> None:
        """Files were replaced or removed: other processes must open them anew."""
        self._common.words[self._slot + shared.EPOCH] += 1
        self._epoch = self.word(shared.EPOCH)
        self._names = None

    def create(self, first: int, count: int, size: int) -> Opened:
        """A new segment, its name on stable storage. A file of that name holds nothing acknowledged: it goes aside."""
        disk.make_directory(self.directory)
        path = self.path(first)
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_suffix(f".aside-{os.urandom(3).hex()}"))
        salt = int.from_bytes(os.urandom(4), "little")
        packed = log_recovery.HEADER.pack(log_recovery.MAGIC, log_recovery.VERSION, 0, salt, first, count, size, 0)[:-4]
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
        self.changed()
        self._keep(Opened(fd, first, salt, count, size))
        return self._files[first]

    def drop(self, first: int) -> None:
        """Forget an open file."""
        old = self._files.pop(first, None)
        if old is not None:
            self._close(old)
        self._names = None

    def remove(self, first: int) -> None:
        """Remove a segment of which nothing is needed any more. Not durable: it may come back, that harms nobody."""
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            self.path(first).unlink()
        self.changed()

    def close(self) -> None:
        """Close all files; safe twice."""
        for first in list(self._files):
            self.drop(first)

    def label(self, values: Sequence[Any]) -> None:
        """Write down what this log is, beside it: for people, and should the journal lose it."""
        disk.make_directory(self.directory)
        disk.put_file(self.directory / "name.json", json.dumps(values).encode() + b"\n")

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
        if found is not None:
            os.ftruncate(found.fd, end.written)
        found = self.create(end.last + 1, end.count, end.bytes)
        end = End(end.last + 1, HEADER_SIZE, end.last, end.count, end.bytes)
        self.set_end(end)
        self.set_flushed(end)
        return found

    def append(self, target: Opened, end: End, frame: bytes | bytearray, last: int, count: int, size: int) -> None:
        """Write one frame behind the end, which is ``end``. Raises OSError; then nothing is there."""
        stop = end.written + len(frame)
        # Zeros ahead: a flush that need not make the file longer takes half the time. Large frames pay for themselves.
        ahead = b""
        if len(frame) < _AHEAD >> 2 and stop > target.room:
            target.room = os.fstat(target.fd).st_size
            if stop > target.room:
                ahead, target.room = bytes(_AHEAD), stop + _AHEAD
        try:
            disk.write_at(target.fd, frame + ahead if ahead else frame, end.written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(target.fd, end.written)
            raise
        words, slot = self._common.words, self._slot
        words[slot + 1], words[slot + 2], words[slot + 3], words[slot + 4] = (
            stop, last, end.count + count, end.bytes + size)  # fmt: skip

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
        words, slot = self._common.words, self._slot
        if cuts == words[slot + shared.CUTS]:
            if end[:2] > (words[slot + shared.SYNC_SEGMENT], words[slot + shared.SYNCED]):
                self.set_flushed(end)
        elif words[slot + shared.CUTS] != cuts + 1 or end[:2] > (
            words[slot + shared.CUT_SEGMENT], words[slot + shared.CUT_WRITTEN]
        ):  # fmt: skip
            raise WriteFailed(f"{self.directory}: another process met a disk error while this was written")

    def fail(self) -> None:
        """A flush failed: what is not flushed is given up, and the file is never written again."""
        end = self.flushed
        self._common.words[self._slot + shared.CUTS] += 1
        self.set_word(shared.CUT_SEGMENT, end.segment)
        self.set_word(shared.CUT_WRITTEN, end.written)
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

    def size(self, segment: int) -> int:
        """Bytes of a segment's file; 0 if it is gone."""
        found = self.open(segment)
        return 0 if found is None else os.fstat(found.fd).st_size

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
            if found.fd < 0:  # closed while the caller was busy with what it got
                found = self.open(segment)
                if found is None:
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
                    if any(block[item[0] : item[1]]):  # zeros were written ahead, and stayed when the power failed
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
