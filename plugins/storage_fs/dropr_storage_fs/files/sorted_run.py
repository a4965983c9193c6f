"""A file of records that nobody keeps in memory: sorted by a key, found by key, by id or by time, never changed.

Owns its layout (docs/formats/fs.md). A lookup reads a few bytes of an index and the record, which has a checksum. Must
not know what the records mean.
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from dropr_storage_fs.files import disk

HEADER = struct.Struct("<8sHHIQQQII")
"""magic, version, flags, salt, records, offset of the index by id, records that have a key, checksum of the indexes,
checksum."""
OLD_HEADER = struct.Struct("<8sHHIQQQI")
"""Of version 1: the indexes have no checksum, and there is none by time."""
HEADER_SIZE = 64
"""It stands at the beginning and, from version 2 on, once more at the end."""
MAGIC, VERSION = b"dropr-rm", 2
RECORD = struct.Struct("<IId")
"""checksum of all that follows, begun with the salt; length; until when it is remembered. Then the record."""
_CHECK, _CHECKED = struct.Struct("<I"), struct.Struct("<Id")
"""The parts of it: the checksum, and what it is of besides the record."""
OLD_RECORD = struct.Struct("<II")
"""Of version 1: checksum of the record; length."""
BY_ID = struct.Struct("<16sI")
"""id, offset of its record; sorted by id. One id may have several."""
BY_KEY = struct.Struct("<QI")
"""key, offset of its record; sorted by key. Behind the index by id."""
BY_TIME = struct.Struct("<dI")
"""until when it is remembered, offset of its record; sorted by that. Behind the index by key, of the same records."""
_BLOCK = 1 << 16
_LIKELY = 1 << 12
"""Where less than that follows of a block, the next one is read: hardly a record is longer."""
_PIECE = 1 << 20

Tell = Callable[[Path, int, str], None]
"""Told of damage: the file, the offset, what is wrong."""


class Entry(NamedTuple):
    """One record. ``key``: None for one that is found by its id alone."""

    key: int | None
    id: bytes
    until: float
    payload: bytes


class Stored(NamedTuple):
    """One record as it was read. ``until``: None in a file of version 1."""

    until: float | None
    payload: bytes


def _check(salt: int, until: float, payload: bytes) -> int:
    return crc32(payload, crc32(_CHECKED.pack(len(payload), until), salt))


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Make a run of records in order of their keys, those without one last; durably. Raises OSError; then there is
    none.
    """
    salt = int.from_bytes(os.urandom(4), "little")
    ids: list[bytes] = []
    keys, at = bytearray(), HEADER_SIZE
    times, offsets = array("d"), array("Q")
    with disk.make_file(path) as fd:
        piece, base = bytearray(), HEADER_SIZE
        for key, identity, until, payload in entries:
            head = _CHECKED.pack(len(payload), until)
            piece += _CHECK.pack(crc32(payload, crc32(head, salt)))
            piece += head
            piece += payload
            ids.append(BY_ID.pack(identity, at))
            if key is not None:
                keys += BY_KEY.pack(key, at)
                times.append(until)
                offsets.append(at)
            at = base + len(piece)
            if len(piece) >= _PIECE:
                disk.write_at(fd, piece, base)
                piece, base = bytearray(), at
        ids.sort()
        order = sorted(range(len(times)), key=times.__getitem__)
        index = b"".join((*ids, bytes(keys), *(BY_TIME.pack(times[one], offsets[one]) for one in order)))
        packed = HEADER.pack(MAGIC, VERSION, 0, salt, len(ids), at, len(times), crc32(index, salt), 0)[:-4]
        header = (packed + crc32(packed).to_bytes(4, "little")).ljust(HEADER_SIZE, b"\0")
        disk.write_at(fd, bytes(piece) + index + header, base)
        disk.write_at(fd, header, 0)


