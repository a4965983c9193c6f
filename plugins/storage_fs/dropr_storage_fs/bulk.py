"""The fast way over sound records, for who reads a log from one end to the other.

Owns one loop. Wherever anything is not as it should be it stops, and the caller goes on with `Log.scan`, which knows
damage. Must not know what the records mean.
"""

import os
import struct
from zlib import crc32

from dropr_storage_fs.layout import FRAME_MAGIC, FRAME_SIZE, HEAD_SIZE, RECORD_MAGIC, RECORD_SIZE, Record
from dropr_storage_fs.log import Log
from dropr_storage_fs.mending import HEADER_SIZE, End, Place

BOTH = struct.Struct("<HHIIQd16sI")
"""The head of a record, and what follows it, in one."""
BLOCK = 1 << 19


def read(log: Log, place: Place, end: End, after: int, most: int, room: int) -> tuple[list[Record], Place]:
    """Sound records from ``place`` on with a sequence beyond ``after``, at most so many and so many bytes of envelopes,
    and the place behind the last. Stops early at anything unusual.
    """
    out: list[Record] = []
    while True:
        more, place, whole = _read(log, place, end, after, most - len(out), room, first=not out)
        out += more
        names = log.segments()
        following = next((name for name in names if name > place.segment), None)
        if not whole or following is None or place.segment >= end.segment or len(out) >= most:
            return out, place
        room -= sum(len(record.envelope) for record in more)
        place = Place(following, HEADER_SIZE)


def _read(
    log: Log, place: Place, end: End, after: int, most: int, room: int, *, first: bool
) -> tuple[list[Record], Place, bool]:
    """The same of one segment, and whether it was read to its end. ``at`` of each: its offset there."""
    segment, at = place
    names = log.segments()
    found = log.open(segment) if segment in names else None
    out: list[Record] = []
    if found is None or segment > end.segment:
        return out, place, False
    limit = end.written if segment == end.segment else os.fstat(found.fd).st_size
    upper = next((name for name in names if name > segment), 1 << 63)
    salt = found.salt
    # The constructor of a named tuple costs as much as all the rest of the loop.
    add, unpack, new = out.append, BOTH.unpack_from, tuple.__new__
    while at < limit and most > 0:
        block = os.pread(found.fd, min(BLOCK, limit - at), at)
        size = len(block)
        view = memoryview(block)
        done, last = 0, size - RECORD_SIZE
        while done <= last:
            magic, extra, check, length, sequence, born, identity, flags = unpack(block, done)
            stop = done + HEAD_SIZE + length
            if stop > size or crc32(view[done + HEAD_SIZE : stop], salt ^ extra) != check:
                break
            if magic == RECORD_MAGIC:
                if sequence > after:
                    if sequence >= upper:
                        return out, Place(segment, at + done), False
                    body = done + RECORD_SIZE + extra
                    room -= stop - body
                    if most <= 0 or (room < 0 and (out or not first)):
                        return out, Place(segment, at + done), False
                    where = at + done
                    values = (sequence, identity, flags, born, block[body - extra : body], block[body:stop], where)
                    add(new(Record, values))
                    most -= 1
            elif magic != FRAME_MAGIC or length != FRAME_SIZE - HEAD_SIZE + extra:
                break
            done = stop
        at += done
        if done == 0:
            break
    return out, Place(segment, at), at >= limit
