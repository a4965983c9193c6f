"""Bytes of a segment: how records and frames look, and how to walk over them, damaged or not.

Owns the layout (docs/formats/fs.md). A frame is what one call stored in one log: a header and its records.
Every record stands for itself and has a checksum, so that damage costs what is damaged. Must not know files.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, overload
from zlib import crc32

import msgspec

FRAME_MAGIC = 0x46D7
RECORD_MAGIC = 0x52D7

HEAD = struct.Struct("<HHII")
"""magic, length of the extra part, checksum, length of everything behind it. The checksum is of what follows, and
begins with the salt of the segment combined with the length of the extra part."""
RECORD = struct.Struct("<Qd16sI")
"""sequence, node time of birth, id, flags. Then the extra part (MessagePack), then the envelope."""
FRAME = struct.Struct("<QIIQ")
"""first sequence, how many records, flags, bytes of the records. Then the extra part, then the index if there is one;
then the records."""
HEAD_SIZE, RECORD_SIZE, FRAME_SIZE = HEAD.size, HEAD.size + RECORD.size, HEAD.size + FRAME.size

RECEIPT, DELAYED, DUPLICATE, OWN, EXPIRES, SPECIAL = 1, 2, 4, 8, 16, 32

COPY, INDEX = 1, 2
"""Flags of a frame: its records are copies of older ones, whose segment can go then; it has an index: a checksum of all
its records together, begun with the salt, and the length of each. They are numbered from the first on without gaps and
alike in everything but id and envelope."""
INDEX_LEAST, INDEX_MOST, INDEX_BYTES = 16, 12_000, 8 << 20
"""Frames of so many records, and up to so long, are written with an index, if their records are alike: who reads by an
index has all of its frame in memory.
"""

encode = msgspec.msgpack.Encoder().encode


class Record(NamedTuple):
    """One message as it stands in a log. ``at``: offset in the block; ``size``: of the envelope."""

    sequence: int
    id: bytes
    flags: int
    born: float
    extra: bytes
    envelope: bytes
    at: int


class Frame(NamedTuple):
    """The header of what one call stored. ``end``: offset behind its last record."""

    first: int
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs
    flags: int
    extra: bytes
    at: int
    body: int
    end: int
    lengths: bytes = b""
    """The index."""


Row = tuple[bytes, int, bytes, bytes]
"""id, flags, extra part, envelope."""


class UniformRows(Sequence[Row]):
    """Rows that differ in id and envelope only, as columns: most are, and many are written at once."""

    __slots__ = ("envelopes", "extra", "flags", "ids")

    def __init__(self, ids: Sequence[bytes], envelopes: Sequence[bytes], flags: int, extra: bytes) -> None:
        self.ids, self.envelopes, self.flags, self.extra = ids, envelopes, flags, extra

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> "UniformRows": ...

    def __getitem__(self, at: int | slice) -> "Row | UniformRows":
        if isinstance(at, slice):
            return UniformRows(self.ids[at], self.envelopes[at], self.flags, self.extra)
        return self.ids[at], self.flags, self.extra, self.envelopes[at]

    def __iter__(self) -> Iterator[Row]:
        return zip(self.ids, repeat(self.flags), repeat(self.extra), self.envelopes)


def pack_each(salt: int, first: int, born: float, rows: Sequence[Row]) -> list[bytes]:
    """The bytes of records numbered from ``first`` on."""
    out: list[bytes] = []
    add, head, pack = out.append, HEAD.pack, RECORD.pack
    for identity, flags, extra, data in rows:
        length = len(extra)
        if length:
            rest = pack(first, born, identity, flags) + extra + data
        else:
            rest = pack(first, born, identity, flags) + data
        add(head(RECORD_MAGIC, length, crc32(rest, salt ^ length), len(rest)) + rest)
        first += 1
    return out


def _frame_head(salt: int, first: int, count: int, size: int, flags: int, extra: bytes, index: bytes) -> bytes:
    rest = FRAME.pack(first, count, flags | INDEX if index else flags, size)
    if extra or index:
        rest = b"".join((rest, extra, index))
    return HEAD.pack(FRAME_MAGIC, len(extra), crc32(rest, salt ^ len(extra)), len(rest)) + rest


def pack_frame(salt: int, first: int, count: int, body: bytes, flags: int = 0, extra: bytes = b"") -> bytes:
    """The bytes of one frame; ``body``: its records."""
    return _frame_head(salt, first, count, len(body), flags, extra, b"") + body


def pack_call(salt: int, first: int, born: float, rows: Sequence[Row], flags: int = 0,
              extra: bytes = b"") -> bytes | bytearray:  # fmt: skip
    """The frame of what one call stores: records numbered from ``first`` on."""
    records, count = pack_each(salt, first, born, rows), len(rows)
    if count < INDEX_LEAST:
        return pack_frame(salt, first, count, b"".join(records), flags, extra)
    short = count <= INDEX_MOST and sum(map(len, records)) <= INDEX_BYTES
    uniform = short and (isinstance(rows, UniformRows) or _uniform(rows))
    size = FRAME_SIZE + len(extra) + (4 + 4 * count if uniform else 0)
    data = bytearray().join((bytes(size), *records))  # large: it is made once, in place
    index = b""
    if uniform:
        index = struct.pack(f"<{count + 1}I", crc32(memoryview(data)[size:], salt), *map(len, records))
    data[:size] = _frame_head(salt, first, count, len(data) - size, flags, extra, index)
    return data


def _uniform(rows: Sequence[Row]) -> bool:
    _, flags, extra, _ = rows[0]
    return all(row[1] == flags and row[2] == extra for row in rows)


def read_record(block: bytes, at: int, salt: int) -> tuple[Record, int] | None:
    """The record at ``at`` and the offset behind it; None if there is no whole, sound one."""
    if at + RECORD_SIZE > len(block):
        return None
    magic, extra, check, length = HEAD.unpack_from(block, at)
    start = at + HEAD_SIZE
    end = start + length
    if magic != RECORD_MAGIC or end > len(block) or length < RECORD.size + extra:
        return None
    if crc32(memoryview(block)[start:end], salt ^ extra) != check:
        return None
    sequence, born, identity, flags = RECORD.unpack_from(block, start)
    body = start + RECORD.size + extra
    return Record(sequence, identity, flags, born, block[body - extra : body], block[body:end], at), end


def read_frame(block: bytes, at: int, salt: int) -> Frame | None:
    """The frame whose header is at ``at`` (its records may lie behind the block's end); None if it is not sound."""
    if at + FRAME_SIZE > len(block):
        return None
    magic, extra, check, length = HEAD.unpack_from(block, at)
    start = at + HEAD_SIZE
    end = start + length
    if magic != FRAME_MAGIC or end > len(block) or length < FRAME.size + extra:
        return None
    if crc32(memoryview(block)[start:end], salt ^ extra) != check:
        return None
    first, count, flags, size = FRAME.unpack_from(block, start)
    behind = start + FRAME.size + extra
    if end - behind != (4 + 4 * count if flags & INDEX else 0):
        return None
    return Frame(first, count, flags, block[behind - extra : behind], at, end, end + size, block[behind:end])


def whole(block: bytes, frame: Frame, salt: int) -> bool:
    """Whether every record of a frame is there and sound."""
    if frame.end > len(block):
        return False
    at = frame.body
    for _ in range(frame.count):
        found = read_record(block, at, salt)
        if found is None:
            return False
        at = found[1]
    return at == frame.end


def resume(block: bytes, at: int, salt: int) -> int:
    """The offset of the next sound frame header or record at or after ``at``; the block's end if there is none."""
    while at < len(block):
        spots = [spot for spot in (block.find(b"\xd7F", at), block.find(b"\xd7R", at)) if spot >= 0]
        if not spots:
            return len(block)
        at = min(spots)
        if read_frame(block, at, salt) is not None or read_record(block, at, salt) is not None:
            return at
        at += 1
    return len(block)


def walk(block: bytes, at: int, salt: int) -> Iterator[Record | Frame | tuple[int, int]]:
    """Everything from ``at`` on: frame headers, records, and (from, to) of what is damaged.

    The last one may only be cut off by the end of the block; the caller knows whether more follows.
    """
    while at < len(block):
        found = read_record(block, at, salt)
        if found is not None:
            yield found[0]
            at = found[1]
            continue
        frame = read_frame(block, at, salt)
        if frame is not None:
            yield frame
            at = frame.body
            continue
        behind = resume(block, at + 1, salt)
        yield at, behind
        at = behind
