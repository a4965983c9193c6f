"""The journal of a half: everything that is not a fresh message, as a sequence of small commits.

Owns the files ``journal.<generation>``: a snapshot, then commits, each whole or not there. Called under the half's
lock. Must not know what the operations mean.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from dropr_storage_fs.engine.operations import Ready
from dropr_storage_fs.files import disk, layout

HEAD = struct.Struct("<IIIII")
"""magic, checksum, flags (1: promised when flushed), length, how much of the file was on stable storage by then."""
MAGIC = 0x4E52504A
_MAGIC = MAGIC.to_bytes(4, "little")
START = struct.Struct("<8sHHIQI")
START_SIZE = 32
FILE_MAGIC = b"dropr-jn"
PROMISED = 1
SNAPSHOT_PART = 5000
"""Operations of a snapshot that stand in one commit."""
_READ_MIN, _READ_MAX = 1 << 16, 1 << 20


def name_of(generation: int) -> str:
    """The file of a generation."""
    return f"journal.{generation:08d}"


def generations(directory: Path) -> list[int]:
    """Those that are there, in order."""
    names = [path.name for path in directory.glob("journal.*")]
    return sorted(int(name[8:]) for name in names if name[8:].isdigit())


class StoredCommit(NamedTuple):
    """One whole commit as it stands in a journal."""

    payload: bytes
    promised: bool
    behind: int
    """The offset behind it."""


class Damage(NamedTuple):
    """What cannot be read though it had been flushed."""

    start: int
    behind: int


class Journal:
    """One generation, open."""

    def __init__(self, directory: Path, generation: int, *, read_only: bool = False) -> None:
        self.path, self.generation = directory / name_of(generation), generation
        self.fd = disk.open_file(self.path, write=not read_only)
        try:
            packed = os.pread(self.fd, START.size, 0)
        except BaseException:
            self.close()
            raise
        self.good = len(packed) == START.size and crc32(packed[:-4]) == int.from_bytes(packed[-4:], "little")
        magic, self.version, _, self.salt, number, _ = START.unpack(packed) if self.good else (b"", 0, 0, 0, 0, 0)
        self.good = self.good and magic == FILE_MAGIC and number == generation

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.fd).st_size

    def pack(self, ops: Sequence[object], *, promised: bool, synced: int) -> bytes:
        """The bytes of a commit."""
        return _pack(self.salt, ops, promised=promised, synced=synced)

    def read(self, at: int, end: int) -> Iterator[StoredCommit | Damage]:
        """Each whole commit from ``at`` on. What is damaged though it had been flushed is passed and told; at a torn
        end it stops.
        """
        size = _READ_MIN
        while at < end:
            block = os.pread(self.fd, min(size, end - at), at)
            last = at + len(block) >= end or len(block) < min(size, end - at)
            done = 0
            while done + HEAD.size <= len(block):
                found = self._commit(block, done)
                if found is None:
                    behind = self._resume(block, done, at) if last or size > _READ_MAX else None
                    if behind is None:
                        break
                    yield Damage(at + done, at + behind)
                    done = behind
                    continue
                payload, flags, done = found
                yield StoredCommit(payload, bool(flags & PROMISED), at + done)
            if done == 0:
                if last:
                    return
                size *= 8
            at += done

    def _commit(self, block: bytes, at: int) -> tuple[bytes, int, int] | None:
        magic, check, flags, length, synced = HEAD.unpack_from(block, at)
        stop = at + HEAD.size + length
        if magic != MAGIC or stop > len(block):
            return None
        payload = block[at + HEAD.size : stop]
        return (payload, flags, stop) if _check(self.salt, payload, flags, synced) == check else None

    def _resume(self, block: bytes, bad: int, base: int) -> int | None:
        """The offset of the next sound commit, if one behind it says that what is damaged had been flushed."""
        first: int | None = None
        at = block.find(_MAGIC, bad + 1)
        while at >= 0 and at + HEAD.size <= len(block):
            if self._commit(block, at) is not None:
                first = at if first is None else first
                if HEAD.unpack_from(block, at)[4] > base + bad:
                    return first
            at = block.find(_MAGIC, at + 1)
        return None

    def close(self) -> None:
        """Close the file; safe twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _check(salt: int, payload: bytes, flags: int, synced: int) -> int:
    return crc32(payload, salt ^ flags ^ synced ^ len(payload))


def _pack(salt: int, ops: Sequence[object], *, promised: bool, synced: int = 0) -> bytes:
    payload = layout.encode(ops)
    flags = PROMISED if promised else 0
    return HEAD.pack(MAGIC, _check(salt, payload, flags, synced), flags, len(payload), synced) + payload


def create(directory: Path, generation: int, snapshot: Sequence[object], version: int = 1) -> int:
    """Make a generation that begins with a snapshot, durably, in one step. Returns its size."""
    salt = int.from_bytes(os.urandom(4), "little")
    packed = START.pack(FILE_MAGIC, version, 0, salt, generation, 0)[:-4]
    start = (packed + crc32(packed).to_bytes(4, "little")).ljust(START_SIZE, b"\0")
    parts = [start]
    for at in range(0, len(snapshot), SNAPSHOT_PART):
        parts.append(_pack(salt, snapshot[at : at + SNAPSHOT_PART], promised=True))
    parts.append(_pack(salt, [Ready()], promised=True))
    data = b"".join(parts)
    disk.put_file(directory / name_of(generation), data)
    return len(data)


def remove_before(directory: Path, generation: int) -> None:
    """Remove older generations."""
    for number in generations(directory):
        if number < generation:
            with contextlib.suppress(OSError):
                (directory / name_of(number)).unlink()


def remove_after(directory: Path, generation: int) -> None:
    """Remove generations that were begun and never taken into use."""
    for number in generations(directory):
        if number > generation:
            (directory / name_of(number)).unlink()
            disk.flush_directory(directory)
