"""Reading a log: record by record, whatever is damaged.

Owns finding places, walking over all that is sound, and searching for an id. Called under the half's lock. Must not
know what the records mean.
"""

import os
from collections.abc import Iterator

from dropr_storage_fs.files import layout
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.segment import HEADER_SIZE, End, Place
from dropr_storage_fs.files.segments import Segments

BLOCK = 1 << 18
SEARCH_BLOCK = 1 << 22
NEAR = 1 << 16
NO_UPPER = 1 << 63


class LogReader:
    """Reads the segments of one log."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    def start(self, sequence: int, end: End) -> Place:
        """A place from which reading forward finds ``sequence`` (walks over the headers of one segment)."""
        names = self._segments.names()
        first = next((name for name in reversed(names) if name <= sequence), names[0] if names else 0)
        found = self._segments.open(first) if names else None
        if found is None:
            return Place(first, HEADER_SIZE)
        at = HEADER_SIZE
        limit = self._limit(first, end)
        while at < limit:
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

    def near(self, sequence: int, end: End) -> Place:
        """`start`, by halving the segment: for one look at a place where nobody reads on."""
        names = self._segments.names()
        first = next((name for name in reversed(names) if name <= sequence), names[0] if names else 0)
        found = self._segments.open(first) if names else None
        low, high = HEADER_SIZE, 0 if found is None else self._limit(first, end)
        while found is not None and high - low > BLOCK:
            middle = (low + high) // 2
            block = os.pread(found.fd, NEAR, middle)
            at = layout.resume(block, 0, found.salt)
            frame = layout.read_frame(block, at, found.salt)
            record = None if frame is not None else layout.read_record(block, at, found.salt)
            seen = frame.first if frame is not None else record[0].sequence if record is not None else 0
            if not first <= seen:  # a large record, damage, or a copy of an older one: read what is left
                return Place(first, low)
            low, high = (middle + at, high) if seen <= sequence else (low, middle)
        return Place(first, low)

    def _limit(self, segment: int, end: End) -> int:
        found = self._segments.open(segment)
        if found is None:
            return 0
        if segment == end.segment:
            return min(end.written, os.fstat(found.fd).st_size)
        return os.fstat(found.fd).st_size if segment < end.segment else 0

    def scan(self, place: Place, end: End) -> Iterator[tuple[Record | Frame, Place]]:
        """Everything sound from ``place`` to ``end``, each with its own place. What is damaged is told and passed."""
        names = self._segments.names()
        index = next((i for i, name in enumerate(names) if name >= place.segment), len(names))
        for position in range(index, len(names)):
            segment = names[position]
            if segment > end.segment:
                return
            upper = names[position + 1] if position + 1 < len(names) else NO_UPPER
            at = place.offset if segment == place.segment else HEADER_SIZE
            yield from self._scan_segment(segment, at, self._limit(segment, end), upper)

    def _scan_segment(self, segment: int, at: int, limit: int, upper: int) -> Iterator[tuple[Record | Frame, Place]]:
        found = self._segments.open(segment)
        size = BLOCK
        while found is not None and at < limit:
            if found.fd < 0:  # closed while the caller was busy with what it got
                found = self._segments.open(segment)
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
                        self._segments.report_damage(segment, at + item[0], at + item[1])
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

    def record_at(self, place: Place) -> Record | None:
        """The record at a place."""
        found = self._segments.open(place.segment)
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
        names = self._segments.names()
        for position, segment in enumerate(names):
            upper = names[position + 1] if position + 1 < len(names) else NO_UPPER
            if upper <= after + 1 or segment > end.segment:
                continue
            limit, at = self._limit(segment, end), HEADER_SIZE
            while at < limit:
                found = self._segments.open(segment)
                if found is None:
                    break
                block = os.pread(found.fd, SEARCH_BLOCK, at)
                spot = block.find(identity)
                while spot >= 0:
                    start = at + spot - layout.HEAD_SIZE - 16
                    if HEADER_SIZE <= start < limit:
                        record = self.record_at(Place(segment, start))
                        if record is not None and record.id == identity and after < record.sequence < upper:
                            yield record, Place(segment, start)
                    spot = block.find(identity, spot + 1)
                if len(block) < SEARCH_BLOCK:
                    break
                at += len(block) - 15
