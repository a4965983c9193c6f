"""A file of records that nobody keeps in memory: sorted by a key, found by key or by id, never changed.

Owns its layout (docs/formats/fs.md). A lookup reads a few bytes of an index and the record, which has a checksum. Must
not know what the records mean.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from dropr_storage_fs.files import disk

HEADER = struct.Struct("<8sHHIQQQI")
"""magic, version, flags, salt, records, offset of the index by id, records that have a key, checksum."""
HEADER_SIZE = 64
MAGIC, VERSION = b"dropr-rm", 1
RECORD = struct.Struct("<II")
"""checksum, begun with the salt; length. Then the record."""
BY_ID = struct.Struct("<16sI")
"""id, offset of its record; sorted by id. One id may have several."""
BY_KEY = struct.Struct("<QI")
"""key, offset of its record; sorted by key. Behind the index by id."""
_BLOCK = 1 << 16


class Entry(NamedTuple):
    """One record. ``key``: None for one that is found by its id alone."""

    key: int | None
    id: bytes
    payload: bytes


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Make a run of records in order of their keys, those without one last; durably. Raises OSError."""
    salt = int.from_bytes(os.urandom(4), "little")
    parts: list[bytes] = [b""]
    ids: list[tuple[bytes, int]] = []
    keys: list[bytes] = []
    at = HEADER_SIZE
    for entry in entries:
        parts.append(RECORD.pack(crc32(entry.payload, salt), len(entry.payload)) + entry.payload)
        ids.append((entry.id, at))
        if entry.key is not None:
            keys.append(BY_KEY.pack(entry.key, at))
        at += len(parts[-1])
    ids.sort()
    packed = HEADER.pack(MAGIC, VERSION, 0, salt, len(ids), at, len(keys), 0)[:-4]
    parts[0] = (packed + crc32(packed).to_bytes(4, "little")).ljust(HEADER_SIZE, b"\0")
    disk.put_file(path, b"".join((*parts, *(BY_ID.pack(*one) for one in ids), *keys)))


class SortedRun:
    """One run, open. Raises OSError; what cannot be read is None or left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = disk.open_file(path)
        try:
            packed = os.pread(self._fd, HEADER.size, 0)
        except BaseException:
            self.close()
            raise
        good = len(packed) == HEADER.size and crc32(packed[:-4]) == int.from_bytes(packed[-4:], "little")
        magic, version, _, self._salt, self.count, self._ids, self.keyed, _ = (
            HEADER.unpack(packed) if good else (b"", 0, 0, 0, 0, 0, 0, 0)
        )
        self.good = good and magic == MAGIC and version == VERSION
        self._keys = self._ids + self.count * BY_ID.size

    def find(self, identity: bytes) -> list[bytes]:
        """Every record with an id."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self._id(middle)[0] < identity:
                low = middle + 1
            else:
                high = middle
        found: list[bytes] = []
        while low < self.count:
            one, at = self._id(low)
            if one != identity:
                break
            payload = self._record(at)
            found += [] if payload is None else [payload]
            low += 1
        return found

    def after(self, key: int, before: int) -> Iterator[tuple[int, bytes]]:
        """(key, record) of every one with a key above ``key`` and below ``before``, in order."""
        low, high = 0, self.keyed
        while low < high:
            middle = (low + high) // 2
            if self._key(middle)[0] <= key:
                low = middle + 1
            else:
                high = middle
        step = _BLOCK // BY_KEY.size
        for first in range(low, self.keyed, step):
            wanted = min(step, self.keyed - first) * BY_KEY.size
            block = os.pread(self._fd, wanted, self._keys + first * BY_KEY.size)
            for one, at in BY_KEY.iter_unpack(block[: len(block) // BY_KEY.size * BY_KEY.size]):
                if one >= before:
                    return
                payload = self._record(at)
                if payload is not None:
                    yield one, payload

    def everything(self) -> Iterator[bytes]:
        """All records, in the order in which they stand."""
        at, block, base = HEADER_SIZE, b"", HEADER_SIZE
        while at < self._ids:
            if at + RECORD.size > base + len(block):
                block, base = os.pread(self._fd, min(_BLOCK, self._ids - at), at), at
                if len(block) < RECORD.size:
                    return
            check, length = RECORD.unpack_from(block, at - base)
            stop = at + RECORD.size + length
            if stop > base + len(block):
                block, base = os.pread(self._fd, max(_BLOCK, RECORD.size + length), at), at
                if stop > self._ids or len(block) < RECORD.size + length:
                    return
            payload = block[at - base + RECORD.size : stop - base]
            if crc32(payload, self._salt) == check:
                yield payload
            at = stop

    def _id(self, position: int) -> tuple[bytes, int]:
        block = os.pread(self._fd, BY_ID.size, self._ids + position * BY_ID.size)
        identity, at = BY_ID.unpack(block.ljust(BY_ID.size, b"\0"))
        return identity, at

    def _key(self, position: int) -> tuple[int, int]:
        block = os.pread(self._fd, BY_KEY.size, self._keys + position * BY_KEY.size)
        key, at = BY_KEY.unpack(block.ljust(BY_KEY.size, b"\0"))
        return key, at

    def _record(self, at: int) -> bytes | None:
        block = os.pread(self._fd, 512, at)
        if len(block) < RECORD.size:
            return None
        check, length = RECORD.unpack_from(block, 0)
        if RECORD.size + length > len(block):
            block = os.pread(self._fd, RECORD.size + length, at)
        payload = block[RECORD.size : RECORD.size + length]
        return payload if len(payload) == length and crc32(payload, self._salt) == check else None

    def close(self) -> None:
        """Close the file; safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