class SortedRun:
    """One run. Its file is open from the first look until `close`, and is opened again by the next. Raises OSError;
    what cannot be read is told of and left out.
    """

    def __init__(self, path: Path, tell: Tell = lambda _path, _at, _error: None) -> None:
        self.path, self._tell, self._fd = path, tell, -1
        self._is_sound: bool | None = None
        self.flawed = False
        """Whether a damaged record was met."""
        size = os.fstat(self._open()).st_size
        self.size = size
        self.good = self._read_header(0) or self._read_header(size - HEADER_SIZE)
        if not self.good:
            tell(path, 0, "the header of this file is damaged")

    def _read_header(self, at: int) -> bool:
        self.version = self._salt = self.count = self._ids = self.keyed = self._index_check = 0
        block = self._read(HEADER.size, max(0, at))
        for layout, version in ((HEADER, VERSION), (OLD_HEADER, 1)):
            packed = block[: layout.size]
            if len(packed) == layout.size and crc32(packed[:-4]) == int.from_bytes(packed[-4:], "little"):
                magic, self.version, _, self._salt, self.count, self._ids, self.keyed, *more = layout.unpack(packed)
                self._index_check = more[0] if version > 1 else 0
                if magic == MAGIC and self.version == version:
                    self._record = RECORD if version > 1 else OLD_RECORD
                    self._keys = self._ids + self.count * BY_ID.size
                    self._times = self._keys + self.keyed * BY_KEY.size
                    return True
        return False

    # ── looking up ───────────────────────────────────────────────────────────────────────────────

    def find(self, identity: bytes) -> list[Stored]:
        """Every record with an id."""
        found: list[Stored] = []
        low = _first(self.count, lambda middle: self._id(middle)[0] < identity)
        while low < self.count:
            one, at = self._id(low)
            if one != identity:
                break
            stored = self._at(at)
            found += [] if stored is None else [stored]
            low += 1
        return found

    def after(self, key: int, before: int) -> Iterator[tuple[int, Stored]]:
        """(key, record) of every one with a key above ``key`` and below ``before``, in order."""
        low = _first(self.keyed, lambda middle: self._unpack(BY_KEY, self._keys, middle)[0] <= key)
        ahead = _Ahead(self._read)
        for one, at in self._index(BY_KEY, self._keys, low):
            if one >= before:
                return
            stored = self._at(at, ahead)
            if stored is not None:
                yield one, stored

    def times(self, after: float) -> Iterator[tuple[float, int]]:
        """(until when it is remembered, where it stands) of every one with a key and a time after that, in order of
        time; none in a file of version 1.
        """
        if self.version > 1:
            low = _first(self.keyed, lambda middle: self._unpack(BY_TIME, self._times, middle)[0] <= after)
            yield from self._index(BY_TIME, self._times, low)

    def at(self, offset: int) -> Stored | None:
        """What stands at an offset that `times` told."""
        return self._at(offset)

    def everything(self) -> Iterator[Stored]:
        """All records, in the order in which they stand. It needs no more than one kind of bytes to be sound: the
        index, or the lengths.
        """
        base, block, head, salt = 0, b"", RECORD.size, self._salt
        for at in sorted(self._offsets()) if self.sound() else self._walk():
            low = at - base
            if low < 0 or low + _LIKELY > len(block):
                base, block, low = at, self._read(_BLOCK, at), 0
            if self.version > 1 and len(block) - low >= head:  # as nearly all are: no call for each
                check, length, until = RECORD.unpack_from(block, low)
                payload = block[low + head : low + head + length]
                if len(payload) == length and crc32(payload, crc32(block[low + 4 : low + head], salt)) == check:
                    yield Stored(until, payload)
                    continue
            stored = self._at(at)
            if stored is not None:
                yield stored

    def _offsets(self) -> "array[int]":
        return array("Q", (at for _, at in self._index(BY_ID, self._ids, 0, self.count)))

    def _walk(self) -> Iterator[int]:
        at = HEADER_SIZE
        while at + self._record.size <= self._ids:
            yield at
            block = self._read(self._record.size, at)
            at += self._record.size + self._record.unpack(block)[1] if len(block) == self._record.size else self._ids

    def sound(self) -> bool:
        """Whether the indexes are as they were written; looked at once."""
        if self._is_sound is None:
            size = self.count * BY_ID.size + self.keyed * (BY_KEY.size + BY_TIME.size)
            check, at = self._salt, self._ids
            while size > 0 and self.version > 1:
                block = self._read(min(_PIECE, size), at)
                if not block:
                    break
                check, at, size = crc32(block, check), at + len(block), size - len(block)
            self._is_sound = self.version < VERSION or check == self._index_check
            if not self._is_sound:
                self._tell(self.path, self._ids, "the index of this file is damaged")
        return self._is_sound

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────

    def _index(self, kind: struct.Struct, start: int, first: int, count: int = -1) -> Iterator[tuple[Any, int]]:
        count, step = self.keyed if count < 0 else count, _BLOCK // kind.size
        for one in range(first, count, step):
            block = self._read(min(step, count - one) * kind.size, start + one * kind.size)
            yield from kind.iter_unpack(block[: len(block) // kind.size * kind.size])

    def _id(self, position: int) -> tuple[bytes, int]:
        identity, at = self._unpack(BY_ID, self._ids, position)
        return identity, at

    def _unpack(self, kind: struct.Struct, start: int, position: int) -> tuple[Any, int]:
        block = self._read(kind.size, start + position * kind.size)
        value, at = kind.unpack(block.ljust(kind.size, b"\0"))
        return value, at

    def _at(self, at: int, read: Callable[[int, int], bytes] | None = None) -> Stored | None:
        read = read or self._read
        block = read(512, at)
        head = self._record.size
        if len(block) >= head:
            check, length, *more = self._record.unpack_from(block, 0)
            if head + length > len(block) and at + head + length <= self._ids:
                block = read(head + length, at)
            payload = block[head : head + length]
            until = more[0] if more else None
            right = crc32(payload, self._salt) if until is None else _check(self._salt, until, payload)
            if len(payload) == length and right == check:
                return Stored(until, payload)
        self.flawed = True
        self._tell(self.path, at, "a record of this file is damaged; it is lost, all others are read")
        return None

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = disk.open_file(self.path)
        return self._fd

    def _read(self, size: int, at: int) -> bytes:
        return os.pread(self._open(), size, at)

    def close(self) -> None:
        """Close the file; safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Ahead:
    """Reads what comes next with what is asked for, each time twice as much: for who reads one after the other."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read, self._block, self._start, self._step = read, b"", 0, 256

    def __call__(self, size: int, at: int) -> bytes:
        low = at - self._start
        if low < 0 or low + size > len(self._block):
            self._step = min(2 * self._step, _BLOCK)
            self._block, self._start, low = self._read(max(size, self._step), at), at, 0
        return self._block[low : low + size]


def _first(count: int, before: Callable[[int], bool]) -> int:
    """The first position that is not ``before`` what is looked for."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if before(middle):
            low = middle + 1
        else:
            high = middle
    return low
