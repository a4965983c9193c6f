"""The end of a log after a crash, and what of a torn or damaged tail stays.

Owns the search for the end: behind the last whole frame, or behind damage if a later frame proves that more had been
flushed. Must not know why a process or a machine died, nor what the records mean.
"""

import os
from collections.abc import Callable

from dropr_storage_fs.files import disk, layout
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_reader import NO_UPPER
from dropr_storage_fs.files.segment import HEADER_SIZE, End, Segment

Each = Callable[[Frame, list[Record]], None]
"""Told of each whole frame."""


def recover(log: Log, known: End | None, each: Each, *, cut: bool = True) -> None:
    """Find the end anew, beginning at ``known``; tell each whole frame behind it; cut a torn tail."""
    segments = log.segments
    segments.forget_names()
    names = segments.listed()
    if not names:
        log.slots.set_end(End(0, 0, 0, 0, 0))
        log.slots.set_flushed(End(0, 0, 0, 0, 0))
        return
    log.slots.set(0, names[-1])
    start = known if known is not None and known.segment in names else None
    for position, segment in enumerate(names):
        if start is not None and segment < start.segment:
            continue
        found = segments.open(segment)
        if found is None:
            if not cut or segment != names[-1]:
                continue
            # The last segment was being made when the power failed: nothing in it can have been promised.
            segments.dead_letter(segment)
            recover(log, known, each, cut=cut)
            return
        upper = names[position + 1] if position + 1 < len(names) else NO_UPPER
        if start is not None and segment == start.segment:
            end = start
        else:
            end = End(segment, HEADER_SIZE, found.first - 1, found.count, found.bytes)
        end = _tail(log, found, end, upper, each)
        if segment == names[-1]:
            known_to = start.written if start is not None and start.segment == segment else 0
            _finish(log, found, end, known_to, cut=cut)


def read_on(log: Log, known: End | None, each: Each) -> None:
    """Tell each whole frame behind ``known``, up to where what stands in the log counts; change nothing."""
    names = log.segments.listed()
    last, stop = log.sound
    for position, segment in enumerate(names):
        counts = segment <= last and (known is None or segment >= known.segment)
        found = log.segments.open(segment) if counts else None
        if found is None:
            continue
        upper = names[position + 1] if position + 1 < len(names) else NO_UPPER
        first = End(segment, HEADER_SIZE, found.first - 1, found.count, found.bytes)
        begin = known if known is not None and known.segment == segment else first
        _tail(log, found, begin, upper, each, stop if segment == last else None)


def _tail(log: Log, found: Segment, end: End, upper: int, each: Each, stop: int | None = None) -> End:
    """The end of a segment: behind its last whole frame, of those before ``stop``."""
    at = end.written
    size = os.fstat(found.fd).st_size
    if stop is not None:
        size = min(size, stop)
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
        walked = layout.walk(block[: frame.end], frame.body, found.salt)
        records = [item for item in walked if isinstance(item, Record)]
        if frame.flags & layout.COPY:  # what stands elsewhere and is counted there
            at += frame.end
            end = End(end.segment, at, *end[2:])
            continue
        last = max([end.last, frame.first + frame.count - 1])
        payload = sum(len(record.envelope) for record in records)
        each(frame, [record._replace(at=at + record.at) for record in records])
        at += frame.end
        end = End(end.segment, at, last, end.count + frame.count, end.bytes + payload)
    return _beyond(log, found, end, size, upper, each)


def _beyond(log: Log, found: Segment, end: End, size: int, upper: int, each: Each) -> End:
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
    log.segments.report_damage(found.first, end.written, end.written + best.at)
    records = [item for item in layout.walk(block[: best.at], 0, found.salt) if isinstance(item, Record)]
    after = End(
        end.segment,
        end.written + best.at,
        best.first - 1,
        end.count + len(records),
        end.bytes + sum(len(record.envelope) for record in records),
    )
    for record in records:
        frame = Frame(record.sequence, 1, 0, b"", 0, 0, 0)
        each(frame, [record._replace(at=end.written + record.at)])
    return _tail(log, found, after, upper, each, size)


def _finish(log: Log, found: Segment, end: End, known_to: int, *, cut: bool) -> None:
    size = os.fstat(found.fd).st_size
    if cut and size > end.written:
        tail = os.pread(found.fd, size - end.written, end.written)
        if tail.strip(b"\0"):
            log.segments.report_torn(found.first, end.written, len(tail))
        os.ftruncate(found.fd, end.written)
    if cut:
        # Who wrote it may have been killed within a flush that failed, and was the only one that was told.
        disk.write_again(found.fd, known_to, end.written)
        disk.flush_cut(found.fd)
    log.slots.set_end(end)
    log.slots.set_flushed(end)
