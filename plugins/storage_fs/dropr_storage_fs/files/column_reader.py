"""The fast way over sound records, for who reads a log from one end to the other.

Owns reading many records at once, as columns: frames that have an index whole, with one checksum, others record by
record. Wherever anything is not as it should be it stops, and the caller goes on with
`LogReader.scan`, which knows damage. Must not know what the records mean.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Container
from itertools import accumulate, compress, pairwise, repeat
from typing import NamedTuple
from zlib import crc32

import attrs

from dropr_storage_fs.files import layout
from dropr_storage_fs.files.layout import (
    FRAME_MAGIC,
    HEAD_SIZE,
    INDEX,
    INDEX_BYTES,
    RECORD_MAGIC,
    RECORD_SIZE,
    Frame,
    Record,
)
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import HEADER_SIZE, End, Place

BOTH = struct.Struct("<HHIIQd16sI")
"""The head of a record, and what follows it, in one."""
BLOCK = 1 << 19
_ID = 28
"""Where in a record its id begins."""


@attrs.define(eq=False)
class Columns:
    """Records in order, a list for each of their parts."""

    numbers: list[int] = attrs.field(factory=list)
    ids: list[bytes] = attrs.field(factory=list)
    flags: list[int] = attrs.field(factory=list)
    born: list[float] = attrs.field(factory=list)
    extras: list[bytes] = attrs.field(factory=list)
    envelopes: list[bytes] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    def without(self, *others: Container[int]) -> "Columns":
        """Those whose number is in none of these."""
        kept = [all(number not in numbers for numbers in others) for number in self.numbers]
        if all(kept):
            return self
        return Columns(
            list(compress(self.numbers, kept)), list(compress(self.ids, kept)), list(compress(self.flags, kept)),
            list(compress(self.born, kept)), list(compress(self.extras, kept)), list(compress(self.envelopes, kept)),
        )  # fmt: skip

    def records(self) -> list[Record]:
        """The same one by one; where they stand is not known."""
        columns = zip(self.numbers, self.ids, self.flags, self.born, self.extras, self.envelopes, repeat(0))
        return list(map(tuple.__new__, repeat(Record), columns))


class _KeptFrame(NamedTuple):
    """One frame with an index, in memory. ``base``: the offset of ``block`` in its segment; ``start``: of the frame in
    the block; ``bounds``: where its records begin there, and where the last one ends.
    """

    key: tuple[int, int, int]
    base: int
    start: int
    first: int
    block: bytes
    bounds: list[int]


class ColumnReader:
    """Reads for one half of a store. A frame of which only a part was wanted is kept for the next call: one, the last.
    Used under the half's lock.
    """

    def __init__(self) -> None:
        self.kept: _KeptFrame | None = None

    def read(self, log: Log, place: Place, end: End, after: int, most: int, room: int) -> tuple[Columns, Place]:
        """Sound records from ``place`` on with a sequence beyond ``after``, at most so many and so many bytes of
        envelopes (but one), and the place behind the last. Stops early at anything unusual.
        """
        walk = _Walk(self, log, end, after, most, room)
        while True:
            place, whole = walk.segment(place)
            names = log.segments.names()
            following = next((name for name in names if name > place.segment), None)
            if not whole or following is None or place.segment >= end.segment or walk.full:
                return walk.out, place
            place = Place(following, HEADER_SIZE)


class _Walk:
    """One call of `ColumnReader.read`."""

    def __init__(self, reader: ColumnReader, log: Log, end: End, after: int, most: int, room: int) -> None:
        self._reader, self._log, self._end, self._after = reader, log, end, after
        self._most, self._room = most, room
        self.out = Columns()
        self.full = most <= 0

    def segment(self, place: Place) -> tuple[Place, bool]:
        """Read one segment; the place behind, and whether it was read to its end."""
        segment, at = place
        log, end = self._log, self._end
        names = log.segments.names()
        found = log.segments.open(segment) if segment in names else None
        if found is None or segment > end.segment:
            return place, False
        limit = end.written if segment == end.segment else os.fstat(found.fd).st_size
        upper = next((name for name in names if name > segment), 1 << 63)
        key = (log.number, log.segments.epoch, segment)
        block, base, asked = b"", at, 0
        while at < limit and not self.full:
            kept = self._reader.kept
            if kept is None or kept.key != key or not kept.start <= at - kept.base < kept.bounds[-1]:
                kept, wanted = None, min(BLOCK, limit - at)
                frame = layout.read_frame(block, at - base, found.salt)
                whole = True
                if frame is not None and frame.flags & INDEX and frame.end - frame.body <= INDEX_BYTES:
                    wanted = min(max(wanted, frame.end - frame.at), limit - at)
                    whole = frame.end <= len(block)
                    kept = _kept_frame(key, block, base, frame, found.salt) if whole else None
                if kept is None and (whole or (base == at and asked >= wanted)):
                    done = self._take_each(block, at - base, found.salt, upper)
                    if done > at - base:
                        at = base + done
                        continue
                if kept is None:
                    if self.full or (base == at and asked >= wanted):
                        break
                    block, base, asked = os.pread(found.fd, wanted, at), at, wanted
                    continue
            if kept.first + len(kept.bounds) - 1 > upper:
                break
            at = self._take_kept(kept, at)
        return Place(segment, at), at >= limit

    def _take_kept(self, kept: _KeptFrame, at: int) -> int:
        """Take of a frame what is wanted; the offset behind it."""
        bounds, block, out = kept.bounds, kept.block, self.out
        count = len(bounds) - 1
        start = max(bisect_right(bounds, at - kept.base) - 1, self._after + 1 - kept.first, 0)
        if start >= count:
            return kept.base + bounds[-1]
        _, extra, _, _, _, born, _, flags = BOTH.unpack_from(block, bounds[0])
        fixed = RECORD_SIZE + extra
        stop = min(count, start + self._most)
        size = bounds[stop] - bounds[start] - fixed * (stop - start)
        if size > self._room:
            self.full = True
            stop = start + bisect_right([bound - bounds[start] - fixed * at for at, bound
                                         in enumerate(bounds[start + 1 : stop + 1], 1)], self._room)  # fmt: skip
            if stop == start and not out.numbers:
                stop = start + 1
            size = bounds[stop] - bounds[start] - fixed * (stop - start)
        number = stop - start
        self._room -= size
        self._most -= number
        self.full = self.full or self._most <= 0
        mine = bounds[start : stop + 1]
        out.numbers += range(kept.first + start, kept.first + stop)
        out.ids += [block[one + _ID : one + _ID + 16] for one in mine[:-1]]
        out.envelopes += [block[one + fixed : other] for one, other in pairwise(mine)]
        out.flags += repeat(flags, number)
        out.born += repeat(born, number)
        out.extras += repeat(block[bounds[0] + RECORD_SIZE : bounds[0] + fixed], number)
        self._reader.kept = kept if stop < count else None
        return kept.base + bounds[stop]

    def _take_each(self, block: bytes, done: int, salt: int, upper: int) -> int:
        """Take what is wanted record by record, as far as the block goes or to the next index."""
        size, after, out, unpack = len(block), self._after, self.out, BOTH.unpack_from
        view, start = memoryview(block), done
        last = size - RECORD_SIZE
        while done <= last:
            magic, extra, check, length, sequence, born, identity, flags = unpack(block, done)
            stop: int = done + HEAD_SIZE + length
            if stop > size or crc32(view[done + HEAD_SIZE : stop], salt ^ extra) != check:
                break
            if magic == RECORD_MAGIC:
                if sequence > after:
                    body = done + RECORD_SIZE + extra
                    if sequence >= upper or (stop - body > self._room and out.numbers):
                        self.full = True
                        break
                    self._room -= stop - body
                    self._most -= 1
                    out.numbers.append(sequence)
                    out.ids.append(identity)
                    out.flags.append(flags)
                    out.born.append(born)
                    out.extras.append(block[body - extra : body])
                    out.envelopes.append(block[body:stop])
                    if self._most <= 0 or self._room < 0:
                        self.full = True
                        return stop
            elif magic != FRAME_MAGIC or (done > start and _has_index(block, done)):
                break
            done = stop
        return done


def _has_index(block: bytes, at: int) -> bool:
    """Whether the frame whose sound header is at ``at`` has one."""
    return bool(layout.FRAME.unpack_from(block, at + HEAD_SIZE)[2] & INDEX)


def _kept_frame(key: tuple[int, int, int], block: bytes, base: int, frame: Frame, salt: int) -> _KeptFrame | None:
    """A frame with an index, if all its records are sound."""
    check, *lengths = struct.unpack(f"<{frame.count + 1}I", frame.lengths)
    bounds = list(accumulate(lengths, initial=frame.body))
    if bounds[-1] != frame.end or min(lengths, default=0) < RECORD_SIZE:
        return None
    if crc32(memoryview(block)[frame.body : frame.end], salt) != check:
        return None
    return _KeptFrame(key, base, frame.at, frame.first, block, bounds)
