"""One segment file: its header, and how places in a log are named.

Owns the header's bytes. Must not know who appends or reads.
"""

import os
import struct
from typing import NamedTuple
from zlib import crc32

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


class Segment:
    """One open segment file."""

    __slots__ = ("_closing", "bytes", "count", "fd", "first", "pins", "room", "salt")

    def __init__(self, fd: int, first: int, salt: int, count: int, size: int) -> None:
        self.fd, self.first, self.salt, self.count, self.bytes = fd, first, salt, count, size
        self.room = 0
        """So long this file was when somebody looked; it may have been cut since."""
        self.pins = 0
        """How many flush by its descriptor: it is closed after the last of them."""
        self._closing = False

    def unpin(self) -> None:
        """One that flushed by its descriptor has done so."""
        self.pins -= 1
        if self._closing and not self.pins:
            self.close()

    def close(self) -> None:
        """Close its descriptor, or have whoever flushes by it do so; safe twice."""
        if self.pins:
            self._closing = True
            return
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def pack_header(salt: int, first: int, count: int, size: int) -> bytes:
    """The header of a new segment."""
    packed = HEADER.pack(MAGIC, VERSION, 0, salt, first, count, size, 0)[:-4]
    return (packed + crc32(packed).to_bytes(4, "little")).ljust(HEADER_SIZE, b"\0")


def read_header(fd: int, first: int) -> Segment | None:
    """An opened segment; None if its header is not sound."""
    packed = os.pread(fd, HEADER.size, 0)
    if len(packed) < HEADER.size or crc32(packed[:-4]) != int.from_bytes(packed[-4:], "little"):
        return None
    magic, version, _, salt, begins, count, size, _ = HEADER.unpack(packed)
    if magic != MAGIC or version != VERSION or begins != first:
        return None
    return Segment(fd, first, salt, count, size)
